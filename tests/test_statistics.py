"""Bootstrap intervals cover what they claim, and only with the right clusters."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from mechlab.errors import OptionError
from mechlab.statistics import bootstrap_interval, sign_flip_test
from mechlab.statistics.intervals import _medians

DRAWS = 2000
Array = np.ndarray[Any, Any]


def clustered(rng: np.random.Generator, clusters: int, sizes: Array) -> tuple[xr.DataArray, Array]:
    """`DRAWS` data sets of ragged clusters with a shared effect per cluster; true mean 0."""
    number = np.repeat(np.arange(clusters), sizes)
    shared = rng.normal(size=(clusters, DRAWS))[number]
    values = shared + 0.5 * rng.normal(size=(len(number), DRAWS))
    return xr.DataArray(values, dims=("prompt", "draw")), number


def coverage(interval: xr.Dataset, truth: float = 0.0) -> float:
    return float(((interval.low <= truth) & (truth <= interval.high)).mean())


SIZES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "equal": lambda rng, n: np.full(n, 4),
    "ragged": lambda rng, n: rng.integers(1, 6, n),
    "two of twenty": lambda rng, n: np.r_[np.full(n - 2, 2), 20, 20],
}


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("clusters", [10, 15, 20, 40])
@pytest.mark.parametrize("shape", ["normal", "exponential"])
def test_intervals_cover_a_thousand_clustered_data_sets(
    shape: str, clusters: int, sizes: str
) -> None:
    rng = np.random.default_rng(0)
    each = SIZES[sizes](rng, clusters)
    number = np.repeat(np.arange(clusters), each)

    def drawn(count: int) -> Array:
        normal = shape == "normal"
        size = (count, 1000)
        return rng.normal(size=size) if normal else rng.exponential(size=size) - 1

    values = drawn(clusters)[number] + drawn(len(number))
    interval = bootstrap_interval(
        xr.DataArray(values, dims=("prompt", "draw")), cluster=list(number), resamples=1000
    )
    assert 0.93 <= coverage(interval) <= 0.97


def test_strongly_skewed_effects_are_covered_too_rarely_as_the_docstring_says() -> None:
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(size=(12, 1000)))
    interval = bootstrap_interval(xr.DataArray(values, dims=("prompt", "draw")), resamples=1000)
    assert 0.85 <= coverage(interval, float(np.exp(0.5))) < 0.93
    in_logs = bootstrap_interval(
        xr.DataArray(np.log(values), dims=("prompt", "draw")), resamples=1000
    )
    assert 0.93 <= coverage(in_logs) <= 0.97


def test_two_and_three_clusters_have_the_interval_of_students_t() -> None:
    rng = np.random.default_rng(2)
    for clusters in (2, 3):
        values = 5 + 0.1 * rng.normal(size=(clusters * 4, 50))
        number = np.repeat(np.arange(clusters), 4)
        interval = bootstrap_interval(
            xr.DataArray(values, dims=("prompt", "draw")), cluster=list(number), resamples=500
        )
        means = values.reshape(clusters, 4, 50).mean(axis=1)
        reach = stats.t.ppf(0.975, clusters - 1) * means.std(axis=0, ddof=1) / np.sqrt(clusters)
        assert_allclose(interval.high - means.mean(axis=0), reach, rtol=1e-6)
        assert_allclose(means.mean(axis=0) - interval.low, reach, rtol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-4, 1e-2])
def test_one_outlier_among_equal_values_does_not_blow_the_interval_up(noise: float) -> None:
    values = np.r_[np.random.default_rng(0).normal(0, noise, 15), 1.0]
    interval = bootstrap_interval(xr.DataArray(values, dims="prompt"))
    reach = stats.t.ppf(0.975, 15) * values.std(ddof=1) / 4
    assert 0.99 * reach <= interval.high - values.mean() <= 3.01 * reach
    assert 0.99 * reach <= values.mean() - interval.low <= 3.01 * reach


def test_few_clusters_are_covered_when_effects_are_normal() -> None:
    rng = np.random.default_rng(1)
    for clusters in (4, 6):
        array, number = clustered(rng, clusters, np.full(clusters, 3))
        interval = bootstrap_interval(array, cluster=list(number), resamples=1000)
        assert 0.93 <= coverage(interval) <= 0.99


def test_ignoring_the_clusters_covers_too_little() -> None:
    rng = np.random.default_rng(1)
    array, _ = clustered(rng, 20, np.full(20, 4))
    assert coverage(bootstrap_interval(array, resamples=1000)) < 0.8


def test_skewed_values_with_missing_cells_are_covered() -> None:
    rng = np.random.default_rng(2)
    values = rng.exponential(size=(60, DRAWS))
    values[rng.random(values.shape) < 0.2] = np.nan
    interval = bootstrap_interval(xr.DataArray(values, dims=("prompt", "draw")), resamples=1000)
    assert 0.925 <= coverage(interval, 1.0) <= 0.97


def test_medians_are_covered() -> None:
    rng = np.random.default_rng(3)
    array = xr.DataArray(rng.normal(size=(41, 500)), dims=("prompt", "draw"))
    interval = bootstrap_interval(array, resamples=400, statistic="median")
    assert 0.92 <= coverage(interval) <= 0.98


def test_the_interval_of_a_normal_mean_is_close_to_the_t_interval() -> None:
    values = np.random.default_rng(4).normal(size=15)
    interval = bootstrap_interval(xr.DataArray(values, dims="prompt"), resamples=40_000)
    reach = stats.t.ppf(0.975, 14) * values.std(ddof=1) / np.sqrt(15)
    expected = [values.mean() - reach, values.mean() + reach]
    assert_allclose([interval.low, interval.high], expected, atol=0.12 * reach)


def test_missing_entries_are_as_if_they_were_not_there() -> None:
    rng = np.random.default_rng(5)
    full = rng.normal(size=(30, 3))
    full[20:, 1] = np.nan
    full[1:, 2] = np.nan
    array = xr.DataArray(full, {"layer": [4, 5, 6]}, ("prompt", "layer"))
    interval = bootstrap_interval(array, resamples=20_000)
    alone = bootstrap_interval(array[:20, 1], resamples=20_000)
    assert_allclose(interval.low[1], alone.low, atol=0.03)
    assert np.isnan(interval.low[2]) and np.isnan(interval.high[2])
    assert list(interval.layer.values) == [4, 5, 6] and interval.low.dims == ("layer",)


def test_labels_of_clusters_may_be_a_coordinate() -> None:
    values = np.random.default_rng(6).normal(size=(2, 12))
    labels = [f"s{i % 4}" for i in range(12)]
    array = xr.DataArray(values, {"subject": ("prompt", labels)}, ("layer", "prompt"))
    by_name = bootstrap_interval(array, cluster="subject")
    xr.testing.assert_identical(by_name, bootstrap_interval(array, cluster=labels))
    assert (by_name.low < array.mean("prompt")).all() and (
        array.mean("prompt") < by_name.high
    ).all()


def test_entries_without_a_label_stand_alone() -> None:
    array = xr.DataArray(np.random.default_rng(6).normal(size=6), dims="prompt")
    nameless = bootstrap_interval(array, cluster=[None] * 6)
    xr.testing.assert_identical(nameless, bootstrap_interval(array))
    some = bootstrap_interval(array, cluster=["a", None, "a", None, "b", "b"])
    assert some.equals(bootstrap_interval(array, cluster=["a", "x", "a", "y", "b", "b"]))
    assert not some.equals(bootstrap_interval(array, cluster=["a", "x", "a", "x", "b", "b"]))


def test_the_seed_decides_and_the_chunks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    array = xr.DataArray(np.random.default_rng(7).normal(size=(10, 9)), dims=("prompt", "layer"))
    once = bootstrap_interval(array)
    monkeypatch.setattr("mechlab.statistics.intervals._CELLS", 4)
    again = bootstrap_interval(array)
    assert_allclose(once.low, again.low, rtol=1e-12)
    assert not np.allclose(once.low, bootstrap_interval(array, seed=1).low)


def test_weighted_medians_are_those_of_the_repeated_values() -> None:
    values = np.array([[3.0], [1.0], [np.nan], [2.0]])
    weights = np.array([[1.0, 1, 2, 2], [2, 2, 0, 0], [0, 0, 4, 0]])
    assert_array_equal(_medians(values, weights)[:, 0], [2.0, 2.0, np.nan])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": "head"}, "dim='head'"),
        ({"confidence": 95}, "confidence=95"),
        ({"confidence": "0.9"}, "confidence='0.9'"),
        ({"confidence": None, "seed": "a"}, "confidence=None.*seed='a'"),
        ({"confidence": True}, "confidence=True"),
        ({"resamples": 0}, "resamples=0"),
        ({"resamples": 39}, "resamples=39, .*: 40 or more at confidence=0.95"),
        ({"seed": -1}, "seed=-1"),
        ({"cluster": {1, 2, 3}}, "is no list of labels"),
        ({"cluster": 3}, "is no list of labels"),
        ({"cluster": [[1], [2], [3]]}, "is no list of labels"),
        ({"statistic": "mode"}, "statistic='mode'"),
        ({"cluster": "subject"}, "cluster='subject' is not a coordinate"),
        ({"cluster": [1, 2]}, "cluster has 2 labels for 3 entries"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"(?s)(?=.*llowed).*{message}"):
        bootstrap_interval(xr.DataArray(np.zeros(3), dims="prompt"), **options)


MADE = np.random.default_rng(0).normal(1, 1, (12, 2))


def one(values: Any) -> xr.DataArray:
    return xr.DataArray(np.asarray(values), dims=("prompt", "cell")[: np.ndim(values)])


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_what_says_nothing_of_the_spread_has_no_interval(statistic: Any) -> None:
    for array, labels in (
        (one([1.0]), None),
        (one(MADE[:, 0]), ["a"] * 12),
        (one(np.full(4, np.nan)), None),
        (one([np.nan, 2.0, np.nan]), None),
    ):
        interval = bootstrap_interval(array, statistic=statistic, cluster=labels)
        assert np.isnan(interval.low) and np.isnan(interval.high)
    hole = one(np.where(np.arange(2) == 0, MADE, np.nan))
    interval = bootstrap_interval(hole, statistic=statistic)
    alone = bootstrap_interval(one(MADE[:, :1]), statistic=statistic)
    assert_allclose(interval.low, [float(alone.low[0]), np.nan])
    agreed = bootstrap_interval(one(np.full(6, 0.3)), statistic=statistic)
    assert_allclose([agreed.low, agreed.high], 0.3, rtol=1e-12)


def test_intervals_and_tests_go_with_the_scale_of_the_data() -> None:
    """Squares of the largest and smallest numbers neither overflow nor vanish."""
    plain, test = bootstrap_interval(one(MADE)), sign_flip_test(one(MADE))
    for size in (2.0**-1000, 2.0**-20, 2.0**1000):
        interval, sized = bootstrap_interval(one(MADE * size)), sign_flip_test(one(MADE * size))
        assert_allclose(interval.low / size, plain.low, rtol=1e-12)
        assert_allclose(interval.high / size, plain.high, rtol=1e-12)
        assert_allclose(sized.p_adjusted, test.p_adjusted)
        assert_allclose(sized["mean"] / size, test["mean"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (one([1.0, np.inf, 2.0]), "1 infinite values"),
        (one([-np.inf, np.inf]), "2 infinite values"),
        (one(["a", "b"]), "an array of <U1"),
        (one([1j, 2.0]), "an array of complex128"),
        (one(np.array(["2020", "2021"], "M8[ns]")), "an array of datetime64"),
        (one([]), "an axis with entries"),
        (np.ones(3), "ndarray, allowed: an xarray.DataArray"),
        (xr.Dataset({"effect": one([1.0, 2.0])}), "Dataset, allowed: an xarray.DataArray"),
    ],
)
def test_values_that_have_no_average_are_refused(values: Any, message: str) -> None:
    for function in (bootstrap_interval, sign_flip_test):
        with pytest.raises(OptionError, match=message):
            function(values)
