"""Sign-flip tests hold their level, max-T over whole grids, and agree with other routes."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from transformer_lens.utilities.statistics import sign_flip_permutation_pvalue

from mechlab.errors import OptionError
from mechlab.statistics import false_discovery, sign_flip_test
from mechlab.statistics.significance import _controlled

Array = np.ndarray[Any, Any]


def grid(values: Array) -> xr.DataArray:
    return xr.DataArray(values, dims=("prompt", "layer", "head"))


def null_grid(rng: np.random.Generator, number: Array, heavy: bool) -> Array:
    """Noise that clusters and cells share: axes (prompt, layer, head), every mean 0."""
    clusters = int(number.max()) + 1

    def drawn(*size: int) -> Array:
        return rng.standard_t(3, size=size) if heavy else rng.normal(size=size)

    shared = drawn(clusters, 1, 1) + drawn(clusters, 4, 6)
    return np.asarray(shared[number] + 0.5 * drawn(len(number), 4, 6))


@pytest.mark.parametrize(("clusters", "heavy"), [(9, True), (20, False)])
def test_max_t_finds_anything_under_the_null_in_five_per_cent(clusters: int, heavy: bool) -> None:
    rng = np.random.default_rng(0)
    number = np.repeat(np.arange(clusters), rng.integers(1, 5, clusters))
    found, alone = 0, 0
    for _ in range(1000):
        test = sign_flip_test(grid(null_grid(rng, number, heavy)), cluster=list(number), flips=511)
        found += bool((test.p_adjusted <= 0.05).any())
        alone += bool((test.p_value <= 0.05).any())
    assert 0.035 <= found / 1000 <= 0.065
    assert alone / 1000 > 0.3  # without the correction


def test_without_clusters_the_level_is_lost() -> None:
    rng = np.random.default_rng(0)
    number = np.repeat(np.arange(12), 4)
    tests = [
        sign_flip_test(grid(null_grid(rng, number, False)), flips=499).p_adjusted.min()
        for _ in range(100)
    ]
    assert np.mean(np.array(tests) <= 0.05) > 0.3


def test_real_effects_are_found_and_the_rest_still_holds_its_level() -> None:
    rng = np.random.default_rng(0)
    number, false, missed = np.repeat(np.arange(15), 3), 0, 0
    for _ in range(200):
        values = null_grid(rng, number, False)
        values[:, 1, 2] += 4
        values[:, 3, 0] -= 4
        hit = sign_flip_test(grid(values), cluster=list(number), flips=999).p_adjusted <= 0.05
        missed += 2 - int(hit[1, 2]) - int(hit[3, 0])
        hit[1, 2] = hit[3, 0] = False
        false += bool(hit.any())
    assert false / 200 <= 0.08 and missed / 400 < 0.1


def test_step_down_is_never_weaker_than_one_common_threshold() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(11, 2, 5)) + np.linspace(0, 2, 10).reshape(2, 5)
    test = sign_flip_test(grid(values))
    parts = values.reshape(11, 10) / np.sqrt((values.reshape(11, 10) ** 2).sum(0))
    signs = np.array(np.meshgrid(*[[1, -1]] * 11)).reshape(11, -1).T
    largest = np.abs(signs @ parts).max(axis=1)
    single = [(largest >= abs(t) - 1e-9).mean() for t in parts.sum(0)]
    assert (test.p_adjusted.values.ravel() <= np.array(single) + 1e-12).all()
    best = np.argmax(np.abs(parts.sum(0)))
    assert_allclose(test.p_adjusted.values.ravel()[best], single[best])
    assert (test.p_adjusted >= test.p_value - 1e-12).all()


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_exact_values_are_those_of_transformer_lens_and_scipy(alternative: Any) -> None:
    values = np.random.default_rng(1).normal(0.4, 1, size=(9, 2, 3))
    ours = sign_flip_test(grid(values), alternative=alternative, correction="none")
    theirs = sign_flip_permutation_pvalue(torch.from_numpy(values), dim=0, alternative=alternative)
    assert ours.attrs["exact"] == 1
    assert_allclose(ours.p_value, theirs.numpy(), atol=1e-12)
    scipy = stats.permutation_test(
        (values[:, 0, 0],), lambda x, axis: x.mean(axis=axis), permutation_type="samples",
        alternative=alternative, vectorized=True, n_resamples=np.inf,
    )  # fmt: skip
    assert_allclose(ours.p_value[0, 0], scipy.pvalue, atol=1e-12)


def test_random_flips_come_close_to_all_of_them() -> None:
    values = np.random.default_rng(2).normal(0.3, 1, size=(12, 1, 8))
    exact = sign_flip_test(grid(values))
    drawn = sign_flip_test(grid(values), flips=4000)
    assert (exact.attrs["exact"], drawn.attrs["exact"]) == (1, 0)
    assert_allclose(drawn.p_value, exact.p_value, atol=0.03)
    assert_allclose(drawn.p_adjusted, exact.p_adjusted, atol=0.03)
    again = sign_flip_test(grid(values), flips=4000)
    xr.testing.assert_identical(drawn, again)


def test_clusters_are_flipped_as_one() -> None:
    values = np.random.default_rng(4).normal(0.5, 1, size=(8, 2, 2))
    twice = np.repeat(values, 3, axis=0)
    whole = sign_flip_test(grid(twice), cluster=list(np.repeat(range(8), 3)))
    assert_allclose(whole.p_value, sign_flip_test(grid(values)).p_value)
    assert (whole.clusters == 8).all()
    assert_allclose(whole["mean"], values.mean(axis=0))


def test_false_discovery_is_scipys_and_leaves_holes() -> None:
    p = np.array([0.001, 0.02, np.nan, 0.03, 0.9])
    adjusted = false_discovery(xr.DataArray(p, dims="head"))
    held = ~np.isnan(p)
    assert_allclose(adjusted.values[held], stats.false_discovery_control(p[held]))
    assert np.isnan(adjusted.values[2])
    test = sign_flip_test(
        grid(np.random.default_rng(5).normal(0.5, 1, (9, 2, 3))), correction="fdr"
    )
    assert_allclose(test.p_adjusted, false_discovery(test.p_value))
    assert np.isnan(_controlled(np.array([np.nan]))).all()


def test_false_discoveries_are_a_twentieth_of_all() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(150):
        values = rng.normal(size=(20, 10, 10))
        values[:, :3] += 1.2
        hit = sign_flip_test(grid(values), correction="fdr", flips=999).p_adjusted <= 0.05
        shares.append(float(hit[3:].sum() / max(1, hit.sum())))
    assert 0.015 <= np.mean(shares) <= 0.05


def test_cells_of_nothing_but_zeros_are_never_significant() -> None:
    values = np.zeros((10, 1, 3))
    values[:, 0, 1] = 1.0
    test = sign_flip_test(grid(values))
    assert_array_equal(test.p_value[0, [0, 2]], [1.0, 1.0])
    assert test.p_value[0, 1] == 2 / 2**10 == test.p_adjusted[0, 1]


def test_missing_entries_count_for_nothing_and_single_ones_are_not_tested() -> None:
    values = np.random.default_rng(6).normal(1, 1, size=(8, 1, 3))
    values[5:, 0, 1] = np.nan
    values[1:, 0, 2] = np.nan
    test = sign_flip_test(grid(values))
    alone = sign_flip_test(grid(values[:5, :, 1:2]))
    assert_allclose(test.p_value[0, 1], alone.p_value[0, 0])
    assert_array_equal(test.clusters[0], [8, 5, 1])
    assert np.isnan(test.p_value[0, 2]) and np.isnan(test.p_adjusted[0, 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": "step"}, "dim='step'"),
        ({"flips": 0}, "flips=0"),
        ({"alternative": "both"}, "alternative='both'"),
        ({"correction": "bonferroni", "flips": -1}, "flips=-1.*correction='bonferroni'"),
        ({"cluster": [1]}, "cluster has 1 labels for 3"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"(?s){message}.*llowed"):
        sign_flip_test(xr.DataArray(np.zeros((3, 2)), dims=("prompt", "head")), **options)
    with pytest.raises(OptionError, match="p-values outside"):
        false_discovery(xr.DataArray([2.0], dims="head"))
