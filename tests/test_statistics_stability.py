"""Overlap of the top k: certain for planted cells, at chance for noise."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy import stats

from mechlab.errors import OptionError
from mechlab.statistics import split_half_stability, top_k_stability


def noise(*sizes: int, seed: int = 0) -> xr.DataArray:
    dims = ("prompt", "layer", "head")
    return xr.DataArray(np.random.default_rng(seed).normal(size=sizes), dims=dims)


def planted(seed: int = 0) -> xr.DataArray:
    array = noise(40, 4, 5, seed=seed)
    array[:, 1, 2] += 5
    array[:, 3, 4] += 4
    array[:, 0, 0] -= 6
    return array


def test_planted_cells_are_named_by_every_half() -> None:
    found = split_half_stability(planted(), 2)
    assert (found.overlap == 1).all() and found.chance == 2 / 20
    assert found.frequency[1, 2] == found.frequency[3, 4] == 1 and found.frequency.sum() == 2


def test_noise_overlaps_by_chance() -> None:
    found = [split_half_stability(noise(40, 4, 5, seed=s), 5, splits=50) for s in range(40)]
    overlap = np.mean([f.overlap.mean() for f in found])
    assert abs(overlap - 0.25) < 0.06  # halves of one sample are a little opposed
    assert abs(np.mean([f.rank_correlation.mean() for f in found])) < 0.1


def test_what_counts_as_largest_is_chosen() -> None:
    array = planted()
    lowest = split_half_stability(array, 1, largest="lowest").frequency
    magnitude = split_half_stability(array, 1, largest="magnitude").frequency
    assert lowest[0, 0] == magnitude[0, 0] == 1


def test_clusters_stay_in_one_half() -> None:
    """A cell that one cluster alone drives is named by the half that holds the cluster."""
    array = noise(40, 4, 5)
    array[:4, 2, 2] += 200
    array[4:, 2, 2] -= 3
    labels = list(np.repeat(np.arange(10), 4))
    assert split_half_stability(array, 1, cluster=labels).frequency[2, 2] == 0.5
    assert split_half_stability(array, 1).frequency[2, 2] > 0.9


def test_seeds_are_compared_each_with_each() -> None:
    values = np.array([[9.0, 8, 1, 0], [9, 1, 8, 0], [8, 9, 0, 1]])
    array = xr.DataArray(values, dims=("seed", "head"))
    found = top_k_stability(array, 2)
    assert_allclose(found.overlap, (0.5 + 1 + 0.5) / 3)
    assert_allclose(found.frequency, [1, 2 / 3, 1 / 3, 0])
    pairs = [(0, 1), (0, 2), (1, 2)]
    spearman = [stats.spearmanr(values[a], values[b]).statistic for a, b in pairs]
    assert_allclose(found.rank_correlation, np.mean(spearman))


def test_cells_without_values_take_no_part() -> None:
    array = planted()
    array[3, 1, 2] = np.nan
    array[:, 2, :] = np.nan
    found = split_half_stability(array, 2)
    assert found.frequency[1, 2] == 1 and np.isnan(found.frequency[2]).all()
    assert found.chance == 2 / 15


def test_the_seed_decides() -> None:
    array = noise(20, 3, 4)
    xr.testing.assert_identical(split_half_stability(array, 3), split_half_stability(array, 3))
    other = split_half_stability(array, 3, seed=1)
    assert not np.allclose(split_half_stability(array, 3).overlap, other.overlap)


@pytest.mark.parametrize(
    ("k", "options", "message"),
    [
        (20, {}, "k=20, allowed: below 20"),
        (0, {}, "k=0"),
        (1, {"dim": "seed"}, "dim='seed'"),
        (1, {"splits": 0, "largest": "best"}, "largest='best'.*splits=0"),
        (1, {"cluster": [0] * 40}, "there is one"),
    ],
)
def test_what_cannot_be_compared_is_refused(k: int, options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=f"(?s){message}"):
        split_half_stability(planted(), k, **options)
    with pytest.raises(OptionError, match="there is one"):
        top_k_stability(planted()[:1], 1, over="prompt")
    with pytest.raises(OptionError, match="that have a value everywhere"):
        split_half_stability(planted().where(planted()["head"] < 0), 2)


def test_equal_cells_have_no_top_k() -> None:
    """All zero, the first k of both halves would agree in full, and mean nothing."""
    flat = xr.zeros_like(planted())
    assert np.isnan(split_half_stability(flat, 2).overlap).all()
    assert np.isnan(top_k_stability(flat, 2, over="prompt").overlap)
    with pytest.raises(OptionError, match="1 infinite values"):
        split_half_stability(planted().where(planted() < planted().max(), np.inf), 2)
