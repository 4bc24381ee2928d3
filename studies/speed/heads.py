"""How fast are head analyses? Path patching and head patching against TransformerLens' loops.

python studies/speed/heads.py [--part edges logits z] [--threads 2] [--repeats 1] [--tokens 12]

Exit code: 0 when all ways of computing agree to 1e-5, whatever the times; 1 when not; 2 when the
study could not be run.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from heads_baselines import HeadCase, direct_paths, head_case, one_run_per_head, z_cells
from speed_measure import alternate, machine, summary

import mechlab as ml

AGREEMENT = 1e-5
"""Largest difference of a logit difference that still counts as the same."""


@dataclass(frozen=True)
class Part:
    """One comparison.

    Attributes:
        title: what is computed.
        baseline: what it is compared with.
        wanted: so many times faster.
        ours: all of it by mechlab, `[...]` of the metric after patching.
        theirs: some of it by the baseline, one number per run that it makes.
        runs: runs that the baseline needs for all of it.
        pick: takes from `ours` what `theirs` holds.
    """

    title: str
    baseline: str
    wanted: float
    ours: Callable[[], np.ndarray]
    theirs: Callable[[], np.ndarray]
    runs: int
    pick: Callable[[np.ndarray], np.ndarray]


def edges_part(case: HeadCase, options: argparse.Namespace) -> Part:
    """Heads to the queries of all later heads, direct edges.

    Both sides take a part of the senders, as all of them need longer than a machine is quiet.
    mechlab takes the same heads of every layer, so that it has the receivers that a sweep over all
    heads has, and pays its fixed cost for fewer. The baseline makes one whole run per edge,
    whatever its sender; the one taken, of a middle layer, has about as many receivers as senders
    have on average, so that what the baseline does once per sender counts as in the whole loop.
    """
    n_layers, n_heads = case.model.n_layers, case.model.n_heads or 0
    sample = [(n_layers // 2 - 1, 1)]
    chosen = range(1 % options.senders, n_heads, options.senders)
    senders = [str(ml.Head(layer, head)) for layer in range(n_layers) for head in chosen]

    def ours() -> np.ndarray:
        return patched(
            ml.path_patch(
                case.model,
                case.pair,
                senders=senders,
                receivers="all_heads_q",
                freeze="heads+mlps",
                direction="denoising",
            ),
            (n_layers, len(chosen), n_layers, n_heads),
        )

    def pick(values: np.ndarray) -> np.ndarray:
        return np.stack([values[layer, chosen.index(head)] for layer, head in sample])

    return Part(
        f"heads -> queries of all later heads (direct edges), {len(chosen)} of {n_heads} heads per "
        "layer",
        "get_act_patch_direct_path_all_sources",
        11.0,
        ours,
        lambda: direct_paths(case, sample),
        len(chosen) * n_heads * n_layers * (n_layers - 1) // 2,
        pick,
    )


def logits_part(case: HeadCase, options: argparse.Namespace) -> Part:
    """All heads to the logits, direct edges."""
    shape = (case.model.n_layers, case.model.n_heads or 0)
    some = case.heads[options.fraction // 2 :: options.fraction]

    def ours() -> np.ndarray:
        result = ml.path_patch(
            case.model, case.pair, freeze="heads+mlps", direction="denoising", receivers="logits"
        )
        return patched(result, shape)

    return Part(
        "all heads -> logits (direct edges)",
        "one patched run per head",
        40.0,
        ours,
        lambda: one_run_per_head(case, some),
        len(case.heads),
        lambda values: np.array([values[head] for head in some]),
    )


def z_part(case: HeadCase, options: argparse.Namespace) -> Part:
    """Head outputs of all layers, heads and positions, one by one."""
    shape = (case.model.n_layers, case.model.n_heads or 0, case.tokens[0].shape[1])
    every = options.cells
    cells = np.argwhere(np.ones((shape[0], shape[2], shape[1]), dtype=bool))[every // 2 :: every]

    def ours() -> np.ndarray:
        result = ml.activation_patch(
            case.model, case.pair, site="z", by="head", positions="each", direction="denoising"
        )
        values: np.ndarray = (result.effect + result.corrupted_metric).values
        return values.reshape(shape)

    return Part(
        "z of all layers x heads x positions",
        "get_act_patch_attn_head_out_by_pos",
        8.0,
        ours,
        lambda: z_cells(case, every)[1],
        int(np.prod(shape)),
        lambda values: values[cells[:, 0], cells[:, 2], cells[:, 1]],
    )


def patched(result: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return the patched metric of a path patch in the shape of its heads."""
    values: np.ndarray = result.patched.values.reshape(shape)
    return values


PARTS = {"edges": edges_part, "logits": logits_part, "z": z_part}


def measure(part: Part, repeats: int) -> dict[str, Any]:
    """Time a part; both sides have been run before it is timed."""
    ours: list[np.ndarray] = []
    theirs: list[np.ndarray] = []
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        seconds = alternate(
            {
                "mechlab": lambda: ours.append(part.ours()),
                "baseline": lambda: theirs.append(part.theirs()),
            },
            repeats,
        )
    picked, found = part.pick(ours[0]), theirs[0]
    there = ~np.isnan(found)
    same_cells = bool((np.isnan(picked) == ~there).all())
    scale = part.runs / int(there.sum())
    ratios = [scale * b / a for a, b in zip(seconds["mechlab"], seconds["baseline"], strict=True)]
    difference = float(np.abs(picked - found)[there].max())
    return {
        "title": part.title,
        "baseline": part.baseline,
        "runs": part.runs,
        "runs_timed": int(there.sum()),
        "seconds": {
            "mechlab": seconds["mechlab"],
            "baseline_timed": seconds["baseline"],
            "baseline_scaled": [scale * second for second in seconds["baseline"]],
        },
        "ratio": summary(ratios),
        "difference": difference,
        "largest_effect": float(np.nanmax(ours[0]) - np.nanmin(ours[0])),
        "agree": same_cells and difference <= AGREEMENT,
        "wanted": part.wanted,
        "met": statistics.median(ratios) >= part.wanted,
    }


def warm(case: HeadCase) -> None:
    """Run every way once on little: sites are proved, memory is had, caches are made."""
    ml.verify(case.model)
    last = case.model.n_layers - 1
    site = ml.Site("q", last, 0)
    ml.path_patch(case.model, case.pair, senders=["L0H0"], receivers=[site], freeze="heads+mlps")
    ml.path_patch(case.model, case.pair, freeze="heads+mlps")
    ml.activation_patch(case.model, case.pair, layers=[last], positions="each")
    with contextlib.redirect_stderr(io.StringIO()):
        one_run_per_head(case, case.heads[:2])
        direct_paths(case, [(last - 1, 0)])
        z_cells(case, len(case.heads) * case.tokens[0].shape[1])


def show(result: dict[str, Any], case: HeadCase) -> None:
    """Print one part."""
    ours = statistics.median(result["seconds"]["mechlab"])
    theirs = statistics.median(result["seconds"]["baseline_scaled"])
    ratio, met = result["ratio"], "met" if result["met"] else "not met"
    n_tokens = case.tokens[0].shape[1]
    print(f"\n== {result['title']}, {n_tokens} tokens, {case.model.n_layers} layers, float32")
    print(f"  {result['baseline']:40s}{theirs:10.2f} s", end="")
    if result["runs_timed"] < result["runs"]:
        print(f"  ({result['runs_timed']} of {result['runs']} runs timed, and scaled)", end="")
    print(f"\n  {'mechlab':40s}{ours:10.2f} s")
    print(f"  {'ratio':40s}{ratio['median']:10.1f} median, {ratio['min']:.1f} smallest of ", end="")
    print(f"{len(result['seconds']['mechlab'])}; wanted {result['wanted']:g}: {met}")
    print(f"  {'largest difference':40s}{result['difference']:10.1e}  ", end="")
    print(f"(patched values range over {result['largest_effect']:.1e})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {"options": {name: str(v) for name, v in vars(options).items()}}
    try:
        case = head_case(options.tokens, quick=options.quick)
        warm(case)
        results = []
        for name in options.part:
            results.append({"part": name, **measure(PARTS[name](case, options), options.repeats)})
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
    add("--repeats", type=int, default=1, help="alternating repetitions of the timed runs")
    add("--tokens", type=int, default=12, help="length of both prompts; they differ in two tokens")
    add("--senders", type=int, default=6, help="edges: every n-th head of a layer sends")
    add("--fraction", type=int, default=4, help="logits: every n-th head of the baseline is run")
    add("--cells", type=int, default=32, help="z: every n-th cell of the baseline is run")
    add("--quick", action="store_true", help="a tiny model instead of GPT-2's shape, for tests")
    add("--json", type=Path, help="write everything that was measured")
    return made


if __name__ == "__main__":
    sys.exit(main())
