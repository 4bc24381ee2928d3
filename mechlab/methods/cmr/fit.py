"""Fit lag curves with the simplified context model: CMR distance, least squares, near cells."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.methods.cmr.table import GRID, shipped_table

__all__ = ["fit_cmr"]

Array = np.ndarray[Any, Any]

FITTED_LAGS = tuple(range(-5, 6))
NEAR = 1.05
"""Cells within this factor of the best distance are near-optimal."""
CURVES_AT_ONCE = 256


def fit_cmr(
    curves: xr.DataArray,
    *,
    table: xr.Dataset | None = None,
    lags: Sequence[int] = FITTED_LAGS,
    candidates: int = 50,
) -> xr.Dataset:
    """Fit each lag curve with every cell of a CRP table and keep the best.

    Ji-An et al. 2024 (arXiv 2405.14992): curve and CRP are moved to minimum 0, the CRP is scaled to
    the curve's maximum, and the **CMR distance** is their mean squared difference over the lags,
    divided by the curve's population variance. It measures shape alone: a head that attends to the
    same token again (peak at lag 0) fits perfectly, and smooth noise fits well. So each fit comes
    with `peak_lag` and `asymmetry`, and belongs beside a head's matching score and `cmr_null`.

    Args:
        curves: any axes and `lag`; pre-softmax scores in the published analysis.
        table: of `crp_table`; by default the one that comes with mechlab.
        lags: the lags that are fitted.
        candidates: how many near-optimal cells are listed per curve, best first.

    Returns:
        For the axes of `curves` without `lag`: `distance`, `beta_enc`, `beta_rec`, `gamma_ft`,
        `scale` (curve units per probability: the published inverse temperature, comparable at
        similar parameters only), `peak_lag`, `asymmetry` (curve at lag +1 minus lag -1),
        `ls_distance` (least squares with free offset and non-negative scale, 1 - R squared, its own
        best cell), `near_optimal` (number of cells within 5 per cent of the best distance), and
        `status`: `ok`, or why there is no fit (every number is NaN then). `prediction[..., lag]` is
        the fitted curve in the units of `curves`; `near_*[..., candidate]` are the near-optimal
        cells. Ties go to the first cell in the order beta_enc, beta_rec, gamma_ft.

    Raises:
        OptionError: curves without `lag`, lags that curves or table lack, fewer than 3 lags, or
            `candidates` below 1.
    """
    table = shipped_table() if table is None else table
    wanted = _checked_lags(curves, table, lags, candidates)
    flat = curves.sel(lag=wanted).transpose(..., "lag")
    values = flat.values.reshape(-1, len(wanted)).astype(np.float64)
    status = np.array([status_of(curve) for curve in values])
    good = np.flatnonzero(status == "ok")
    templates, cells = _templates(table, wanted)
    found = {name: np.full(len(values), np.nan) for name in ("distance", "scale", "ls_distance")}
    near_count = np.full(len(values), np.nan)
    best = np.full(len(values), -1)
    listed = np.full((len(values), candidates), -1)
    for part in np.array_split(good, max(1, -(-len(good) // CURVES_AT_ONCE))):
        if not len(part):
            continue
        moved = values[part] - values[part].min(axis=1, keepdims=True)
        distance = _distances(moved, templates)
        best[part] = distance.argmin(axis=1)
        found["distance"][part] = distance.min(axis=1)
        found["ls_distance"][part] = _least_squares(moved, templates)
        near = distance <= NEAR * distance.min(axis=1, keepdims=True)
        near_count[part] = near.sum(axis=1)
        order = np.argsort(np.where(near, distance, np.inf), axis=1, kind="stable")
        for row, where in enumerate(part):
            some = order[row, : min(candidates, int(near[row].sum()))]
            listed[where, : len(some)] = some
    top = values.max(axis=1) - values.min(axis=1)
    raw_top = _raw_heights(table, wanted)
    found["scale"][good] = top[good] / raw_top[best[good]]
    prediction = np.full(values.shape, np.nan)
    prediction[good] = templates[best[good]] * top[good, None] + values[good].min(axis=1)[:, None]
    return _result(flat, values, status, found, near_count, best, listed, cells, prediction, table)


def _result(
    flat: xr.DataArray,
    values: Array,
    status: Array,
    found: dict[str, Array],
    near_count: Array,
    best: Array,
    listed: Array,
    cells: dict[str, Array],
    prediction: Array,
    table: xr.Dataset,
) -> xr.Dataset:
    axes, sizes = flat.dims[:-1], flat.shape[:-1]
    lags = flat.lag.values
    units = str(flat.attrs.get("units", ""))
    peak = np.where(status == "ok", lags[np.nan_to_num(values, nan=-np.inf).argmax(axis=1)], np.nan)
    numbers: dict[str, tuple[Array, str]] = {
        **{name: (array, "") for name, array in found.items()},
        "peak_lag": (peak, "tokens"),
        "asymmetry": (_asymmetry(values, lags, status), units),
        "near_optimal": (near_count, "cells"),
        **{name: (_picked(cell, best), "") for name, cell in cells.items()},
    }
    data: dict[str, Any] = {
        name: (axes, array.reshape(sizes), {"units": unit})
        for name, (array, unit) in numbers.items()
    }
    data["prediction"] = ((*axes, "lag"), prediction.reshape(flat.shape), {"units": units})
    for name, cell in cells.items():
        near = _picked(cell, listed).reshape(*sizes, listed.shape[1])
        data[f"near_{name}"] = ((*axes, "candidate"), near, {"units": ""})
    coords = {name: coord for name, coord in flat.coords.items() if name not in data}
    coords["status"] = (axes, status.reshape(sizes))
    made = xr.Dataset(data, coords)
    made.attrs = {
        "table": str(table.attrs.get("digest", "")),
        "source": str(flat.attrs.get("source", "")),
    }
    return made.assign_coords(candidate=np.arange(listed.shape[1]))


def _picked(cell: Array, index: Array) -> Array:
    return np.where(index >= 0, cell[index], np.nan)


def _asymmetry(values: Array, lags: Array, status: Array) -> Array:
    ahead, behind = (np.flatnonzero(lags == lag) for lag in (1, -1))
    if not (len(ahead) and len(behind)):
        return np.full(len(values), np.nan)
    return np.where(status == "ok", values[:, ahead[0]] - values[:, behind[0]], np.nan)


def _templates(table: xr.Dataset, lags: Array) -> tuple[Array, dict[str, Array]]:
    """Return every cell's CRP between 0 and 1 `[cell, lag]`, and its parameters `[cell]`."""
    raw = _raw(table, lags)
    low, high = raw.min(axis=1, keepdims=True), raw.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        templates = (raw - low) / (high - low)
    parts = np.meshgrid(*(table[name].values for name in GRID), indexing="ij")
    cells = {name: part.ravel() for name, part in zip(GRID, parts, strict=True)}
    return np.where(high > low, templates, 0.0), cells


def _raw(table: xr.Dataset, lags: Array) -> Array:
    crp = table.crp.transpose(*GRID, "lag").sel(lag=lags).values.astype(np.float64)
    flat = crp.reshape(-1, len(lags))
    normal: Array = flat / flat.sum(axis=1, keepdims=True)
    return normal


def _raw_heights(table: xr.Dataset, lags: Array) -> Array:
    raw = _raw(table, lags)
    height: Array = raw.max(axis=1) - raw.min(axis=1)
    height[height <= 0] = np.nan
    return height


def _distances(moved: Array, templates: Array) -> Array:
    """Return the CMR distance of each curve (minimum 0) from each cell, `[curve, cell]`."""
    unit = moved / moved.max(axis=1, keepdims=True)
    n = moved.shape[1]
    squared = (unit**2).sum(1)[:, None] - 2 * unit @ templates.T + (templates**2).sum(1)[None]
    # The expansion of the square loses digits where the fit is perfect: those cells once more.
    close = squared < 1e-6
    rows, cells = np.nonzero(close)
    squared[rows, cells] = ((unit[rows] - templates[cells]) ** 2).sum(axis=1)
    distances: Array = np.maximum(squared, 0) / n / unit.var(axis=1)[:, None]
    return distances


def _least_squares(moved: Array, templates: Array) -> Array:
    """Return 1 - R squared of the best cell with a free offset and a scale of at least 0."""
    y = moved - moved.mean(axis=1, keepdims=True)
    x = templates - templates.mean(axis=1, keepdims=True)
    spread = np.maximum((x**2).sum(axis=1), 1e-300)
    explained = np.maximum(y @ x.T, 0) ** 2 / spread
    left: Array = np.maximum(1 - explained.max(axis=1) / (y**2).sum(axis=1), 0)
    return left


def status_of(curve: Array) -> str:
    if not np.isfinite(curve).all():
        return "a value is missing or not finite"
    if np.ptp(curve) <= 1e-12 * max(1.0, float(np.abs(curve).max())):
        return "the curve is constant"
    return "ok"


def _checked_lags(
    curves: xr.DataArray, table: xr.Dataset, lags: Sequence[int], candidates: int
) -> Array:
    problems = []
    wanted = np.asarray(list(lags))
    if not isinstance(curves, xr.DataArray) or "lag" not in getattr(curves, "coords", {}):
        problems.append("curves must be a DataArray with the coordinate `lag`")
    else:
        for name, held in (("curves", curves), ("table", table)):
            if missing := [int(lag) for lag in wanted if lag not in held.lag.values]:
                problems.append(f"{name} lack the lags {missing}")
    if len(wanted) < 3 or len(set(wanted.tolist())) < len(wanted):
        problems.append(f"lags={list(lags)} (at least 3 different ones)")
    if type(candidates) is not int or candidates < 1:
        problems.append(f"candidates={candidates!r} (from 1)")
    if problems:
        raise OptionError(
            f"fit_cmr: {'; '.join(problems)}.\n  Allowed: curves over the lags that are fitted, "
            "-5 to 5 by default.\n  Measure the curves with max_lag of at least 5, or name fewer "
            "lags."
        )
    return wanted
