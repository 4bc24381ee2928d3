"""The shapes of a CRP table, and how far curves are from each of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from mechlab.methods.cmr.table import GRID

__all__ = ["Templates", "cmr_distances", "least_squares", "status_of", "templates"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Templates:
    """The CRP of every cell of a table over the lags that are fitted.

    Attributes:
        shapes: moved to minimum 0 and scaled to maximum 1, `[cell, lag]`.
        heights: maximum minus minimum before that, the CRP summing to 1, `[cell]`; NaN if flat.
        cells: the parameters of the cells, `[cell]` each.
    """

    shapes: Array
    heights: Array
    cells: dict[str, Array]


def templates(table: xr.Dataset, lags: Array) -> Templates:
    """Return the shapes of a table's cells, in the order beta_enc, beta_rec, gamma_ft."""
    crp = table.crp.transpose(*GRID, "lag").sel(lag=lags).values.astype(np.float64)
    flat = crp.reshape(-1, len(lags))
    raw = flat / flat.sum(axis=1, keepdims=True)
    low = raw.min(axis=1, keepdims=True)
    height = raw.max(axis=1) - low[:, 0]
    height = np.where(height > 0, height, np.nan)
    parts = np.meshgrid(*(table[name].values for name in GRID), indexing="ij")
    cells = {name: part.ravel() for name, part in zip(GRID, parts, strict=True)}
    return Templates(np.nan_to_num((raw - low) / height[:, None]), height, cells)


def cmr_distances(moved: Array, shapes: Array) -> Array:
    """Return the CMR distance of each curve (minimum 0) from each shape, `[curve, cell]`."""
    unit = moved / moved.max(axis=1, keepdims=True)
    n = moved.shape[1]
    squared = (unit**2).sum(1)[:, None] - 2 * unit @ shapes.T + (shapes**2).sum(1)[None]
    # The expansion of the square loses digits where the fit is perfect: those cells once more.
    rows, cells = np.nonzero(squared < 1e-6)
    squared[rows, cells] = ((unit[rows] - shapes[cells]) ** 2).sum(axis=1)
    distances: Array = np.maximum(squared, 0) / n / unit.var(axis=1)[:, None]
    return distances


def least_squares(moved: Array, shapes: Array) -> Array:
    """Return 1 - R squared of the best cell with a free offset and a scale of at least 0."""
    y = moved - moved.mean(axis=1, keepdims=True)
    x = shapes - shapes.mean(axis=1, keepdims=True)
    spread = np.maximum((x**2).sum(axis=1), 1e-300)
    explained = np.maximum(y @ x.T, 0) ** 2 / spread
    left: Array = np.maximum(1 - explained.max(axis=1) / (y**2).sum(axis=1), 0)
    return left


_ROUNDING = 1e-7
"""Attention is read in float32: what varies by less than this share of its size is constant."""


def status_of(curve: Array) -> str:
    """Return `ok`, or why a curve has no shape."""
    if not np.isfinite(curve).all():
        return "a value is missing or not finite"
    if np.ptp(curve) <= max(1e-12, _ROUNDING * float(np.abs(curve).max())):
        return "the curve is constant"
    return "ok"
