"""What do induction scores of all heads cost? Against a forward pass of the same prompts.

python studies/speed/induction.py [--part scores lags] [--threads 2] [--repeats 3] [--count 10]

Exit code: 0 when scores equal those taken from cached attention to 1e-5, whatever the times; 1 when
not; 2 when the study could not be run.
"""

import argparse
import inspect
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from speed_measure import alternate, machine, summary
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

import mechlab as ml

AGREEMENT = 1e-5
WANTED = 1.3
"""At most so many forward passes."""


@dataclass(frozen=True)
class Case:
    """A model and repeated lists; both sides read the same rows in the same batches.

    Attributes:
        model: what is run.
        lists: the prompts, ids of its own.
        batch: rows that run together.
    """

    model: ml.Model
    lists: ml.prompts.PromptSet
    batch: int

    @cached_property
    def rows(self) -> Tensor:
        """Token ids `[prompt, pos]`, BOS first."""
        bos = self.model.tokenizer.bos_token_id
        rows = [[bos, *one.numbers] for one in self.lists]
        return torch.tensor(rows, device=self.model.device)

    @torch.no_grad()
    def forward(self, *, head: bool) -> float:
        """Run all rows without hooks, with logits of all positions or of the last one."""
        options: dict[str, Any] = {"use_cache": False}
        if not head and "logits_to_keep" in inspect.signature(self.model.hf.forward).parameters:
            options["logits_to_keep"] = 1
        last = 0.0
        for rows in self.rows.split(self.batch):
            last += float(self.model.bridge(rows, **options)[0, -1, 0])
        return last

    @torch.no_grad()
    def cached(self, source: str) -> list[np.ndarray]:
        """Keep the whole attention of each prompt, `[layer, head, query, key]`."""
        found, keep = [], f"attn.hook_{source}"
        for rows in self.rows.split(self.batch):
            _, cache = self.model.bridge.run_with_cache(
                rows, names_filter=lambda name: name.endswith(keep), use_cache=False
            )
            layers = [cache[f"blocks.{n}.{keep}"] for n in range(self.model.n_layers)]
            found += list(torch.stack(layers, 1).cpu().numpy())
        return found


def scores_ours(case: Case) -> np.ndarray:
    """Prefix matching `[prompt, layer, head]` by mechlab."""
    found = ml.induction_scores(case.model, case.lists, max_batch=case.batch)
    values: np.ndarray = found.prefix_matching.values
    return values


def scores_cached(case: Case) -> np.ndarray:
    """The same from cached patterns."""
    n = len(case.lists[0].source)
    return np.stack(
        [p[:, :, n + 1 :].diagonal(2, 2, 3)[..., :n].mean(-1) for p in case.cached("pattern")]
    )


def lags_ours(case: Case) -> np.ndarray:
    """Attention score by lag `[prompt, layer, head, lag]` by mechlab."""
    found = ml.attention_by_lag(case.model, case.lists, resamples=40, max_batch=case.batch)
    values: np.ndarray = found.curve_by_prompt.values
    return values


def lags_cached(case: Case) -> np.ndarray:
    """The same from cached scores."""
    n = len(case.lists[0].source)
    return np.stack(
        [
            np.stack(
                [s[:, :, n + 1 :, 1 : n + 1].diagonal(lag, 2, 3).mean(-1) for lag in range(-5, 6)],
                axis=-1,
            )
            for s in case.cached("attn_scores")
        ]
    )


PARTS: dict[str, tuple[str, Callable[[Case], np.ndarray], Callable[[Case], np.ndarray]]] = {
    "scores": ("prefix matching, previous and duplicate token", scores_ours, scores_cached),
    "lags": ("attention scores by lag, serial position, intervals", lags_ours, lags_cached),
}


def measure(name: str, case: Case, repeats: int) -> dict[str, Any]:
    """Time a part; all ways have run before."""
    title, ours, cached = PARTS[name]
    found, expected = ours(case), cached(case)
    seconds = alternate(
        {
            "mechlab": lambda: ours(case),
            "forward": lambda: case.forward(head=True),
            "forward without head": lambda: case.forward(head=False),
            "cached attention": lambda: cached(case),
        },
        repeats,
    )
    ratios = {
        other: summary([a / b for a, b in zip(seconds["mechlab"], seconds[other], strict=True)])
        for other in seconds
        if other != "mechlab"
    }
    # Scores before the softmax are of any size.
    difference = float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
    return {
        "part": name,
        "title": title,
        "prompts": len(case.lists),
        "seconds": seconds,
        "ratios": ratios,
        "difference": difference,
        "spread": float(np.ptp(expected)),
        "agree": difference <= AGREEMENT,
        "met": all(ratios[o]["median"] <= WANTED for o in ("forward", "forward without head")),
    }


def show(result: dict[str, Any], case: Case) -> None:
    """Print one part."""
    width, layers = case.rows.shape[1], case.model.n_layers
    print(f"\n== {result['title']}")
    print(
        f"   {result['prompts']} prompts of {width} tokens, {case.batch} at once, {layers} layers "
        f"x {case.model.n_heads} heads, {str(case.model.dtype).removeprefix('torch.')}"
    )
    for name, seconds in result["seconds"].items():
        line = f"  {name:28s}{statistics.median(seconds):9.3f} s"
        if name in result["ratios"]:
            line += f"   mechlab takes {result['ratios'][name]['median']:.2f} of it"
        print(line)
    print(f"  wanted: at most {WANTED} forward passes: {'met' if result['met'] else 'not met'}")
    print(f"  largest difference {result['difference']:.1e} (values range over ", end="")
    print(f"{result['spread']:.1e})")


def made_case(options: argparse.Namespace) -> Case:
    """Return GPT-2-small's shape (`--quick`: a tiny one) with random weights, and its lists."""
    config = tf.GPT2Config()
    if options.quick:
        config = tf.GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=500, n_positions=64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():  # as initialised, attention is uniform and scores say nothing
        for name, weight in plain.named_parameters():
            if weight.ndim == 2 and "wte" not in name and "wpe" not in name:
                weight.mul_(3)
    model = ml.wrap_model(plain.eval().to(options.device), words(), name="gpt2-shape")
    lists = ml.prompts.repeated_tokens(options.count, options.length, model=model, pool="tokens")
    return Case(model, lists, options.batch)


def words() -> tf.PreTrainedTokenizerFast:
    """Return a tokenizer of a few hundred words, enough for lists."""
    vocabulary = {"<bos>": 0, "<unk>": 1} | {f"w{i}": i + 2 for i in range(400)}
    raw = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<bos>", unk_token="<unk>", pad_token="<unk>",
        add_bos_token=False, name_or_path="words",
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {"options": {name: str(v) for name, v in vars(options).items()}}
    try:
        case = made_case(options)
        results = []
        for name in options.part:
            results.append(measure(name, case, options.repeats))
            show(results[-1], case)
    except ml.MechlabError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    report |= {"machine": machine(), "parts": results}
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    print(f"\nmachine: {report['machine']}")
    return 0 if all(result["agree"] for result in results) else 1


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = made.add_argument
    add("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    add("--threads", type=int, default=2, help="of torch, for all runs alike")
    add("--repeats", type=int, default=3, help="alternating repetitions of the timed runs")
    add("--count", type=int, default=10, help="prompts")
    add("--length", type=int, default=100, help="tokens of one copy")
    add("--batch", type=int, default=10, help="rows at once, on either side")
    add("--device", default="cpu")
    add("--quick", action="store_true", help="a tiny model instead of GPT-2's shape, for tests")
    add("--json", type=Path, help="write everything that was measured")
    return made


if __name__ == "__main__":
    sys.exit(main())
