"""Memory heads as rows: what a table, a JSON object and a picture of heads say alike."""

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from rich.table import Table

__all__ = ["THRESHOLDS", "by_head", "cmr_rows", "cmr_summary", "score_rows", "table", "told"]

THRESHOLDS = (0.5, 0.1)
"""CMR distances below which heads are called CMR-like: as published, and a stricter one."""
_SCORES = ("prefix_matching", "previous_token", "duplicate_token", "copying")
_FIT = ("distance", "peak_lag", "beta_enc", "beta_rec", "gamma_ft", "scale", "near_optimal",
        "ls_distance", "gaussian_distance", "p_matched", "p_walk", "human_distance")  # fmt: skip
_WIDTH = {"copying": 6, "prefix_matching": 5, "random": 16, "interval": 16}
"""Columns that are not cut where the terminal is narrow."""
_WEAK = 0.05
"""Heads with less prefix matching than this do no induction."""


def by_head(result: "xr.Dataset") -> "xr.Dataset":
    """Return what is known of every head along one axis `_head`, means over prompts."""
    names = [n for n in (*_SCORES, *_FIT, "curve", "prediction") if n in result]
    held = result[[n for n in names if {"layer", "head"} <= set(map(str, result[n].dims))]]
    mean = held.mean("prompt") if "prompt" in held.dims else held
    return mean.stack(_head=["layer", "head"], create_index=False)


def score_rows(result: "xr.Dataset", top: int) -> list[dict[str, Any]]:
    """Return the heads with the highest prefix matching, highest first."""
    flat = by_head(result)
    order = np.argsort(-np.nan_to_num(flat.prefix_matching.values, nan=-np.inf), kind="stable")
    names = ("prefix_matching", "previous_token", "duplicate_token", "copying", "peak_lag",
             "distance")  # fmt: skip
    return [_row(flat, i, names) for i in order[:top]]


def cmr_rows(result: "xr.Dataset", top: int) -> list[dict[str, Any]]:
    """Return the heads with the smallest CMR distance, with what is needed to judge it."""
    flat = by_head(result)
    distance = flat.distance.values
    order = [i for i in np.argsort(distance, kind="stable") if np.isfinite(distance[i])]
    names = ("distance", "peak_lag", "prefix_matching", "copying", *_FIT[2:])
    return [_row(flat, i, names) for i in order[:top]]


def cmr_summary(result: "xr.Dataset") -> dict[str, Any]:
    """Return how many heads are CMR-like, and what they are."""
    from mechlab.statistics import false_discovery

    flat = by_head(result)
    fitted = np.isfinite(flat.distance.values)
    found: dict[str, Any] = {"heads": len(fitted), "fitted": int(fitted.sum())}
    for threshold in THRESHOLDS:
        like = flat.distance.values < threshold
        peak = flat.peak_lag.values[like]
        about = {
            "heads": int(like.sum()),
            "per_cent": _share(like[fitted]),
            "peak_at_1": _share(peak == 1),
            "peak_at_0": _share(peak == 0),
        }
        if "prefix_matching" in flat:
            about["matching_below_0.05"] = _share(flat.prefix_matching.values[like] < _WEAK)
        found[f"below_{threshold:g}"] = about
    for name in ("p_matched", "p_walk"):
        found[f"{name}_below_0.05"] = int((flat[name].values < 0.05).sum())
        controlled = false_discovery(flat[name])
        found[f"{name}_controlled"] = int((controlled.values < 0.05).sum())
    return found


def _share(mask: Any) -> float | None:
    return told(100 * float(np.mean(mask))) if len(mask) else None


def _row(flat: "xr.Dataset", index: int, names: tuple[str, ...]) -> dict[str, Any]:
    one = flat.isel(_head=index)
    head = f"L{int(one['layer'])}H{int(one['head'])}"
    return {"head": head, **{n: told(float(one[n])) for n in names if n in one}}


def told(value: float) -> float | None:
    """Return a number of six digits, `None` for one that is not there."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def table(rows: list[dict[str, Any]], titles: dict[str, str]) -> "Table":
    """Return rows as a table of the columns that have a title."""
    from rich import box
    from rich.table import Table

    names = [name for name in titles if rows and name in rows[0]]
    found = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in names:
        justify: Literal["left", "right"] = "left" if name == names[0] else "right"
        found.add_column(titles[name], justify=justify, min_width=_WIDTH.get(name))
    for row in rows:
        found.add_row(*map(_cell, (row[name] for name in names)))
    return found


def _cell(value: object) -> str:
    if isinstance(value, float):
        small = abs(value) < 10 and not value.is_integer()
        return f"{value:.3f}" if small else f"{value:.4g}"
    return "" if value is None else str(value)
