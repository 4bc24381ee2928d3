"""Which cells of a grid have an effect: sign-flip tests, max-T, false discovery rate.

If an effect is nothing but noise, its sign is as likely to be the other one: flipping the signs of
whole clusters gives the distribution of the statistic without assuming a shape. Max-T (Westfall and
Young 1993, step-down) compares each cell with the largest of all cells under the same flips, which
keeps the chance of any false finding over the whole grid, however the cells depend on each other.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr
from scipy import stats

from mechlab.statistics.clusters import (
    Array,
    Cells,
    cluster_sums,
    refuse,
    wrong_array,
    wrong_choice,
    wrong_count,
)

__all__ = ["false_discovery", "sign_flip_test"]

_CHUNK = 2**21
"""So many numbers are held at a time."""
_TIE = 1e-9
"""Relative: sums in another order are ties."""

Alternative = Literal["two-sided", "greater", "less"]
Correction = Literal["max_t", "fdr", "none"]


def sign_flip_test(
    array: xr.DataArray,
    *,
    dim: str = "prompt",
    cluster: str | Sequence[object] | None = None,
    alternative: Alternative = "two-sided",
    correction: Correction = "max_t",
    flips: int = 9999,
    seed: int = 0,
) -> xr.Dataset:
    """Test for every cell that the mean over `dim` is zero.

    The signs of whole clusters are flipped at random; up to 13 clusters all patterns are gone
    through instead (if `flips` allows), and p-values are exact. The statistic is the sum over
    clusters divided by the root of the sum of their squares, which grows with Student's t and makes
    cells of different scales comparable. The null hypothesis is that a cluster's sum is distributed
    symmetrically around zero. With n clusters no p-value is below 2 / 2**n (two-sided): fewer than
    six cannot reach 5 %.

    Args:
        array: any axes, among them `dim`; NaN entries are left out.
        dim: the axis that is averaged.
        cluster: name of a coordinate along `dim`, or one label per entry; entries with equal labels
            are flipped together. By default every entry stands alone.
        alternative: whether the mean differs from zero, is greater, or less.
        correction: `max_t` holds the chance of any false finding among all cells (step-down),
            `fdr` the expected share of false findings (Benjamini and Hochberg), `none` neither.
        flips: number of random patterns beside the data's own.
        seed: the same seed gives the same p-values.

    Returns:
        Dataset without the axis: `mean`; `p_value` of each cell for itself; `p_adjusted` under the
        correction; `clusters`, how many have a value. Cells with fewer than two clusters are NaN.

    Raises:
        OptionError: when the axis or the clusters do not fit the array, or an option is outside its
            choices.
    """
    problems = wrong_array(array, dim) + wrong_count("flips", flips)
    problems += wrong_count("seed", seed, 0)
    problems += wrong_choice("alternative", alternative, ("two-sided", "greater", "less"))
    problems += wrong_choice("correction", correction, ("max_t", "fdr", "none"))
    refuse("sign_flip_test", problems)
    cells = Cells(array, dim, cluster)
    table, scale = cells.scaled()
    sums, counts = cluster_sums(table, cells.number, cells.clusters)
    held = (counts > 0).sum(axis=0)
    tested = held > 1
    patterns, exact = _patterns(cells.clusters, flips, seed)
    p_value, p_max = (np.full(len(held), np.nan) for _ in range(2))
    if tested.any():
        p_value[tested], p_max[tested] = _p_values(
            _standardised(sums[:, tested]), patterns, exact, alternative
        )
    with np.errstate(invalid="ignore"):
        mean = np.where(counts.sum(axis=0) > 0, sums.sum(axis=0) / counts.sum(axis=0), np.nan)
    adjusted = {"max_t": p_max, "fdr": _controlled(p_value), "none": p_value}[correction]
    about = {"alternative": alternative, "correction": correction, "exact": int(exact)}
    return xr.Dataset(
        {
            "mean": cells.array(mean * scale),
            "p_value": cells.array(p_value),
            "p_adjusted": cells.array(adjusted),
            "clusters": cells.array(held.astype(float)),
        },
        attrs=about | {"patterns": len(patterns)},
    )


def false_discovery(p_values: xr.DataArray, method: Literal["bh", "by"] = "bh") -> xr.DataArray:
    """Return p-values adjusted for the false discovery rate over all cells that have one.

    `scipy.stats.false_discovery_control`, with NaN cells left out and kept NaN.

    Args:
        p_values: any axes.
        method: Benjamini and Hochberg, or Benjamini and Yekutieli (any dependence).

    Raises:
        OptionError: for another method, or values outside [0, 1].
    """
    problems = wrong_choice("method", method, ("bh", "by"))
    if not isinstance(p_values, xr.DataArray) or p_values.dtype.kind not in "iuf":
        refuse("false_discovery", ["what is no xarray.DataArray of p-values", *problems])
    values = p_values.values.astype(float)
    if ((values < 0) | (values > 1)).any():
        problems.append("p-values outside [0, 1]")
    refuse("false_discovery", problems)
    return p_values.copy(data=_controlled(values.ravel(), method).reshape(values.shape))


def _controlled(p_values: Array, method: str = "bh") -> Array:
    there = ~np.isnan(p_values)
    adjusted = np.full(p_values.shape, np.nan)
    if there.any():
        adjusted[there] = stats.false_discovery_control(p_values[there], method=method)
    return adjusted


def _standardised(sums: Array) -> Array:
    """Return the sums `[cluster, cell]`, each cell with a sum of squares of 1 (or all 0).

    Flips do not change the squares, so that a flipped statistic is a plain sum of these.
    """
    norm = np.sqrt((sums**2).sum(axis=0))
    parts: Array = np.divide(sums, norm, out=np.zeros_like(sums), where=norm > 0)
    return parts


def _patterns(clusters: int, flips: int, seed: int) -> tuple[Array, bool]:
    """Return signs `[pattern, cluster]`, the data's own first, and whether these are all."""
    if clusters <= 30 and 2**clusters <= min(flips + 1, 2**13):
        bits = np.arange(2**clusters)[:, None] >> np.arange(clusters)
        return 1 - 2 * (bits & 1).astype(np.int8), True
    drawn = np.random.default_rng(seed).integers(0, 2, (flips + 1, clusters), dtype=np.int8)
    drawn[0] = 0
    return 1 - 2 * drawn, False


def _p_values(parts: Array, patterns: Array, exact: bool, alternative: str) -> tuple[Array, Array]:
    """Return each cell's own p-value and that of step-down max-T."""
    observed = _oriented(parts.sum(axis=0), alternative)
    order = np.argsort(observed)  # from the weakest cell to the strongest
    level = observed[order] - _TIE * np.maximum(1.0, np.abs(observed[order]))
    own, largest = np.zeros(len(order)), np.zeros(len(order))
    step = max(1, _CHUNK // max(1, len(order)))
    for start in range(0, len(patterns), step):
        flipped = patterns[start : start + step].astype(float) @ parts[:, order]
        flipped = _oriented(flipped, alternative)
        own += (flipped >= level).sum(axis=0)
        # Step-down: a cell is compared with itself and all weaker ones.
        largest += (np.maximum.accumulate(flipped, axis=1) >= level).sum(axis=0)
    # The data's own pattern is among them, which is the "+ 1" of random flips.
    p_own, p_max = own / len(patterns), largest / len(patterns)
    p_max = np.maximum.accumulate(p_max[::-1])[::-1]  # a weaker cell is never more certain
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return p_own[back], p_max[back]


def _oriented(statistic: Array, alternative: str) -> Array:
    if alternative == "two-sided":
        return np.abs(statistic)
    return statistic if alternative == "greater" else -statistic
