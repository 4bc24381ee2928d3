"""Fit lag curves with the simplified context model: CMR distance, least squares, near cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.methods.cmr.distances import (
    Templates,
    cmr_distances,
    least_squares,
    status_of,
    templates,
)
from mechlab.methods.cmr.table import shipped_table

__all__ = ["fit_cmr"]

Array = np.ndarray[Any, Any]

FITTED_LAGS = tuple(range(-5, 6))
NEAR = 1.05
"""Cells within this factor of the best distance are near-optimal."""
CURVES_AT_ONCE = 256
DRIFT = "1 - beta"
"""The form of drift that the fitted betas belong to; see `convert_beta`."""


@dataclass(frozen=True)
class _Curves:
    """Curves `[curve, lag]` with the axes they come from, and whether each has a shape."""

    array: xr.DataArray
    values: Array
    status: Array

    @property
    def low(self) -> Array:
        lowest: Array = self.values.min(axis=1)
        return lowest

    @property
    def top(self) -> Array:
        height: Array = self.values.max(axis=1) - self.low
        return height

    def shaped(self, values: Array) -> Array:
        """Return values `[curve, ...]` along the axes that the curves come from."""
        return values.reshape(self.array.shape[:-1] + values.shape[1:])


@dataclass(frozen=True)
class _Found:
    """What the search found, `[curve]`; cells are -1 and numbers NaN for a curve without shape."""

    best: Array
    distance: Array
    ls_distance: Array
    near_optimal: Array
    listed: Array
    """Near-optimal cells, best first, `[curve, candidate]`."""


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
    array = curves.sel(lag=wanted).transpose(..., "lag")
    values = array.values.reshape(-1, len(wanted)).astype(np.float64)
    held = _Curves(array, values, np.array([status_of(curve) for curve in values]))
    cells = templates(table, wanted)
    made = _result(held, _searched(held, cells, candidates), cells)
    return made.assign_attrs(
        table=str(table.attrs.get("digest", "")), source=str(array.attrs.get("source", ""))
    )


def _searched(held: _Curves, cells: Templates, candidates: int) -> _Found:
    """Compare every curve that has a shape with every cell."""
    count = len(held.values)
    found = _Found(
        best=np.full(count, -1),
        distance=np.full(count, np.nan),
        ls_distance=np.full(count, np.nan),
        near_optimal=np.full(count, np.nan),
        listed=np.full((count, candidates), -1),
    )
    good = np.flatnonzero(held.status == "ok")
    for start in range(0, len(good), CURVES_AT_ONCE):
        part = good[start : start + CURVES_AT_ONCE]
        moved = held.values[part] - held.low[part, None]
        distance = cmr_distances(moved, cells.shapes)
        found.best[part] = distance.argmin(axis=1)
        found.distance[part] = distance.min(axis=1)
        found.ls_distance[part] = least_squares(moved, cells.shapes)
        near = distance <= NEAR * distance.min(axis=1, keepdims=True)
        found.near_optimal[part] = near.sum(axis=1)
        for row, where in enumerate(part):
            some = np.flatnonzero(near[row])
            some = some[np.argsort(distance[row, some], kind="stable")][:candidates]
            found.listed[where, : len(some)] = some
    return found


def _result(held: _Curves, found: _Found, cells: Templates) -> xr.Dataset:
    axes, lags = held.array.dims[:-1], held.array.lag.values
    units = str(held.array.attrs.get("units", ""))
    safe = np.nan_to_num(held.values, nan=-np.inf)
    numbers = {
        "distance": (found.distance, ""),
        "scale": (held.top / _picked(cells.heights, found.best), ""),
        "ls_distance": (found.ls_distance, ""),
        "peak_lag": (np.where(held.status == "ok", lags[safe.argmax(axis=1)], np.nan), "tokens"),
        "asymmetry": (_asymmetry(held.values, lags, held.status), units),
        "near_optimal": (found.near_optimal, "cells"),
    }
    data: dict[str, Any] = {
        name: (axes, held.shaped(values), {"units": unit})
        for name, (values, unit) in numbers.items()
    }
    with np.errstate(invalid="ignore"):  # an infinite curve has no fit
        fitted = cells.shapes[found.best] * held.top[:, None] + held.low[:, None]
    fitted = np.where(found.best[:, None] >= 0, fitted, np.nan)
    data["prediction"] = ((*axes, "lag"), held.shaped(fitted), {"units": units})
    for name, cell in cells.cells.items():
        about = {"units": "", "drift": DRIFT} if name.startswith("beta") else {"units": ""}
        data[name] = (axes, held.shaped(_picked(cell, found.best)), about)
        near = held.shaped(_picked(cell, found.listed))
        data[f"near_{name}"] = ((*axes, "candidate"), near, about)
    coords = {name: coord for name, coord in held.array.coords.items() if name not in data}
    coords["status"] = (axes, held.shaped(held.status))
    coords["candidate"] = np.arange(found.listed.shape[1])
    return xr.Dataset(data, coords)


def _picked(cell: Array, index: Array) -> Array:
    return np.where(index >= 0, cell[index], np.nan)


def _asymmetry(values: Array, lags: Array, status: Array) -> Array:
    ahead, behind = (np.flatnonzero(lags == lag) for lag in (1, -1))
    if not (len(ahead) and len(behind)):
        return np.full(len(values), np.nan)
    return np.where(status == "ok", values[:, ahead[0]] - values[:, behind[0]], np.nan)


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
