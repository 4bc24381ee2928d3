"""What `causal_trace` records, skips and refuses, and its averages over facts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mechlab.axes import TOKEN_ROLES
from mechlab.errors import Cancelled, OptionError, PromptError, SiteError
from mechlab.methods.tracing import average_indirect_effect, causal_trace
from mechlab.models import Model
from mechlab.progress import Progress
from mechlab.prompts import Fact, as_prompt_set
from mechlab.results import by_token_role, check_result, method_of

ToyModel = Callable[..., Model]
EIFFEL = Fact("The Eiffel Tower is located in the city of", "Eiffel Tower")
PARIS = Fact("Paris is the capital of", "Paris")
NEEDLE = Fact("w1 w2 born in Space Needle", "Space Needle")
UNKNOWN = Fact("Rome is the capital of", "Rome", "Italy")


def trace(model: Model, facts: Any = EIFFEL, **options: Any) -> xr.Dataset:
    return causal_trace(model, facts, **{"noise_std": 0.6, "samples": 2, **options})


def test_axes_coordinates_and_provenance(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    ours = trace(model, [EIFFEL, PARIS], sites=["resid_post", "attn_out"], seed=5)
    check_result(ours)
    assert ours.restored_probability.dims == ("prompt", "site", "layer", "pos", "sample")
    assert ours.restored_probability.shape == (2, 2, 3, 10, 2)
    assert ours.token[0].values.tolist() == ["<bos>", *EIFFEL.prompt.split()]
    assert ours.token[1].values.tolist() == ["<bos>", *PARIS.prompt.split(), "", "", "", ""]
    roles = ours.token_role[0].values.tolist()
    assert roles[1:6] == [
        "before_subject", "first_subject", "last_subject", "first_subsequent", "further",
    ]  # fmt: skip
    assert ours.token_role[1].values.tolist()[1:3] == ["only_subject", "first_subsequent"]
    assert ours.status.values.tolist() == ["ok", "ok"]
    assert ours.attrs["method"] == "causal_trace"
    assert ours.attrs["seed"] == 5
    assert ours.attrs["noise_std"] == 0.6
    effect = ours.clean_probability - ours.corrupted_probability.mean("sample")
    np.testing.assert_allclose(ours.total_effect, effect, atol=1e-7)
    effect = (ours.restored_probability - ours.corrupted_probability).mean("sample")
    np.testing.assert_allclose(
        ours.indirect_effect, effect.transpose(*ours.indirect_effect.dims), atol=1e-7
    )


def test_a_fact_that_the_model_does_not_know_is_skipped_with_its_reason(
    toy_model: ToyModel,
) -> None:
    model = toy_model("gpt2")
    ours = trace(model, [EIFFEL, UNKNOWN])
    assert ours.status[0].item() == "ok"
    assert ours.status[1].item().startswith("not known: expected 'Italy'")
    assert np.isfinite(ours.clean_probability).all()
    skipped = ours.isel(prompt=1)
    for name in ("restored_probability", "indirect_effect", "total_effect"):
        assert np.isnan(skipped[name]).all(), name
    kept = trace(model, [EIFFEL, UNKNOWN], known_only=False)
    assert kept.status.values.tolist() == ["ok", "ok"]
    assert np.isfinite(kept.total_effect).all()
    # Nothing computed for one fact depends on the others.
    alone = trace(model, EIFFEL)
    np.testing.assert_allclose(
        ours.restored_probability[0], alone.restored_probability[0], atol=1e-6
    )
    nobody = trace(model, UNKNOWN)
    assert np.isnan(nobody.restored_probability).all()


def test_the_target_may_be_scored_instead_of_the_prediction(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    ours = trace(model, UNKNOWN, score="target", known_only=False)
    assert ours.scored_token[0].item().strip() == "Italy"
    top = trace(model, UNKNOWN, known_only=False)
    assert float(ours.clean_probability[0]) < float(top.clean_probability[0])
    with pytest.raises(PromptError, match="have no target"):
        trace(model, EIFFEL, score="target")


def test_positions_and_layers_choose_cells_without_changing_them(toy_model: ToyModel) -> None:
    model = toy_model("neox")
    every = trace(model, [EIFFEL, NEEDLE]).indirect_effect
    subject = trace(model, [EIFFEL, NEEDLE], positions="subject", layers=[2, 0]).indirect_effect
    assert subject.layer.values.tolist() == [2, 0]
    for row, traced in ((0, [2, 3]), (1, [5, 6])):
        there = np.flatnonzero(subject[row].notnull().any(["site", "layer"]))
        assert there.tolist() == traced
        np.testing.assert_allclose(
            subject[row][..., traced], every[row].sel(layer=[2, 0])[..., traced], atol=1e-6
        )


def test_a_shorter_other_subject_leaves_cells_of_its_missing_tokens_empty(
    toy_model: ToyModel,
) -> None:
    ours = trace(
        toy_model("gpt2"),
        EIFFEL,
        corruption="interchange",
        other_subjects={"Eiffel Tower": ["river", "Big Ben"]},
    ).isel(prompt=0, site=0)
    assert np.isnan(ours.restored_probability.isel(pos=2, sample=0)).all()
    assert np.isfinite(ours.restored_probability.isel(pos=2, sample=1)).all()
    only_long = ours.restored_probability.isel(sample=1) - ours.corrupted_probability[1]
    np.testing.assert_allclose(ours.indirect_effect.isel(pos=2), only_long.isel(pos=2), atol=1e-7)


def test_averages_pool_tokens_over_the_facts_that_were_traced(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    ours = trace(model, [EIFFEL, PARIS, UNKNOWN, NEEDLE])
    averages = average_indirect_effect(ours, resamples=50)
    assert int(averages.n) == 3
    known = ours.isel(prompt=[0, 1, 3])
    roles = known.token_role.values
    for role, count_also in (("last_subject", ["only_subject"]), ("further", [])):
        member = np.isin(roles, [role, *count_also])
        expected = known.indirect_effect.values[:, 0].transpose(0, 2, 1)[member].mean(0)
        got = averages.average_indirect_effect.sel(token_role=role).isel(site=0)
        np.testing.assert_allclose(got, expected, atol=1e-6)
    assert averages.sizes["token_role"] == len(TOKEN_ROLES)
    mean = float(known.total_effect.mean())
    assert float(averages.average_total_effect) == pytest.approx(mean, abs=1e-7)
    low, high = averages.average_total_effect_low, averages.average_total_effect_high
    assert float(low) <= mean <= float(high)
    per_prompt = by_token_role(known.indirect_effect, "per_prompt").mean("prompt")
    again = average_indirect_effect(ours, average="per_prompt", resamples=50)
    np.testing.assert_allclose(again.average_indirect_effect, per_prompt, atol=1e-7)
    with pytest.raises(OptionError, match="none of 1 facts was traced"):
        average_indirect_effect(trace(model, UNKNOWN))
    with pytest.raises(OptionError, match="cluster has 3 labels for 4 facts"):
        average_indirect_effect(ours, cluster=["a", "a", "b"])
    with pytest.raises(OptionError, match="Pass the Dataset itself"):
        average_indirect_effect(ours[["clean_probability"]])


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"sites": ["resid_mid"]}, SiteError, "resid_mid"),
    ({"sites": []}, SiteError, "none given"),
    ({"sites": ["attn_out", "attn_out"]}, SiteError, "given twice"),
    ({"layers": [3]}, SiteError, "layers go from 0 to 2"),
    ({"layers": []}, SiteError, "layers go from 0 to 2"),
    ({"sever": "mixer"}, SiteError, "mixer_out"),
    ({"sever": "head"}, OptionError, "Allowed: none, mlp, attn, mixer"),
    ({"window": 0}, OptionError, "window=0"),
    ({"positions": "first"}, OptionError, "all, subject, last_subject"),
    ({"samples": 0}, OptionError, "1 or more"),
    ({"noise_std": -1.0}, OptionError, "noise_std"),
    ({"noise_std": None, "noise_scale": float("nan")}, OptionError, "noise_scale"),
    ({"corruption": "mask"}, OptionError, "gaussian, interchange"),
    ({"score": "best"}, OptionError, "top, target"),
    ({"noise_std": None, "reference": []}, OptionError, "reference"),
    ({"mode": "fast"}, OptionError, "mode='fast'"),
    ({"layers": 1}, OptionError, "layers=1"),
    ({"sites": None}, OptionError, "sites=None"),
    ({"sever": ["mlp"]}, OptionError, "sever="),
    ({"samples": "3"}, OptionError, "samples='3'"),
    ({"seed": None}, OptionError, "seed=None"),
    ({"seed": 1.5}, OptionError, "seed=1.5"),
    ({"max_batch": 0}, OptionError, "max_batch=0"),
    ({"noise_scale": "3"}, OptionError, "noise_scale='3'"),
    ({"noise_std": 1e300}, OptionError, "no longer numbers"),
    ({"known_only": "no"}, OptionError, "known_only='no'"),
    ({"corruption": "interchange", "other_subjects": ["Ann"]}, OptionError, "list of names"),
    (  # a text would be taken letter by letter
        {"corruption": "interchange", "other_subjects": {"Eiffel Tower": "Space Needle"}},
        OptionError,
        "list of names per subject",
    ),
    (
        {"corruption": "interchange", "other_subjects": {"Eiffel Tower": ["Ann"]}},
        PromptError,
        "2 other subjects are needed",
    ),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED, ids=lambda value: str(value))
def test_options_outside_their_range_are_refused(
    options: dict[str, Any], error: type[Exception], message: str, toy_model: ToyModel
) -> None:
    with pytest.raises(error, match=message):
        trace(toy_model("neox"), EIFFEL, **options)


def test_other_subjects_that_do_not_fit_are_named_before_any_forward_pass(
    toy_model: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mechlab.engine.next_tokens", lambda *_: pytest.fail("a forward pass"))
    others = {"Eiffel Tower": ["Ann", "Bob"], PARIS.subject: ["Bob", "Zanzibar"]}
    with pytest.raises(PromptError, match=r"has no token for 'Zanzibar'"):
        trace(toy_model("gpt2"), [EIFFEL, PARIS], corruption="interchange", other_subjects=others)


def test_another_subject_that_merges_with_what_follows_is_refused(toy_model: ToyModel) -> None:
    fact = Fact("The capital of Fran is", "Fr")  # " " + "F" + "r" + "an", but " Paris" + "an"
    with pytest.raises(PromptError, match=r"(?s)1 of 1 prompts.*Parisan.*Name whole words"):
        trace(
            toy_model("gpt2", "bpe"),
            fact,
            corruption="interchange",
            other_subjects={"Fr": ["Paris"]},
            samples=1,
        )


def test_prompts_that_do_not_fit_are_all_named_at_once(toy_model: ToyModel) -> None:
    facts = [Fact("Zanzibar is in", "Zanzibar"), EIFFEL, Fact("Timbuktu is in", "Timbuktu")]
    with pytest.raises(PromptError, match=r"(?s)#0.*Zanzibar.*#2.*Timbuktu"):
        trace(toy_model("gpt2"), facts)


def test_progress_is_reported_and_may_stop_the_run(toy_model: ToyModel) -> None:
    model, seen = toy_model("gpt2"), []
    trace(model, [EIFFEL, PARIS], progress=seen.append, max_batch=20)
    assert len(seen) > 1
    assert [report.done for report in seen] == sorted(report.done for report in seen)
    assert seen[-1].done == seen[-1].total
    partial = seen[0].partial
    assert partial is not None
    assert partial.sizes["prompt"] == 2
    assert np.isnan(partial.restored_probability).sum() > 0

    def stop(report: Progress) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        trace(model, EIFFEL, progress=stop)
    after = trace(model, EIFFEL)  # the model is as it was found
    np.testing.assert_array_equal(
        after.corrupted_probability, trace(model, EIFFEL).corrupted_probability
    )


def test_facts_may_be_one_a_list_or_a_prompt_set(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    alone, listed = trace(model, PARIS), trace(model, [PARIS])
    in_set = trace(model, as_prompt_set([PARIS]))
    for other in (listed, in_set):
        np.testing.assert_array_equal(alone.restored_probability, other.restored_probability)


@pytest.mark.parametrize(("options", "error", "message"), REFUSED, ids=lambda value: str(value))
def test_the_check_that_an_estimate_makes_refuses_the_same(
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    toy_model: ToyModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = toy_model("neox")
    check = method_of(causal_trace).check
    assert check is not None
    given = {"noise_std": 0.6, "samples": 2, **options}
    for runs in ("next_tokens", "run", "verify", "embed_texts"):
        monkeypatch.setattr(f"mechlab.engine.{runs}", lambda *_, **__: pytest.fail("it ran"))
    if message == "no longer numbers":  # only a run can tell
        check(model, [EIFFEL], **given)
        return
    with pytest.raises(error, match=message):
        check(model, [EIFFEL], **given)


def test_numpy_integers_are_integers(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    given = {"samples": 2, "seed": 3, "window": 2, "layers": [0, 2], "max_batch": 8}
    numbers: dict[str, Any] = {**given, "layers": list(np.array([0, 2]))}
    numbers |= {name: np.int64(given[name]) for name in ("samples", "seed", "window", "max_batch")}
    ours, plain = (trace(model, EIFFEL, sites=["mlp_out"], **o) for o in (numbers, given))
    np.testing.assert_array_equal(ours.restored_probability, plain.restored_probability)
    for name in ("options", "seed", "window"):
        assert ours.attrs[name] == plain.attrs[name]
        assert type(ours.attrs[name]) is type(plain.attrs[name])
