"""Many edits of one model: each made on what the others left, watched, and undone bit by bit."""

from typing import Any

import edit_toys
import numpy as np
import pytest
import xarray as xr
from edit_toys import CASES, SETTINGS, TEXTS, Journal
from numpy.testing import assert_allclose

from mechlab.errors import Cancelled, ModelError, OptionError
from mechlab.methods import Delta, Edit, evaluate_edit, memit, rank_one_edit
from mechlab.methods.editing.modules import projection
from mechlab.methods.editing.stacking import stacked
from mechlab.methods.evaluation import next_token_reference, prediction_drift
from mechlab.workflows import aftermath, batch_edits, edit_plan, sequential_edits

FAMILY, LAYER = "gpt2", 1
OPTIONS = edit_toys.options(FAMILY, layer=LAYER, texts=TEXTS, every=1)


def edit_of(case: int, variant: Any = "r-rome") -> Edit:
    return rank_one_edit(
        edit_toys.model(FAMILY), CASES[case].request, layer=LAYER, variant=variant,
        key_statistics=edit_toys.statistics(FAMILY), **SETTINGS,
    )  # fmt: skip


@pytest.fixture(scope="module")
def in_turn() -> tuple[Edit, Edit, list[xr.Dataset]]:
    """Two edits by hand, the second made on top of the first, and the evaluation after each."""
    model, first = edit_toys.model(FAMILY), edit_of(0)
    found = []
    with first.applied(model):
        found.append(evaluate_edit(model, CASES))
        second = edit_of(1)
        with second.applied(model, on_top=True):
            found.append(evaluate_edit(model, CASES))
    return first, second, found


@pytest.fixture(scope="module")
def sequence() -> xr.Dataset:
    before = edit_toys.weights(FAMILY)
    result = sequential_edits(edit_toys.model(FAMILY), CASES, **OPTIONS)
    assert edit_toys.untouched(FAMILY, before)
    return result


def test_a_pile_of_edits_is_their_nesting_and_is_undone_bitwise(in_turn: Any) -> None:
    model, (first, second, _) = edit_toys.model(FAMILY), in_turn
    before, place = edit_toys.weights(FAMILY), projection(edit_toys.model(FAMILY), LAYER)
    start = place.weight.clone()
    with first.applied(model), second.applied(model, on_top=True):
        nested = place.weight.clone()
    with pytest.raises(ZeroDivisionError), stacked(model) as stack:
        assert stack.norm == stack.weight_norm == 0
        stack.add(first)
        stack.add(second)
        assert model.edits == (first.digest, second.digest)
        assert bool((place.weight == nested).all())
        assert stack.norm == pytest.approx(float((nested - start).norm()), rel=1e-5)
        assert stack.weight_norm == pytest.approx(float(start.norm()), rel=1e-5)
        raise ZeroDivisionError
    assert edit_toys.untouched(FAMILY, before)


def test_an_edit_that_is_refused_leaves_the_pile_as_it_was(in_turn: Any) -> None:
    model, (first, second, _) = edit_toys.model(FAMILY), in_turn
    with stacked(model) as stack:
        with pytest.raises(ModelError, match="on top of 1 others"):
            stack.add(second)
        stack.add(first)
        weight = projection(model, LAYER).weight.clone()
        (delta,) = first.deltas
        wild = Delta(0, "down_proj", delta.left * 1e30, delta.right * 1e30)
        wild_edit = Edit((delta, wild), first.requests, first.fingerprint)
        with pytest.raises(ModelError, match="infinite"):
            stack.add(wild_edit)
        assert bool((projection(model, LAYER).weight == weight).all())
        assert model.edits == (first.digest,)


def test_each_edit_is_made_on_the_model_that_the_earlier_ones_left(
    sequence: xr.Dataset, in_turn: Any
) -> None:
    first, second, found = in_turn
    for index, edit in enumerate((first, second)):
        assert_allclose(sequence.left[index], edit.deltas[0].left[:, 0], rtol=1e-6)
        assert_allclose(sequence.right[index], edit.deltas[0].right[:, 0], rtol=1e-6)
    assert not np.allclose(second.deltas[0].left, edit_of(1).deltas[0].left)
    assert sequence.step.values.tolist() == [0, 1, 2]
    held = np.array([one.efficacy.values for one in found])
    assert sequence.held[1].values.tolist()[0] == held[0, 0] and np.isnan(sequence.held[1, 1])
    assert sequence.held[2].values.tolist() == held[1].tolist()
    assert sequence.held_before.values.tolist() == (
        evaluate_edit(edit_toys.model(FAMILY), CASES).efficacy.values.tolist()
    )
    assert float(sequence.retention[2]) == held[1, 0]
    assert float(sequence.efficacy_latest[2]) == held[1, 1]
    assert float(sequence.paraphrase[2]) == float(found[1].paraphrase.mean())
    total = sum(edit.deltas[0].change() for edit in (first, second))
    assert float(sequence.cumulative_norm[2]) == pytest.approx(float(total.norm()), rel=1e-5)
    assert_allclose(sequence.largest_norm[1:], sequence.norm)


def test_drift_is_that_of_the_held_out_texts_and_decides_the_collapse(
    sequence: xr.Dataset, in_turn: Any
) -> None:
    model, (first, second, _) = edit_toys.model(FAMILY), in_turn
    reference = next_token_reference(model, TEXTS)
    with first.applied(model), second.applied(model, on_top=True):
        drift = prediction_drift(model, reference)
    assert float(sequence.drift[0]) == 0 and float(sequence.drift[2]) > 1e-3
    assert float(sequence.drift[2]) == pytest.approx(float(drift.kl.mean()), rel=1e-4)
    assert_allclose(sequence.text_nll_rise[2], drift.nll_change.mean("pos"), atol=1e-5)
    rise = float(sequence.nll_rise[2])
    for bound, collapsed in ((abs(rise) + 1, False), (max(rise - 1e-3, 0.0), rise > 1e-3)):
        again = sequential_edits(model, CASES, **OPTIONS | {"every": 2, "collapse_nll": bound})
        assert bool(again.collapsed[-1]) == collapsed
        assert again.attrs["collapse_step"] == (2 if collapsed else -1)
        assert again.step.values.tolist() == [0, 2]


def test_neighbours_that_are_edited_themselves_are_not_watched(sequence: xr.Dataset) -> None:
    near = aftermath.untouched(CASES, 9)
    assert [one.prompt for one in near] == ["The capital of Spain is"]  # Italy is edited, too
    assert sequence.attrs["watched_neighbours"] == 1
    found = evaluate_edit(edit_toys.model(FAMILY), CASES).success.sel(prompt_kind="neighbourhood")
    assert float(sequence.neighbourhood[0]) == float(found[0, 0])


def test_rome_divides_by_the_bare_prompts_key() -> None:
    result = sequential_edits(edit_toys.model(FAMILY), CASES[:1], **OPTIONS | {"variant": "rome"})
    edit = edit_of(0, "rome")
    towards, details = edit.deltas[0].right[:, 0], edit.details
    bare, mean = (float(details[name].values[0] @ towards) for name in ("key_bare", "key_mean"))
    assert float(result.division_ratio[0]) == pytest.approx(bare / mean) != 1
    assert float(result.smallest_division_ratio[1]) == pytest.approx(bare / mean)


def test_a_cancelled_sequence_hands_over_what_it_has_and_resumes(
    sequence: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, journal, before = edit_toys.model(FAMILY), Journal(), edit_toys.weights(FAMILY)
    partial: list[xr.Dataset] = []

    def stop(progress: Any) -> None:
        partial.append(progress.partial)
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        sequential_edits(model, CASES, progress=stop, journal=journal, **OPTIONS)
    assert edit_toys.untouched(FAMILY, before)
    assert_allclose(partial[0].drift[:2], sequence.drift[:2], atol=1e-6)
    assert partial[0].drift[2].isnull() and partial[0].norm[1].isnull()
    made, edit = [], edit_plan.rank_one_edit
    monkeypatch.setattr(edit_plan, "rank_one_edit", lambda *a, **k: made.append(1) or edit(*a, **k))
    xr.testing.assert_allclose(
        sequential_edits(model, CASES, journal=journal, **OPTIONS), sequence, atol=1e-6
    )
    assert len(made) == 1


def test_a_sequence_ends_where_an_edit_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    model, before = edit_toys.model(FAMILY), edit_toys.weights(FAMILY)
    edit, calls = edit_plan.rank_one_edit, []

    def second_fails(*args: Any, **options: Any) -> Edit:
        calls.append(1)
        if len(calls) == 2:
            raise ModelError("the edit makes weights infinite\nand so on")
        return edit(*args, **options)

    monkeypatch.setattr(edit_plan, "rank_one_edit", second_fails)
    result = sequential_edits(model, CASES, **OPTIONS)
    assert result.attrs["ended"] == "edit 2: the edit makes weights infinite"
    assert result.drift.notnull().values.tolist() == [True, True, False]
    assert edit_toys.untouched(FAMILY, before)


def test_batches_are_memits_edits_of_the_unedited_model() -> None:
    model, before = edit_toys.model(FAMILY), edit_toys.weights(FAMILY)
    settings = {**SETTINGS, "moment_weight": 5.0}
    options: Any = {"layers": [0, 1], "key_statistics": edit_toys.statistics(FAMILY)}
    result = batch_edits(model, CASES, sizes=[1, 2], settings=settings, texts=TEXTS, **options)
    assert edit_toys.untouched(FAMILY, before) and result.step.values.tolist() == [0, 1, 2]
    edit = memit(model, [case.request for case in CASES], **options, **settings)
    with edit.applied(model):
        found = evaluate_edit(model, CASES)
    assert result.held[2].values.tolist() == found.efficacy.values.tolist()
    assert float(result.cumulative_norm[2]) == pytest.approx(edit.norm, rel=1e-4)
    assert float(result.residual_error[2]) == pytest.approx(
        float(edit.details.error.isel(delta=-1).mean()), rel=1e-4
    )
    assert np.isnan(result.held[1, 1]) and float(result.drift[2]) > 0


@pytest.mark.parametrize(
    ("function", "changes", "reason"),
    [
        (sequential_edits, {"every": 0}, "every=0"),
        (sequential_edits, {"paraphrases": -1, "texts": [""]}, r"paraphrases=-1(.|\n)*texts"),
        (sequential_edits, {"texts": "one text"}, "texts are str"),
        (batch_edits, {"sizes": [2, 1], "layers": [7]}, r"sizes=\[2, 1\](.|\n)*layers \[7\]"),
        (batch_edits, {"sizes": [3], "settings": {"moment": 1}}, r"sizes=\[3\](.|\n)*'moment'"),
        (batch_edits, {"settings": {"kl_template": "is a", "contexts": "x"}}, "contexts='x'"),
    ],
)
def test_what_is_out_of_range_is_refused_at_once(
    function: Any, changes: dict[str, Any], reason: str
) -> None:
    options = OPTIONS if function is sequential_edits else edit_toys.options(FAMILY, layers=[0])
    with pytest.raises(OptionError, match=reason):
        function(edit_toys.model(FAMILY), CASES, **options | changes)


def test_held_out_texts_are_about_no_edited_subject() -> None:
    texts = aftermath._held_out(edit_toys.model(FAMILY), CASES, 0, count=3)
    assert len(set(texts)) == 3
    assert not any(case.request.subject in text for case in CASES for text in texts)
