"""How fast are edits and key statistics, and how much memory do many edits take?

python studies/speed/editing.py [--part value statistics memory] [--threads 2] [--repeats 3]

Exit code: 0 when both ways give the same numbers, whatever the times; 1 when not; 2 when the study
could not be run.
"""

import argparse
import json
import resource
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from editing_baselines import Shape, best_value, forward_until, gpt2_shape, moment_until
from speed_measure import alternate, give_back, machine, summary

import mechlab as ml

MIN_VALUE_RATIO = 2.0
"""Wanted: so many times faster than whole forward and backward passes."""
MIN_RATE_RATIO = 0.75
"""Wanted: at least this share of the token rate of the bare forward pass up to the layer."""
TOLERANCE = 1e-3
"""Of vectors and moments, relative to their size, in float32."""
PARTS = ("value", "statistics", "memory")
SETTINGS = {
    "steps": 20, "learning_rate": 0.5, "kl_weight": 0.0625, "decay_weight": 0.5, "clamp": 4.0,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.child:
        print(json.dumps(peak_memory(options)))
        return 0
    report: dict[str, Any] = {"machine": machine()}
    parts = {"value": values, "statistics": statistics, "memory": memory}
    try:
        for name in options.part:
            report[name] = parts[name](options)
    except (ml.MechlabError, subprocess.CalledProcessError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    print(f"machine: {report['machine']}")
    return 0 if all(report[name].get("agree", True) for name in options.part) else 1


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = made.add_argument
    add("--part", nargs="+", choices=PARTS, default=list(PARTS))
    add("--threads", type=int, default=2, help="of torch, for all runs alike")
    add("--repeats", type=int, default=3, help="alternating repetitions of the timed runs")
    add("--layer", type=int, default=8, help="zero-based, of 12")
    add("--tokens", type=int, default=16384, help="tokens that statistics are taken of")
    add("--length", type=int, default=256, help="tokens of each text of them")
    add("--edits", type=int, default=1000, help="edits that MEMIT makes while memory is measured")
    add("--quick", action="store_true", help="a tiny model instead of GPT-2's shape, for tests")
    add("--json", type=Path, help="write everything that was measured")
    add("--child", action="store_true", help=argparse.SUPPRESS)
    return made


def identity_statistics(shape: Shape) -> ml.KeyStatistics:
    """Return statistics without any structure: what they are changes no time."""
    width = shape.module.weight.shape[0]  # type: ignore[union-attr, index]
    fingerprint = shape.model.fingerprint
    return ml.KeyStatistics((shape.layer,), "down_proj", np.eye(width)[None], width, fingerprint)


# --- the value ------------------------------------------------------------------------------------


def values(options: argparse.Namespace) -> dict[str, Any]:
    """Time 20 steps of the value's optimisation in 21 contexts, both ways."""
    shape = gpt2_shape(options.layer, quick=options.quick)
    keys, draw = identity_statistics(shape), np.random.default_rng(0)
    contexts = [""] + [
        " ".join(f"w{n}" for n in draw.integers(0, 900, size)) + " . "
        for size in [4] * 10 + [9] * 10
    ]
    request = ml.EditRequest("w901 w902 w903 {} w904", "w905 w906", "w907")
    texts = [context + request.prompt for context in contexts] + [request.subject]
    rows = [ids(shape, text) for text in texts]
    lookups = [len(row) - 2 for row in rows[:-1]] + [1]
    edits: dict[str, ml.Edit] = {}
    found: dict[str, torch.Tensor] = {}

    def edit(steps: int) -> None:
        edits["mechlab"] = ml.rank_one_edit(
            shape.model, request, layer=options.layer, key_statistics=keys, contexts=contexts,
            stop_loss=0.0, **{**SETTINGS, "steps": steps},
        )  # fmt: skip

    def published(steps: int) -> None:
        settings = {**SETTINGS, "steps": steps}
        found["published"] = best_value(shape, rows, lookups, ids(shape, "w907")[0], settings)

    edit(2), published(2)  # first uses
    runs = {
        "mechlab": lambda: edit(20), "mechlab, 1 step": lambda: edit(1),
        "published": lambda: published(20), "published, 1 step": lambda: published(1),
    }  # fmt: skip
    seconds = alternate(runs, options.repeats)
    edit(20), published(20)
    details = edits["mechlab"].details
    mine = torch.tensor((details.value - details.value_before).values[0])
    gap = float((mine - found["published"]).norm() / found["published"].norm())
    whole = [b / a for a, b in zip(seconds["mechlab"], seconds["published"], strict=True)]
    steps = {way: np.subtract(seconds[way], seconds[f"{way}, 1 step"]) for way in list(runs)[::2]}
    ratio = summary((steps["published"] / steps["mechlab"]).tolist())
    result = {
        "seconds": seconds, "ratio": ratio, "ratio_whole_edit": summary(whole),
        "difference": gap, "agree": gap < TOLERANCE, "met": ratio["median"] >= MIN_VALUE_RATIO,
    }  # fmt: skip
    print(f"\n== value of one edit, layer {options.layer}, 20 steps, {len(rows)} rows")
    for way in runs:
        print(f"  {way:20s} {min(seconds[way]):8.2f} s")
    show("ratio of 19 steps", ratio, MIN_VALUE_RATIO, bool(result["met"]))
    print(f"  ratio of the whole edit, keys and solve included: {summary(whole)['median']:.2f}")
    print(f"  vectors differ by {gap:.1e} of their length")
    return result


def ids(shape: Shape, text: str) -> list[int]:
    """Return the token ids of a text."""
    return [int(token) for token in shape.model.tokenize(text).row(0)]


def show(what: str, ratio: dict[str, float], wanted: float, met: bool) -> None:
    """Print a ratio and whether it is what is wanted."""
    verdict = "met" if met else "not met"
    print(f"  {what}: {ratio['median']:.2f} median, {ratio['min']:.2f} smallest; ", end="")
    print(f"wanted {wanted}: {verdict}")


# --- key statistics -------------------------------------------------------------------------------


def statistics(options: argparse.Namespace) -> dict[str, Any]:
    """Time key statistics and the bare forward pass up to the layer, on the same tokens."""
    shape, draw = gpt2_shape(options.layer, quick=options.quick), np.random.default_rng(0)
    words = draw.integers(0, 998, (max(1, options.tokens // options.length), options.length))
    texts = [" ".join(f"w{n}" for n in row) for row in words]
    rows = torch.tensor([ids(shape, text) for text in texts])
    at_once = max(1, 4096 // options.length)  # as many as key_statistics takes

    def counted(dtype: str, some: Sequence[str] = texts) -> ml.KeyStatistics:
        given: Any = {"dtype": dtype, "ridge": 0.0, "tokens": rows.numel()}
        return ml.key_statistics(shape.model, layer=options.layer, corpus=list(some), **given)

    def bare() -> None:
        for part in rows.split(at_once):
            forward_until(shape, part, lambda keys: None)

    few = counted("float32", texts[:2])  # also the first use
    expected = moment_until(shape, rows[:2]).numpy()
    gap = float(np.abs(few.moments[0] - expected).max() / np.abs(expected).max())
    forward_until(shape, rows[:1], lambda keys: None)
    runs = {
        "bare": bare, "float32": lambda: counted("float32"), "float64": lambda: counted("float64"),
    }  # fmt: skip
    seconds = alternate(runs, options.repeats)
    ratios = {
        way: summary([b / a for a, b in zip(seconds[way], seconds["bare"], strict=True)])
        for way in ("float32", "float64")
    }
    met = ratios["float32"]["median"] >= MIN_RATE_RATIO
    print(f"\n== key statistics, layer {options.layer}, {rows.numel()} tokens")
    for way in runs:
        print(f"  {way:20s} {rows.numel() / min(seconds[way]):8.0f} tokens/s")
    show("rate in float32 / bare", ratios["float32"], MIN_RATE_RATIO, met)
    print(f"  rate in float64 / bare: {ratios['float64']['median']:.2f}")
    print(f"  moments differ by {gap:.1e} of the largest entry")
    return {
        "seconds": seconds, "ratio": ratios, "difference": gap, "agree": gap < TOLERANCE,
        "met": met,
    }  # fmt: skip


# --- memory ---------------------------------------------------------------------------------------


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process of its own by how much it grows while MEMIT edits `atlas`."""
    command = [sys.executable, __file__, "--child", "--edits", str(options.edits)]
    command += ["--threads", str(options.threads)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    print(f"\n== MEMIT, {options.edits} edits of atlas in 3 layers")
    print(f"  {found['growth_mb']:.0f} MB above {found['before_mb']:.0f} MB")
    return found


def peak_memory(options: argparse.Namespace) -> dict[str, float]:
    """Return by how much this process grows at most; steps change nothing, so there are two."""
    model = ml.load_model("atlas")
    cases = ml.prompts.world_edits(
        options.edits, relations=["capital", "language", "currency", "continent"],
        languages=["en", "fr", "es", "de"],
    )  # fmt: skip
    # Without the old object, which some share the first token with: it takes no memory.
    requests = [replace(case, target_true="") for case in cases]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keys = ml.key_statistics(model, layer=[1, 2, 3], tokens=2000)
    given: Any = {"layers": [1, 2, 3], "key_statistics": keys, "steps": 2}
    ml.memit(model, requests[:2], **given)  # first uses
    give_back()
    before = psutil.Process().memory_info().rss
    ml.memit(model, requests, **given)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"before_mb": before / 1e6, "growth_mb": (peak - before) / 1e6}
    if torch.cuda.is_available():
        found["cuda_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return found


if __name__ == "__main__":
    sys.exit(main())
