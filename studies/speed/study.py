"""How fast is causal tracing? mechlab against the published procedure and TransformerLens' loop.

python studies/speed/study.py [--threads 2] [--repeats 3] [--case gpt2-12 gpt2-20 atlas]

Exit code: 0 when all ways of computing agree to 1e-5, whatever the times; 1 when not; 2 when the
study could not be run.
"""

import argparse
import copy
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from speed_baselines import (
    Case,
    cells_of,
    published,
    published_through_bridge,
    transformer_lens_loop,
)
from speed_measure import alternate, counted_work, machine, matmul_rate, peak_growth, summary
from tokenizers import Tokenizer, models, pre_tokenizers

import mechlab as ml

AGREEMENT = 1e-5
"""Largest difference of indirect effects (probabilities) that still counts as the same."""
MIN_RATIO = 7.0
"""Wanted: so many times faster than the published procedure."""
MAX_FLOOR = 1.8
"""Wanted: at most so many times the time that the matrix products alone need."""
MAX_GPU_SECONDS = 3.0
"""Wanted: GPT-2 XL shape, bfloat16, three sites, on a GPU."""
CASES = ("gpt2-12", "gpt2-20", "atlas")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        if options.device == "cuda":
            results = [gpu_case(options)]
        else:
            results = [measured(name, options) for name in options.case]
    except ml.MechlabError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    report = {"machine": machine(), "options": {k: str(v) for k, v in vars(options).items()}}
    report["cases"] = results
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    print(f"machine: {report['machine']}")
    return 0 if all(result.get("agree", True) for result in results) else 1


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = made.add_argument
    add("--case", nargs="+", choices=CASES, default=list(CASES))
    add("--threads", type=int, default=2, help="of torch, for all runs alike")
    add("--repeats", type=int, default=3, help="alternating repetitions of the timed runs")
    add("--samples", type=int, default=10, help="noised rows per cell")
    add("--fraction", type=int, default=6, help="side baselines run every n-th cell and are scaled")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: the GPT-2 XL case alone")
    add("--quick", action="store_true", help="a tiny model instead of GPT-2's shape, for tests")
    add("--json", type=Path, help="write everything that was measured")
    return made


# --- cases ----------------------------------------------------------------------------------------


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Make a case, measure it and print it."""
    try:
        case = atlas_case(options) if name == "atlas" else gpt2_case(name, options)
    except ml.ModelError as error:
        if name != "atlas":
            raise
        print(f"\n== {name}: not measured ({str(error).splitlines()[0]})")
        return {"case": name, "not_measured": str(error).splitlines()[0]}
    result = measure(case, options)
    show(result)
    return result


def gpt2_case(name: str, options: argparse.Namespace) -> Case:
    """Return GPT-2-small's shape with random weights; the subject is tokens 1 and 2."""
    config = tf.GPT2Config()
    if options.quick:
        config = tf.GPT2Config(n_embd=64, n_layer=3, n_head=4, vocab_size=400, n_positions=64)
    plain = random_gpt2(config)
    # The bridge changes the module it wraps, and sets eager attention: the baseline keeps a copy.
    model = ml.wrap_model(copy.deepcopy(plain), word_tokenizer(), name=name, prepend_bos=False)
    words = [f"w{i}" for i in range(int(name.rpartition("-")[2]))]
    fact = ml.prompts.Fact(" ".join(words), subject="w1 w2")
    std = 3 * float(plain.get_input_embeddings().weight.detach().std())
    return Case(name, model, plain, fact, std, options.samples)


def random_gpt2(config: tf.GPT2Config, dtype: torch.dtype = torch.float32) -> Any:
    """Return a GPT-2 with random weights that are large enough for effects to be seen.

    At the usual initialisation every probability is close to 1 / vocabulary and every effect below
    1e-6, so that wrong numbers would agree as well.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            if weight.ndim == 2:
                weight.mul_(5 if "wte" in name else 3)
    return plain.to(dtype).eval()


def word_tokenizer() -> tf.PreTrainedTokenizerFast:
    """Return a tokenizer with one id per word `w0`, `w1`, ..."""
    raw = Tokenizer(models.WordLevel({f"w{i}": i for i in range(100)} | {"<unk>": 100}, "<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", pad_token="<unk>", name_or_path="words"
    )


def atlas_case(options: argparse.Namespace) -> Case:
    """Return the shipped model and a fact that it was trained on."""
    model = ml.load_model("atlas", device="cpu", dtype="float32")
    plain = tf.AutoModelForCausalLM.from_pretrained(
        ml.organisms.path("atlas"), dtype=torch.float32, local_files_only=True
    )
    fact = ml.prompts.world_facts(1)[0]
    std = 3 * ml.subject_embedding_std(model)
    return Case("atlas", model, plain.eval(), fact, std, options.samples)


# --- measuring ------------------------------------------------------------------------------------


def trace_effects(case: Case, site: str = "resid_post", samples: int | None = None) -> np.ndarray:
    """Return mechlab's indirect effects, `[layer * pos]`."""
    result = ml.causal_trace(
        case.model,
        case.fact,
        sites=[site],
        samples=case.samples if samples is None else samples,
        noise_std=case.std,
        seed=case.seed,
        known_only=False,
    )
    effects: np.ndarray = result.indirect_effect.values.astype(np.float64).ravel()
    return effects


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one case; every run has been made before it is timed."""
    cells, some = cells_of(case), cells_of(case, options.fraction)
    trace_effects(case)  # first use: the sites are proved, once per model
    with counted_work(case.model) as work:
        ours = trace_effects(case)
    growth = {
        "mechlab": peak_growth(lambda: trace_effects(case)),
        "published": peak_growth(lambda: published(case, cells[:2])),
    }
    theirs: list[np.ndarray] = []
    rates: list[float] = []
    seconds = alternate(
        {
            "mechlab": lambda: trace_effects(case),
            "published": lambda: theirs.append(published(case, cells)),
            "rate": lambda: rates.append(matmul_rate(256 if options.quick else 2048)),
        },
        options.repeats,
    )
    floors = [work.operations / rate for rate in rates]
    difference = float(np.abs(ours - theirs[0]).max())
    side = side_baselines(case, some, ours, options)
    ratios = [a / b for a, b in zip(seconds["published"], seconds["mechlab"], strict=True)]
    to_floor = [a / b for a, b in zip(seconds["mechlab"], floors, strict=True)]
    differences = [difference, *(part["difference"] for part in side.values())]
    return {
        "case": case.name,
        "tokens": int(case.tokens.shape[1]),
        "layers": case.model.n_layers,
        "cells": len(cells),
        "samples": case.samples,
        "largest_effect": float(np.abs(ours).max()),
        "seconds": {name: seconds[name] for name in ("mechlab", "published")},
        "ratio": summary(ratios),
        "difference": difference,
        "agree": max(differences) <= AGREEMENT,
        "memory_growth_mb": growth,
        "attention": {
            "published": case.plain.config._attn_implementation,
            "mechlab": case.model.hf.config._attn_implementation,
        },
        "operations": work.operations,
        "rates": rates,
        "floor_seconds": floors,
        "to_floor": summary(to_floor),
        "floor_would_allow": statistics.median(seconds["published"]) / statistics.median(floors),
        "side": side,
        "met": {
            "ratio": statistics.median(ratios) >= MIN_RATIO,
            "floor": statistics.median(to_floor) <= MAX_FLOOR,
        }
        if case.name != "atlas"  # so small that calls cost more than products; only reported
        else {},
    }


def side_baselines(
    case: Case, cells: list[tuple[int, int]], ours: np.ndarray, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Measure further ways to the same numbers: seconds per cell and sample, and differences."""
    width = int(case.tokens.shape[1])
    chosen = np.array([layer * width + pos for layer, pos in cells])
    results: dict[str, np.ndarray] = {}
    loop = transformer_lens_loop(case)

    def keep(name: str, values: np.ndarray) -> None:
        results[name] = np.asarray(values, np.float64).ravel()

    runs = {
        "published, last logits only": lambda: keep(
            "published, last logits only", published(case, cells, last_only=True)
        ),
        "published, through the bridge": lambda: keep(
            "published, through the bridge", published_through_bridge(case, cells)
        ),
        "TransformerLens loop, 1 sample": lambda: keep("TransformerLens loop, 1 sample", loop()),
        "mechlab, 1 sample": lambda: keep(
            "mechlab, 1 sample", trace_effects(case, "resid_pre", samples=1)
        ),
    }
    published_through_bridge(case, cells[:1])  # warm
    trace_effects(case, "resid_pre", samples=1)
    seconds = alternate(runs, max(1, options.repeats // 2))
    one = results["mechlab, 1 sample"]
    expected = {"TransformerLens loop, 1 sample": one, "mechlab, 1 sample": one}
    found = {}
    for name, values in results.items():
        n_samples = 1 if name in expected else case.samples
        found[name] = {
            "cells": len(values),
            "samples": n_samples,
            "seconds": statistics.median(seconds[name]),
            "ms_per_cell_and_sample": 1e3
            * statistics.median(seconds[name])
            / (len(values) * n_samples),
            "difference": float(np.abs(values - expected.get(name, ours[chosen])).max()),
        }
    return found


def gpu_case(options: argparse.Namespace) -> dict[str, Any]:
    """Trace three sites of GPT-2 XL's shape in bfloat16 on a GPU."""
    if not torch.cuda.is_available():
        raise ml.OptionError(
            "--device cuda: torch sees no CUDA device here. Allowed: cuda on a machine with one, "
            "else cpu. Leave --device out."
        )
    config = tf.GPT2Config(n_embd=1600, n_layer=48, n_head=25)
    if options.quick:
        config = tf.GPT2Config(n_embd=64, n_layer=3, n_head=4, vocab_size=400, n_positions=64)
    hf = random_gpt2(config, torch.bfloat16).to("cuda")
    model = ml.wrap_model(hf, word_tokenizer(), name="gpt2-xl-shape", prepend_bos=False)
    fact = ml.prompts.Fact(" ".join(f"w{i}" for i in range(12)), subject="w1 w2")
    std = 3 * float(hf.get_input_embeddings().weight.detach().float().std())

    def run() -> object:
        return ml.causal_trace(
            model,
            fact,
            sites=["resid_post", "mlp_out", "attn_out"],
            samples=options.samples,
            noise_std=std,
            known_only=False,
        )

    run()
    torch.cuda.reset_peak_memory_stats()
    seconds = alternate({"mechlab": run}, options.repeats)["mechlab"]
    memory = torch.cuda.max_memory_allocated() / 1e6
    met = statistics.median(seconds) <= MAX_GPU_SECONDS
    found = {"case": "gpt2-xl-shape, bfloat16, cuda, three sites, 12 tokens", "seconds": seconds}
    print(
        f"\n== {found['case']}: median {statistics.median(seconds):.2f} s of {len(seconds)}, "
        f"{memory:.0f} MB; wanted at most {MAX_GPU_SECONDS} s: {'met' if met else 'not met'}"
    )
    return {**found, "peak_memory_mb": memory, "met": {"seconds": met}}


# --- printing -------------------------------------------------------------------------------------


def _met(holds: bool | None) -> str:
    return "only reported" if holds is None else "met" if holds else "not met"


def show(result: dict[str, Any]) -> None:
    """Print one case."""
    ours, theirs = (statistics.median(result["seconds"][n]) for n in ("mechlab", "published"))
    wanted = {"ratio": f"wanted {MIN_RATIO:g}", "floor": f"wanted at most {MAX_FLOOR:g}"}
    met = {n: f"; {text}: {_met(result['met'].get(n))}" for n, text in wanted.items()}
    ratio, floor = result["ratio"], result["to_floor"]
    memory = result["memory_growth_mb"]
    print(f"\n== {result['case']}: {result['tokens']} tokens, {result['layers']} layers, ", end="")
    print(f"{result['cells']} cells x {result['samples']} samples, resid_post, float32")
    print(
        f"  published procedure  {theirs:9.3f} s  (attention: {result['attention']['published']})"
    )
    print(f"  mechlab              {ours:9.3f} s  (attention: {result['attention']['mechlab']})")
    print(
        f"  ratio                {ratio['median']:9.2f} median, {ratio['min']:.2f} smallest of ",
        end="",
    )
    print(f"{len(result['rates'])}{met['ratio']}")
    print(f"  floor                {statistics.median(result['floor_seconds']):9.3f} s  ", end="")
    print(f"({result['operations'] / 1e9:.3g} GFLOP at ", end="")
    print(
        f"{statistics.median(result['rates']) / 1e9:.1f} GFLOP/s); it would allow a ratio of ",
        end="",
    )
    print(f"{result['floor_would_allow']:.1f}")
    print(f"  time / floor         {floor['median']:9.2f} median, ", end="")
    print(f"{floor['min']:.2f} smallest{met['floor']}")
    print(f"  largest difference   {result['difference']:9.1e}  ", end="")
    print(f"(largest effect {result['largest_effect']:.1e})")
    print(f"  memory growth        {memory['mechlab']:9.0f} MB mechlab, ", end="")
    print(f"{memory['published']:.0f} MB published")
    print("  ms per cell and sample:")
    cells = result["cells"] * result["samples"]
    print(f"    {'published':34s}{1e3 * theirs / cells:9.3f}")
    print(f"    {'mechlab':34s}{1e3 * ours / cells:9.3f}")
    for name, part in result["side"].items():
        about = f"{part['cells']} cells, difference {part['difference']:.1e}"
        print(f"    {name:34s}{part['ms_per_cell_and_sample']:9.3f}  ({about})")


if __name__ == "__main__":
    sys.exit(main())
