"""Intervals for averages over prompts: the clustered bootstrap.

Prompts that share a subject or a template are not independent; give their label as `cluster`, and
whole clusters are drawn. Percentile intervals are too narrow for few clusters; they are widened as
Hesterberg proposes (What Teachers Should Know About the Bootstrap, 2015, section 3.3), which makes
them as wide as the t interval when the mean is normal.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from scipy import stats

from mechlab.errors import OptionError

__all__ = ["bootstrap_interval"]

_CELLS = 4096
"""So many cells are resampled at a time, to bound memory (resamples x cells numbers)."""

Array = np.ndarray[Any, Any]


def bootstrap_interval(
    array: xr.DataArray,
    *,
    dim: str = "prompt",
    cluster: str | Sequence[object] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    statistic: Literal["mean", "median"] = "mean",
) -> xr.Dataset:
    """Return the interval of an average over `dim`, as `low` and `high` without that axis.

    NaN cells are left out, for each of the other axes separately. A cell with fewer than two
    clusters has no interval (NaN).

    Args:
        array: any axes, among them `dim`.
        dim: the axis that is averaged and resampled.
        cluster: name of a coordinate along `dim`, or one label per entry of `dim`; entries with
            equal labels are drawn together. By default every entry stands alone.
        confidence: probability that the interval covers the true average, within (0, 1).
        resamples: number of bootstrap samples.
        seed: the same seed gives the same interval.
        statistic: which average.

    Raises:
        OptionError: when the axis or the clusters do not fit the array, or a number is out of
            range.
    """
    _check(array, dim, confidence, resamples, statistic)
    number = _cluster_numbers(array, dim, cluster)
    flat = array.transpose(dim, ...).astype(float)
    values = flat.values.reshape(flat.sizes[dim], -1)
    bounds = _bounds(values, number, confidence, resamples, seed, statistic)
    frame = flat.isel({dim: 0}, drop=True)
    low, high = (frame.copy(data=bound.reshape(frame.shape)) for bound in bounds)
    about = {"confidence": confidence, "resamples": resamples, "statistic": statistic}
    return xr.Dataset({"low": low, "high": high}, attrs=about)


def _bounds(
    values: Array, number: Array, confidence: float, resamples: int, seed: int, statistic: str
) -> Array:
    """Return lower and upper bounds, axes (bound, cell)."""
    clusters = int(number.max()) + 1
    draws = np.random.default_rng(seed).multinomial(
        clusters, np.full(clusters, 1 / clusters), size=resamples
    )
    weights = draws[:, number].astype(float)  # sample, entry
    average = _means if statistic == "mean" else _medians
    bounds = np.full((2, values.shape[1]), np.nan)
    for start in range(0, values.shape[1], _CELLS):
        part = slice(start, start + _CELLS)
        held = _clusters_with_value(values[:, part], number, clusters)
        bounds[:, part] = _quantiles(average(values[:, part], weights), held, confidence)
    return bounds


def _means(values: Array, weights: Array) -> Array:
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):  # a sample may hold no entry of a cell
        means: Array = (weights @ np.where(there, values, 0.0)) / (weights @ there)
    return means


def _medians(values: Array, weights: Array) -> Array:
    """Return weighted medians, axes (sample, cell)."""
    medians = np.full((len(weights), values.shape[1]), np.nan)
    for cell, column in enumerate(values.T):
        order = np.argsort(column)[: np.count_nonzero(~np.isnan(column))]  # NaN sort last
        below = np.cumsum(weights[:, order], axis=1)
        if not order.size:
            continue
        half = below[:, -1:] / 2
        pair = [np.argmax(below >= half, axis=1), np.argmax(below > half, axis=1)]
        middle = column[order][np.array(pair)].mean(axis=0)
        medians[:, cell] = np.where(below[:, -1] > 0, middle, np.nan)
    return medians


def _clusters_with_value(values: Array, number: Array, clusters: int) -> Array:
    held = np.zeros((clusters, values.shape[1]), dtype=bool)
    np.logical_or.at(held, number, ~np.isnan(values))
    counts: Array = held.sum(axis=0)
    return counts


def _quantiles(averages: Array, held: Array, confidence: float) -> Array:
    bounds = np.full((2, averages.shape[1]), np.nan)
    for count in np.unique(held[held > 1]):
        cells = held == count
        # Hesterberg: the t quantile, and the resampled variance is (count - 1) / count too small
        reach = np.sqrt(count / (count - 1)) * stats.t.ppf((1 + confidence) / 2, count - 1)
        probabilities = [stats.norm.cdf(-reach), stats.norm.cdf(reach)]
        bounds[:, cells] = np.nanquantile(averages[:, cells], probabilities, axis=0)
    return bounds


def _cluster_numbers(
    array: xr.DataArray, dim: str, cluster: str | Sequence[object] | None
) -> Array:
    if cluster is None:
        return np.arange(array.sizes[dim])
    if isinstance(cluster, str):
        if cluster not in array.coords or array.coords[cluster].dims != (dim,):
            raise OptionError(
                f"cluster={cluster!r} is not a coordinate of ({dim}).\n"
                f"  Allowed: {', '.join(n for n in _along(array, dim)) or 'none on this array'}, "
                f"or one label per {dim}.\n  Assign the coordinate, or give the labels."
            )
        cluster = array.coords[cluster].values.tolist()
    if len(cluster) != array.sizes[dim]:
        raise OptionError(
            f"cluster has {len(cluster)} labels for {array.sizes[dim]} entries of {dim}.\n"
            "  Allowed: one label per entry.\n  Give the labels of this array."
        )
    known: dict[object, int] = {}
    return np.array([known.setdefault(label, len(known)) for label in cluster])


def _along(array: xr.DataArray, dim: str) -> list[str]:
    return [repr(name) for name, coord in array.coords.items() if coord.dims == (dim,)]


def _check(
    array: xr.DataArray, dim: str, confidence: float, resamples: int, statistic: str
) -> None:
    problems = []
    if dim not in array.dims or not array.sizes[dim]:
        problems.append(f"dim={dim!r}, allowed: an axis with entries, of {tuple(array.dims)}")
    if not 0 < confidence < 1:
        problems.append(f"confidence={confidence!r}, allowed: between 0 and 1")
    if resamples < 1:
        problems.append(f"resamples={resamples!r}, allowed: 1 or more (2000 is usual)")
    if statistic not in ("mean", "median"):
        problems.append(f"statistic={statistic!r}, allowed: 'mean', 'median'")
    if problems:
        raise OptionError(f"bootstrap_interval cannot use {'; '.join(problems)}. Correct these.")
