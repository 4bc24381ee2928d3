"""How fast is the fit of heads' lag curves with CMR? Against a plain loop over heads and cells.

python studies/speed/cmr.py [--heads 144] [--repeats 3]

Exit code: 0 when both ways find the same distances and cells, whatever the times; 1 when not; 2
when the study could not be run.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from speed_measure import alternate, machine, summary

import mechlab as ml

LAGS = np.arange(-5, 6)
MOST_SECONDS = 0.5
"""Wanted: the fit of 144 heads takes less."""
MIN_RATIO = 50.0
"""Wanted: so many times faster than the loop."""
AGREEMENT = 1e-9
"""Largest difference of a distance, relative to it, that still counts as the same."""
GRID = ("beta_enc", "beta_rec", "gamma_ft")


def head_curves(heads: int, seed: int) -> xr.DataArray:
    """Return smooth curves with a peak near lag +1 or 0, `[head, lag]`; their shapes all differ."""
    random = np.random.default_rng(seed)
    peak, width = random.choice([0.0, 1.0, 1.0], heads), random.uniform(0.4, 2, heads)
    bump = 9 * np.exp(-((LAGS - peak[:, None]) ** 2) / (2 * width[:, None] ** 2))
    drift = random.normal(size=(heads, len(LAGS))).cumsum(axis=1)
    return xr.DataArray(bump + drift, {"lag": LAGS}, ("head", "lag"), attrs={"source": "made"})


def plain_fit(curves: np.ndarray, table: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Fit curve by curve and cell by cell, in the words of the published method.

    Returns:
        Distances `[head]`, and the parameters of the best cells `[head, parameter]`.
    """
    crp = table.crp.transpose(*GRID, "lag").sel(lag=LAGS).values.astype(np.float64)
    axes = [table[name].values for name in GRID]
    distances, cells = np.full(len(curves), np.inf), np.zeros((len(curves), 3))
    for head, curve in enumerate(curves):
        moved = curve - curve.min()
        variance = moved.var()
        for index in np.ndindex(crp.shape[:-1]):
            shape = crp[index] / crp[index].sum()
            shape = shape - shape.min()
            scaled = shape * (moved.max() / shape.max())
            distance = ((scaled - moved) ** 2).mean() / variance
            if distance < distances[head]:
                distances[head] = distance
                cells[head] = [axis[i] for axis, i in zip(axes, index, strict=True)]
    return distances, cells


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Time both ways; the table is read before."""
    curves, table = head_curves(options.heads, seed=0), ml.shipped_table()
    some = slice(options.fraction // 2, None, options.fraction)
    ours: list[xr.Dataset] = []
    theirs: list[tuple[np.ndarray, np.ndarray]] = []
    ml.fit_cmr(curves[:2])
    seconds = alternate(
        {
            "mechlab": lambda: ours.append(ml.fit_cmr(curves)),
            "loop": lambda: theirs.append(plain_fit(curves.values[some], table)),
        },
        options.repeats,
    )
    fit, (distances, cells) = ours[0].isel(head=some), theirs[0]
    scale = options.heads / len(distances)
    loop = [scale * second for second in seconds["loop"]]
    ratios = [theirs_ / ours_ for theirs_, ours_ in zip(loop, seconds["mechlab"], strict=True)]
    found = np.stack([fit[name].values for name in GRID], axis=1)
    difference = float(np.abs(fit.distance.values / distances - 1).max())
    took = statistics.median(seconds["mechlab"])
    return {
        "heads": options.heads,
        "heads_of_loop": len(distances),
        "cells": int(table.exact.size),
        "seconds": {"mechlab": seconds["mechlab"], "loop": loop},
        "ratio": summary(ratios),
        "difference": difference,
        "other_cells": int((found != cells).any(axis=1).sum()),
        "distances": [float(distances.min()), float(distances.max())],
        "agree": difference <= AGREEMENT and bool((found == cells).all()),
        "met": took < MOST_SECONDS and statistics.median(ratios) >= MIN_RATIO,
    }


def show(result: dict[str, Any]) -> None:
    """Print what was measured."""
    ours, loop = (statistics.median(result["seconds"][name]) for name in ("mechlab", "loop"))
    timed = f"{result['heads_of_loop']} of {result['heads']} heads timed"
    print(f"== CMR fit of {result['heads']} heads over {result['cells']} cells and 11 lags")
    print(f"  {'loop over heads and cells':32s}{loop:9.3f} s  ({timed}, and scaled)")
    print(f"  {'mechlab, fit_cmr':32s}{ours:9.3f} s  wanted: below {MOST_SECONDS:g}")
    print(f"  {'ratio':32s}{result['ratio']['median']:9.1f} median, ", end="")
    print(f"{result['ratio']['min']:.1f} smallest; wanted {MIN_RATIO:g}: ", end="")
    print("met" if result["met"] else "not met")
    print(
        f"  {'largest difference, relative':32s}{result['difference']:9.1e}  distances range ",
        end="",
    )
    low, high = result["distances"]
    print(f"from {low:.3f} to {high:.3f}; other best cells: {result['other_cells']}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        result = measured(options)
    except ml.MechlabError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    show(result)
    told = {name: str(value) for name, value in vars(options).items()}
    report = {"options": told, "machine": machine(), "fit": result}
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    print(f"machine: {report['machine']}")
    return 0 if result["agree"] else 1


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = made.add_argument
    add("--heads", type=int, default=144, help="as many as GPT-2 small has")
    add("--threads", type=int, default=2, help="of torch; numpy has its own, OMP_NUM_THREADS")
    add("--repeats", type=int, default=3, help="alternating repetitions")
    add("--fraction", type=int, default=1, help="the loop takes one head in n, and is scaled")
    add("--json", type=Path, help="write everything that was measured")
    return made


if __name__ == "__main__":
    sys.exit(main())
