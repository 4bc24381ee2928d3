"""Measures of free recall: lists counted by hand, a plain loop, chance, psifr where it is there."""

import csv
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mechlab as ml


def recalls(*lists: list[int], length: int, subjects: list[str] | None = None) -> xr.DataArray:
    return ml.prompts.recall_sequences(lists, list_length=length, subjects=subjects)


def random_recalls(subjects: int, lists: int, length: int, *, spoiled: bool) -> xr.DataArray:
    """Recalls in random order, ended at random; `spoiled` adds repeats and intrusions."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(subjects * lists):
        order = (1 + random.permutation(length))[: random.integers(0, length + 1)].tolist()
        if spoiled:
            for place in random.integers(0, len(order) + 1, size=3):
                order.insert(place, int(random.integers(0, length + 1)))
        made.append(order)
    owners = [f"s{i // lists}" for i in range(len(made))]
    return recalls(*made, length=length, subjects=owners)


def at(measure: xr.Dataset, name: str, **where: int) -> float:
    return float(measure[name].sel(where).squeeze())


def test_serial_recall_of_three_items_counted_by_hand() -> None:
    crp = ml.lag_crp(recalls([1, 2, 3], length=3))
    assert at(crp, "actual", lag=1) == at(crp, "possible", lag=1) == 2
    assert (at(crp, "possible", lag=2), at(crp, "prob", lag=1), at(crp, "prob", lag=2)) == (1, 1, 0)
    assert np.isnan(crp.prob.sel(lag=[-2, -1, 0])).all()
    backward = ml.lag_crp(recalls([3, 2, 1], length=3))
    np.testing.assert_array_equal(backward.prob, crp.prob[:, ::-1])
    assert float(ml.lag_rank(recalls([1, 2, 3], length=3)).lag_rank.item()) == 1


def test_repeats_and_intrusions_end_a_transition_and_start_none() -> None:
    """2 -> 4 and, after the intrusion and the repeat, nothing: 1 follows a repeat."""
    crp = ml.lag_crp(recalls([2, 4, 0, 3, 4, 1], length=4))
    assert int(crp.actual.sum()) == 1 and at(crp, "actual", lag=2) == 1
    assert crp.lag.values[crp.possible.values[0] > 0].tolist() == [-1, 1, 2]
    first = ml.pnr(recalls([0, 2, 2, 4], length=4))
    assert at(first, "actual", output_position=2, input_position=4) == 1
    assert at(first, "possible", output_position=2, input_position=2) == 0
    assert at(ml.spc(recalls([2, 2], [], length=4)), "prob", input_position=2) == 0.5


def test_measures_agree_with_a_plain_loop() -> None:
    data = random_recalls(2, 6, 5, spoiled=True)
    actual, possible = np.zeros((2, 9)), np.zeros((2, 9))
    ranks: list[list[float]] = [[], []]
    for number, row in enumerate(data.values.tolist()):
        left = set(range(1, 6))
        for now, after in zip(row, row[1:], strict=False):
            if now not in left:
                continue
            left.remove(now)
            if after not in left:
                continue
            actual[number // 6, after - now + 4] += 1
            for item in left:
                possible[number // 6, item - now + 4] += 1
            if len(left) > 1:
                own = abs(after - now)
                order = [abs(item - now) for item in left]
                place = sum(d < own for d in order) + (sum(d == own for d in order) - 1) / 2
                ranks[number // 6].append(1 - place / (len(left) - 1))
    crp, rank = ml.lag_crp(data), ml.lag_rank(data)
    np.testing.assert_array_equal(crp.actual, actual)
    np.testing.assert_array_equal(crp.possible, possible)
    np.testing.assert_allclose(rank.lag_rank, [np.mean(some) for some in ranks])
    first = ml.pfr(data)
    np.testing.assert_allclose(first.prob.sum("input_position"), 1)
    np.testing.assert_array_equal(ml.pnr(data).actual.sum("output_position"), ml.spc(data).actual)


def test_recall_in_random_order_has_a_flat_crp_and_chance_rank() -> None:
    random = np.random.default_rng(1)
    orders = 1 + random.permuted(np.tile(np.arange(8), (3000, 1)), axis=1)
    data = recalls(*orders.tolist(), length=8)
    measured = ml.lag_crp(data)
    crp = measured.prob.values[0]
    for lag in range(1, 8):  # 7 transitions, each as likely to any of 56 pairs of positions
        assert at(measured, "actual", lag=lag) / 3000 == pytest.approx((8 - lag) / 8, abs=0.05)
        assert crp[7 + lag] == pytest.approx(crp[7 - lag], abs=0.03)
    assert crp[[6, 8]].mean() == pytest.approx(crp[[4, 10]].mean(), abs=0.01)
    assert ml.lag_rank(data).lag_rank.item() == pytest.approx(0.5, abs=0.01)
    index = ml.recall_indices(data)
    for name in ("primacy", "recency", "asymmetry", "contiguity"):
        assert index[name].item() == pytest.approx(0, abs=0.02)


def test_indices_say_what_the_curves_show() -> None:
    index = ml.recall_indices(recalls([1, 2, 3, 8, 9], [1, 2], length=9))
    assert index.primacy.item() == pytest.approx((1 + 1 + 0.5) / 3)
    assert index.recency.item() == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert index.asymmetry.item() == pytest.approx(4 / 5 - 0)
    assert np.isnan(ml.recall_indices(recalls([1, 2], length=3)).contiguity.item())


def test_subjects_weigh_the_same_and_the_interval_is_over_them() -> None:
    data = recalls([1], [1], [1], [], [1], length=2, subjects=["a", "a", "a", "b", "c"])
    mean = ml.average_subjects(ml.spc(data))
    np.testing.assert_allclose(mean.prob, [2 / 3, 0])
    assert (mean.prob_low[0] < 2 / 3 < mean.prob_high[0]) and mean.prob_subjects[0] == 3
    alone = ml.average_subjects(ml.spc(recalls([1], length=2)))
    assert np.isnan(alone.prob_low).all() and alone.prob[0] == 1
    with pytest.raises(ml.OptionError, match="no axis `subject`"):
        ml.average_subjects(mean)


def test_what_is_no_recall_sequence_is_refused() -> None:
    good = recalls([1, 2], [2], length=2)
    for bad, match in (
        (good.values, "no DataArray"),
        (good.assign_attrs(list_length=1), r"lists \[0, 1\] \(2 in all\)"),
        (good[:, ::-1], r"after the end: lists \[1\]"),
        (good.astype(float), "float64"),
    ):
        with pytest.raises(ml.OptionError, match=match):
            ml.lag_crp(bad)  # type: ignore[arg-type]


def test_psifr_finds_the_same_in_random_data(tmp_path: Path) -> None:
    fr = pytest.importorskip("psifr.fr", reason="psifr is not installed")
    import pandas as pd

    made = random_recalls(3, 8, 6, spoiled=True)
    rows = []
    for number, row in enumerate(made.values.tolist()):
        about = {"subject": made.subject.values[number], "list": number % 8 + 1}
        for kind, items in (("study", range(1, 7)), ("recall", [i for i in row if i >= 0])):
            rows += [
                {**about, "trial_type": kind, "position": place, "item": f"w{item}"}
                for place, item in enumerate(items, start=1)
            ]
    path = tmp_path / "recall.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    data = ml.prompts.read_free_recall(path)
    np.testing.assert_array_equal(data, made)
    theirs = fr.merge_free_recall(pd.read_csv(path))
    for ours, frame, column in (
        (ml.lag_crp(data), fr.lag_crp(theirs), "prob"),
        (ml.spc(data), fr.spc(theirs), "recall"),
        (ml.pnr(data), fr.pnr(theirs), "prob"),
    ):
        np.testing.assert_allclose(ours.prob.values.ravel(), frame[column].to_numpy())
        if "actual" in frame:
            np.testing.assert_array_equal(ours.possible.values.ravel(), frame["possible"])
    np.testing.assert_allclose(ml.lag_rank(data).lag_rank, fr.lag_rank(theirs)["rank"])
