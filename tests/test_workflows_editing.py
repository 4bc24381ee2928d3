"""Facts traced, edited, evaluated and traced again: each part is that of its own method."""

from typing import Any

import edit_toys
import numpy as np
import pytest
import xarray as xr
from edit_toys import CASES, SETTINGS, Journal
from numpy.testing import assert_allclose

from mechlab.errors import Cancelled, MechlabError, ModelError, OptionError, PromptError
from mechlab.methods import causal_trace, evaluate_edit, rank_one_edit
from mechlab.methods.evaluation import edit_summary
from mechlab.prompts import EditRequest, Fact, world_edits
from mechlab.store import Store
from mechlab.workflows import (
    as_edit_cases,
    edit_plan,
    edit_sweep,
    localize_edit_verify,
    swept_edit,
    trace_edit_agreement,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*answers have several tokens")
REQUEST = CASES[0].request
FACT = REQUEST.fact


@pytest.fixture(scope="module")
def sweep() -> xr.Dataset:
    return edit_sweep(edit_toys.model("gpt2"), CASES, layers=[2, 0], **edit_toys.options("gpt2"))


@pytest.fixture(scope="module", params=["neox", "mamba"])
def told(request: pytest.FixtureRequest) -> tuple[str, xr.Dataset, list[xr.Dataset]]:
    family, seen = str(request.param), []
    before = edit_toys.weights(family)
    story = localize_edit_verify(
        edit_toys.model(family), CASES, layers=[0, 1], samples=2,
        progress=lambda p: seen.append(p.partial), **edit_toys.options(family),
    )  # fmt: skip
    assert edit_toys.untouched(family, before)
    return family, story, seen


def single(family: str, case: int, layer: int) -> Any:
    return rank_one_edit(
        edit_toys.model(family), CASES[case].request, layer=layer,
        key_statistics=edit_toys.statistics(family), **SETTINGS,
    )  # fmt: skip


def test_a_swept_edit_is_the_single_edit_and_is_measured_alone(sweep: xr.Dataset) -> None:
    model = edit_toys.model("gpt2")
    assert sweep.layer.values.tolist() == [0, 2]
    for case, layer in ((0, 2), (1, 0)):
        edit, at = single("gpt2", case, layer), sweep.isel(case=case).sel(layer=layer)
        again = swept_edit(sweep, layer=layer, case=case)
        assert again.digest == edit.digest and again.requests == edit.requests
        assert float(at.norm) == pytest.approx(edit.norm)
        assert float(at.probability_new) == pytest.approx(
            float(edit.details.probability_new[0]), abs=1e-6
        )
        with again.applied(model):
            found = evaluate_edit(model, CASES[case])
        for name in ("efficacy", "paraphrase_magnitude", "neighbourhood_magnitude"):
            assert float(at[name]) == pytest.approx(float(found[name][0]), abs=1e-6), name
    before = evaluate_edit(model, CASES)
    assert_allclose(sweep.efficacy_magnitude_before, before.efficacy_magnitude)
    rise = sweep.probability_new - sweep.probability_new_before
    assert_allclose(sweep.rewrite_score, rise / (1 - sweep.probability_new_before), atol=1e-6)
    assert_allclose(sweep.division_ratio, 1)  # R-ROME: one key for both


def test_a_killed_sweep_goes_on_from_its_journal(
    sweep: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, journal, before = edit_toys.model("gpt2"), Journal(), edit_toys.weights("gpt2")
    partial: list[xr.Dataset] = []

    def stop(progress: Any) -> None:
        partial.append(progress.partial)
        if progress.done == 3:
            raise Cancelled("enough")

    options = edit_toys.options("gpt2", layers=[0, 2], journal=journal)
    with pytest.raises(Cancelled):
        edit_sweep(model, CASES, progress=stop, **options)
    assert edit_toys.untouched("gpt2", before) and len(journal) == 3
    assert int(partial[-1].efficacy.notnull().sum()) == 3
    made, edit = [], edit_plan.rank_one_edit
    monkeypatch.setattr(edit_plan, "rank_one_edit", lambda *a, **k: made.append(1) or edit(*a, **k))
    resumed = edit_sweep(model, CASES, **options)
    assert len(made) == 1
    xr.testing.assert_equal(resumed, sweep)
    for name, held in journal.items():  # as kept before `residual` was known
        journal[name] = np.concatenate([held[:10], held[12:]])
    older = edit_sweep(model, CASES, **options)
    assert len(made) == 1 and older.residual.isnull().all() and older.norm.equals(sweep.norm)


def test_the_story_holds_the_trace_of_the_model_before_and_after_its_edit(told: Any) -> None:
    family, story, _ = told
    model, writer = edit_toys.model(family), "mixer_out" if family == "mamba" else "mlp_out"
    options: dict[str, Any] = {
        "sites": [writer], "window": 1, "samples": 2, "known_only": False, "score": "target",
    }  # fmt: skip
    trace = causal_trace(model, [case.request.fact for case in CASES], **options)
    width = trace.sizes["pos"]
    ours = story.effect.sel(site=writer)
    assert_allclose(ours.sel(stage="before")[..., :width], trace.indirect_effect[:, 0], atol=1e-6)
    last = model.subject_positions(FACT)[1]
    assert_allclose(story.trace_effect[0], trace.indirect_effect[0, 0, :, last], atol=1e-6)
    with swept_edit(story).applied(model):
        again = causal_trace(model, Fact(FACT.prompt, FACT.subject, "Rome"), **options)
    after = ours.sel(stage="after")[0, :, : again.sizes["pos"]]
    assert_allclose(after, again.indirect_effect[0, 0], atol=1e-6)
    assert np.abs(after - ours.sel(stage="before")[0]).max() > 1e-4


def test_the_story_chooses_the_best_layer_and_evaluates_its_edits(told: Any) -> None:
    family, story, _ = told
    model, chosen = edit_toys.model(family), int(story.attrs["chosen_layer"])
    best = story.score.fillna(-1)
    assert float(best.sel(layer=chosen)) == float(best.max())
    assert story.chosen.values.tolist() == [layer == chosen for layer in story.layer.values]
    assert np.isnan(story.efficacy.sel(layer=2)).all(), "layer 2 was not to be edited"
    assert story.trace_effect.notnull().all(), "but traced"
    with swept_edit(story, case=1).applied(model):
        after = evaluate_edit(model, CASES[1])
    nll = story.nll.sel(stage="after")[1, :, : after.sizes["prompt"]]
    assert_allclose(nll, after.nll[0], atol=1e-5)
    assert_allclose(story.nll.sel(stage="before"), evaluate_edit(model, CASES).nll, atol=1e-6)
    summary = story.set_coords("metric").sel(metric="efficacy_magnitude")
    own = story.efficacy_magnitude.sel(layer=chosen)
    assert float(summary.summary_mean) == pytest.approx(float(own.mean()), abs=1e-6)
    assert float(summary.summary_before) == pytest.approx(
        float(edit_summary(evaluate_edit(model, CASES))["mean"].sel(metric="efficacy_magnitude"))
    )


def test_partial_stories_show_the_trace_first_then_edits_then_the_choice(told: Any) -> None:
    _, story, seen = told
    assert len(seen) == 3 + 2 * 3 and seen[-1].identical(story.assign_attrs(seen[-1].attrs))
    assert seen[0].trace_effect.equals(story.trace_effect)
    assert seen[0].attrs["chosen_layer"] == -1 and seen[0].efficacy.isnull().all()
    assert [int(one.efficacy.notnull().sum()) for one in seen[:5]] == [0, 1, 2, 3, 4]
    assert seen[0].summary_mean.isnull().all() and seen[0].summary_before.notnull().any()


def test_the_layer_is_the_one_asked_for_and_the_story_can_be_stored(tmp_path: Any) -> None:
    model, store = edit_toys.model("gpt2"), Store(tmp_path)
    options = edit_toys.options("gpt2", samples=2, layers=[0, 2], layer="trace")
    story = store.run(localize_edit_verify, model, CASES, **options)
    effect = story.trace_effect.mean("case").sel(layer=[0, 2])
    assert story.attrs["chosen_layer"] == int(effect.idxmax("layer"))
    assert store.find(method="localize_edit_verify")[0].labels == tuple(story["case"].values)
    again = store.run(localize_edit_verify, model, CASES, **options)
    assert again.identical(story) and swept_edit(again).digest == swept_edit(story).digest
    fact = Fact("Mary went to the", "Mary", "store")
    plain = localize_edit_verify(
        model, fact, "book", **edit_toys.options("gpt2", layer=2, layers=[2])
    )
    assert plain.attrs["chosen_layer"] == 2
    assert swept_edit(plain).requests == (EditRequest("{} went to the", "Mary", "book", "store"),)
    assert np.isnan(plain.paraphrase).all(), "no country of the table: its prompt alone"


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"layers": [0, 9], "variant": "best"}, OptionError, r"variant='best'(.|\n)*layers|layers"),
        ({"layer": 1, "layers": [0]}, OptionError, "layer=1"),
        ({"settings": {"stepps": 3}}, OptionError, "'stepps'"),
        ({"settings": {"clamp": -1.0, "steps": 0}}, OptionError, r"steps=0(.|\n)*clamp"),
        ({"samples": 0}, OptionError, "samples=0"),
        ({"tokens": 0, "seed": -1}, OptionError, r"tokens=0(.|\n)*seed=-1|seed=-1"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_run(
    changes: dict[str, Any], error: type[MechlabError], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = edit_toys.model("gpt2")
    monkeypatch.setattr(type(model.bridge), "forward", lambda *a, **k: pytest.fail("it ran"))
    with pytest.raises(error, match=reason):
        localize_edit_verify(model, CASES, **edit_toys.options("gpt2") | changes)


def test_a_model_that_is_edited_already_has_no_before() -> None:
    model = edit_toys.model("gpt2")
    with single("gpt2", 0, 1).applied(model), pytest.raises(ModelError, match="edited already"):
        edit_sweep(model, CASES, **edit_toys.options("gpt2"))


def test_cases_come_from_facts_requests_and_cases() -> None:
    request = world_edits(1, seed=3)[0]
    whole = as_edit_cases(request.fact, request.target)
    assert whole[0].request == request and whole[0].paraphrases and whole[0].neighbourhood
    assert as_edit_cases([request])[0] == whole[0] and as_edit_cases(whole[0])[0] is whole[0]
    twice = Fact("To Rome from Rome is", "Rome", "far", subject_start=13)
    assert as_edit_cases(twice, "near")[0].request == EditRequest(
        "To Rome from {} is", "Rome", "near", "far"
    )
    with pytest.raises(PromptError, match=r"#0 .*no new object(.|\n)*#1 .*no fact, request or"):
        as_edit_cases([FACT, "Poland"])
    with pytest.raises(PromptError, match="names its own"):
        as_edit_cases(REQUEST, "Paris")
    with pytest.raises(PromptError, match="2 new objects for 1"):
        as_edit_cases([FACT], ["Rome", "Paris"])
    with pytest.raises(PromptError, match="str 'Poland'"):
        as_edit_cases("Poland", "London")


def table(effect: np.ndarray, outcome: np.ndarray) -> xr.Dataset:
    cases = [f"Land{i}" for i in range(len(effect))]
    return xr.Dataset(
        {"trace_effect": (("case", "layer"), effect), "efficacy": (("case", "layer"), outcome)},
        {"subject": ("case", cases)},
    )


def test_agreement_tells_a_layers_share_from_a_facts() -> None:
    random = np.random.default_rng(0)
    layer = np.linspace(1, 0, 6) * np.ones((20, 1))
    fact, noise = random.normal(size=(2, 20, 6)) * 0.2

    def agreement(effect: np.ndarray, outcome: np.ndarray) -> xr.Dataset:
        found = table(effect, outcome)
        return trace_edit_agreement(found, outcomes=["efficacy"], resamples=60).isel(outcome=0)

    by_layer = agreement(layer + fact, layer + noise)
    assert float(by_layer.rank_over_layers_low) > 0.5 and float(by_layer.r2_layer) > 0.6
    assert float(by_layer.r2_added_high) < 0.05
    assert float(by_layer.rank_over_facts_low) < 0 < float(by_layer.rank_over_facts_high)
    by_fact = agreement(layer + fact, fact + 0.01 * noise)
    assert float(by_fact.r2_added_low) > 0.6 and float(by_fact.rank_over_facts) > 0.9
    assert float(by_fact.r2_added_shuffled) < 0.05
    assert float(by_fact.r2_both - by_fact.r2_layer) == pytest.approx(float(by_fact.r2_added))
    design = np.column_stack([np.tile(np.eye(6), (20, 1)), (layer + fact).ravel()])
    left = np.linalg.lstsq(design, (layer + noise).ravel(), rcond=None)[1][0]
    total = ((layer + noise - (layer + noise).mean()) ** 2).sum()
    assert float(by_layer.r2_both) == pytest.approx(1 - left / total)
    flat = agreement(layer, np.ones_like(layer))
    assert np.isnan(flat.rank_over_layers) and np.isnan(flat.r2_added)
