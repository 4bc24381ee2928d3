"""Would other prompts, or another seed, have named the same heads? Overlap of the top k."""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import numpy as np
import xarray as xr
from scipy import stats

from mechlab.errors import OptionError
from mechlab.statistics.clusters import (
    Array,
    Cells,
    cluster_sums,
    refuse,
    wrong_array,
    wrong_choice,
    wrong_count,
)

__all__ = ["split_half_stability", "top_k_stability"]

Largest = Literal["highest", "lowest", "magnitude"]
_LARGEST = ("highest", "lowest", "magnitude")


def top_k_stability(
    array: xr.DataArray, k: int, *, over: str = "seed", largest: Largest = "highest"
) -> xr.Dataset:
    """Compare the k largest cells between the entries of an axis, each with each.

    Args:
        array: any axes, among them `over`; average over prompts first.
        k: how many cells count.
        over: the axis whose entries are compared, such as `seed`.
        largest: the `highest`, the `lowest`, or those of largest `magnitude`.

    Returns:
        Dataset with `overlap`, the mean share of the k cells that two entries have in common;
        `chance`, what cells named at random would have; `rank_correlation`, the mean of Spearman's
        coefficient over all cells; and per cell `frequency`, in how many of the entries it is among
        the k. Cells that are NaN in any entry take no part. Where the k-th and the next cell of an
        entry are equal there is no top k, and `overlap` is NaN.

    Raises:
        OptionError: when the axis has fewer than two entries, or k is not below the number of
            cells.
    """
    refuse("top_k_stability", _problems(array, over, k, largest))
    cells = Cells(array, over, None)
    if len(cells.values) < 2:
        raise OptionError(
            f"top_k_stability compares entries of {over!r}, and there is one. "
            "Allowed: two or more. Compute more, or use split_half_stability."
        )
    kept = _kept(cells.values, k)
    tops = _tops(_oriented(cells.values[:, kept], largest), k)
    pairs = list(combinations(range(len(tops)), 2))
    clear = _clear(_oriented(cells.values[:, kept], largest), k)
    overlap = np.mean([_overlap(tops[a], tops[b], clear[a] & clear[b], k) for a, b in pairs])
    ranks = stats.rankdata(cells.values[:, kept], axis=1)
    correlation = np.mean([_correlation(ranks[a], ranks[b]) for a, b in pairs])
    return xr.Dataset(
        {
            "overlap": overlap,
            "chance": k / kept.sum(),
            "rank_correlation": correlation,
            "frequency": cells.array(_spread(tops.mean(axis=0), kept)),
        },
        attrs={"k": k, "over": over, "largest": largest},
    )


def split_half_stability(
    array: xr.DataArray,
    k: int,
    *,
    dim: str = "prompt",
    cluster: str | Sequence[object] | None = None,
    largest: Largest = "highest",
    splits: int = 200,
    seed: int = 0,
) -> xr.Dataset:
    """Compare the k largest cells between random halves of the prompts.

    Args:
        array: any axes, among them `dim`; NaN entries are left out.
        k: how many cells count.
        dim: the axis that is split and averaged.
        cluster: name of a coordinate along `dim`, or one label per entry; a cluster falls into one
            half as a whole. By default every entry stands alone.
        largest: the `highest` means, the `lowest`, or those of largest `magnitude`.
        splits: how many random splits.
        seed: the same seed gives the same splits.

    Returns:
        Dataset with `overlap[draw]`, the share of the k cells that both halves name; `chance`, what
        cells named at random would have; `rank_correlation[draw]`, Spearman's coefficient between
        the means of the halves over all cells; and per cell `frequency`, in how many of all halves
        it is among the k. Cells without a value in some half take no part. Where the k-th and the
        next cell of a half are equal there is no top k, and the `overlap` of that draw is NaN.

    Raises:
        OptionError: when the axis or the clusters do not fit, there are fewer than two clusters, or
            k is not below the number of cells.
    """
    problems = _problems(array, dim, k, largest) + wrong_count("splits", splits)
    problems += wrong_count("seed", seed, 0)
    refuse("split_half_stability", problems)
    cells = Cells(array, dim, cluster)
    if cells.clusters < 2:
        raise OptionError(
            f"split_half_stability splits clusters of {dim!r}, and there is one. "
            "Allowed: two or more. Leave cluster= out, or give more prompts."
        )
    means = _half_means(cells, splits, seed)  # half, draw, cell
    kept = _kept(means.reshape(-1, means.shape[-1]), k)
    means = means[..., kept]
    tops, clear = _tops(_oriented(means, largest), k), _clear(_oriented(means, largest), k)
    first, second = stats.rankdata(means, axis=-1)
    return xr.Dataset(
        {
            "overlap": ("draw", _overlap(tops[0], tops[1], clear[0] & clear[1], k)),
            "chance": k / kept.sum(),
            "rank_correlation": ("draw", _correlation(first, second)),
            "frequency": cells.array(_spread(tops.mean(axis=(0, 1)), kept)),
        },
        attrs={"k": k, "splits": splits, "largest": largest},
    )


def _half_means(cells: Cells, splits: int, seed: int) -> Array:
    """Return the means of both halves, axes (half, draw, cell); of odd numbers one is smaller."""
    sums, counts = cluster_sums(cells.values, cells.number, cells.clusters)
    order = np.random.default_rng(seed).random((splits, cells.clusters)).argsort(axis=1)
    first = (order < cells.clusters // 2).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([(half @ sums) / (half @ counts) for half in (first, 1 - first)])


def _problems(array: xr.DataArray, dim: str, k: int, largest: str) -> list[str]:
    problems = wrong_array(array, dim) or wrong_count("k", k)
    if not problems and k >= (size := array.size // array.sizes[dim]):
        problems = [f"k={k}, allowed: below {size}, the number of cells"]
    return problems + wrong_choice("largest", largest, _LARGEST)


def _kept(values: Array, k: int) -> Array:
    """Return which cells have a value everywhere, axes (cell).

    Raises:
        OptionError: when these are not more than k.
    """
    kept: Array = np.asarray(~np.isnan(values).any(axis=0))
    if kept.sum() <= k:
        raise OptionError(
            f"k={k} of {int(kept.sum())} cells that have a value everywhere. "
            "Allowed: fewer. Take a smaller k, or leave out prompts without values."
        )
    return kept


def _oriented(values: Array, largest: str) -> Array:
    return {"highest": values, "lowest": -values, "magnitude": np.abs(values)}[largest]


def _tops(values: Array, k: int) -> Array:
    """Return which cells are among the k largest; of equal ones the first."""
    order = np.argsort(-values, axis=-1, kind="stable")[..., :k]
    tops = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(tops, order, True, axis=-1)
    return tops


def _clear(values: Array, k: int) -> Array:
    """Return whether the k-th largest is larger than the next: else which are the k is chance."""
    ordered = -np.sort(-values, axis=-1)
    clear: Array = np.asarray(ordered[..., k - 1] > ordered[..., k])
    return clear


def _overlap(a: Array, b: Array, clear: Array, k: int) -> Array:
    """Return the share of the k cells in common, NaN where either side has no clear top k."""
    return np.where(clear, (a & b).sum(axis=-1) / k, np.nan)


def _correlation(a: Array, b: Array) -> Array:
    """Return Pearson's coefficient along the last axis, NaN where one side is constant."""
    a, b = (x - x.mean(axis=-1, keepdims=True) for x in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = (a * b).sum(axis=-1) / np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    return found


def _spread(cells: Array, kept: Array) -> Array:
    everywhere = np.full(kept.shape, np.nan)
    everywhere[kept] = cells
    return everywhere
