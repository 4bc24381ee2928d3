"""What was found, as a table, with what was published beside it."""

from collections.abc import Iterator, Mapping

import xarray as xr
from fact_editing_claims import Measured

import mechlab as ml

COLUMNS = (
    ("S", "score", 100), ("ES", "efficacy", 100), ("EM", "efficacy_magnitude", 100),
    ("PS", "paraphrase", 100), ("PM", "paraphrase_magnitude", 100),
    ("NS", "neighbourhood", 100), ("NM", "neighbourhood_magnitude", 100),
    ("GE", "generation_entropy", 100), ("other relations", "other_relations", 100),
    ("drift, nats", "drift", 1),
)  # fmt: skip
"""Heading, metric of `ml.edit_summary`, and what it is multiplied with."""

PUBLISHED: Mapping[str, Mapping[str, str]] = {
    "gpt2-medium": {
        "none": "33.4 25.0 -3.3 27.4 -3.0 74.9 3.6 625.8",
        "ROME": "87.4 100.0 94.9 96.4 56.9 71.8 2.8 625.0",
    },
    "gpt2-large": {
        "none": "32.8 23.9 -4.0 27.4 -3.5 75.7 4.3 625.4",
        "ROME": "88.2 99.9 98.2 96.3 60.4 73.4 3.5 622.5",
    },
    "gpt2-xl": {
        "none": "30.5 22.2 -4.8 24.7 -5.0 78.1 5.0 626.6",
        "FT": "65.1 100.0 98.8 87.9 46.6 40.4 -6.2 607.1",
        "FT+L": "66.9 99.1 91.5 48.7 28.9 70.3 3.5 621.4",
        "ROME": "89.2 100.0 97.9 96.4 62.7 75.4 4.2 621.9",
    },
}
"""Meng et al. 2022, CounterFact, single edits: S ES EM PS PM NS NM GE."""


def number_table(model: Measured, control: Measured, name: str) -> list[tuple[str, ...]]:
    """Return one row per way of editing, with published rows where the model has any."""
    rows = [("edited by", *(heading for heading, _, _ in COLUMNS))]
    rows += _rows(name, model)
    rows += _rows("untrained", control)
    for way, numbers in PUBLISHED.get(name, {}).items():
        held = numbers.split()
        rows.append((f"published: {way}", *held, *[""] * (len(COLUMNS) - len(held))))
    return rows


def _rows(name: str, measured: Measured) -> Iterator[tuple[str, ...]]:
    yield (f"{name}: none", *_numbers(ml.edit_summary(measured.before)))
    for way, result in measured.ways.items():
        summary = ml.edit_summary(result, before=measured.before)
        yield (f"{name}: {way}", *_numbers(summary))


def _numbers(summary: xr.Dataset) -> Iterator[str]:
    there = set(summary["metric"].values.tolist())
    for _, metric, factor in COLUMNS:
        if metric not in there or not int(one := summary.sel(metric=metric)["n"]):
            yield ""
            continue
        one = summary.sel(metric=metric)
        mean, low, high = (factor * float(one[key]) for key in ("mean", "low", "high"))
        digits = 1 if factor > 1 else 3
        yield f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
