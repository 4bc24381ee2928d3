"""Options that several methods read in the same way: positions, token groups, metrics, targets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import mechlab as ml

ToyModel = Callable[..., ml.Model]
PAIR = ml.prompts.PromptPair("The capital of Italy is", "The capital of Spain is", "Rome", "Madrid")


def test_one_token_named_from_both_ends_is_refused(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    length = len(model.token_strings(PAIR.clean))
    for call in (
        lambda at: ml.scale_heads(model, PAIR, heads=["L1H2"], alpha=[2.0], positions=at),
        lambda at: ml.attribution_patch(model, PAIR, positions=at),
        lambda at: ml.ablate(model, PAIR, positions=at),
    ):
        with pytest.raises(ml.PromptError, match="name one token twice in 1 of 1 prompts"):
            call([length - 1, -1])
        one = call(np.array([length - 1]))
        xr.testing.assert_allclose(one.effect, call([-1]).effect)


def test_facts_without_targets_are_ablated_by_divergence(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    fact = ml.prompts.Fact("The capital of France is", "France")
    found = ml.ablate(model, fact, metric="kl_divergence")
    assert float(found.effect.max()) > 0
    assert ml.logit_lens(model, fact).probability.notnull().any()


@pytest.mark.parametrize("keys", [[], {"a": []}, {"a": np.array([], int)}])
def test_an_edge_set_without_tokens_is_refused(keys: object, toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    fact = ml.prompts.Fact("The capital of France is", "France", "Paris")
    with pytest.raises(ml.OptionError, match="holds no token"):
        ml.knockout(model, fact, keys=keys)
    with pytest.raises(ml.OptionError, match="holds no token"):
        ml.knockout(model, fact, keys="subject", queries=[])
    given = ml.knockout(model, fact, keys=np.array([1, 2]))
    assert given.effect.equals(ml.knockout(model, fact, keys=[1, 2]).effect)


def test_a_metric_that_is_neither_name_nor_function_is_refused(toy_model: ToyModel) -> None:
    for metric in (None, 3):
        with pytest.raises(ml.OptionError, match="unknown metric"):
            ml.activation_patch(toy_model("gpt2"), PAIR, metric=metric)


def test_a_stored_result_comes_in_the_order_that_was_asked_for(
    toy_model: ToyModel, tmp_path: Path
) -> None:
    store, model = ml.Store(tmp_path), toy_model("gpt2")
    sets = {"late": ["L2H1"], "early": ["L0H0", "L0H1"]}
    turned = dict(reversed(sets.items()))
    for wanted in (sets, turned, sets):
        found = store.run(ml.ablate, model, [PAIR], by="set", heads=wanted)
        direct = ml.ablate(model, [PAIR], by="set", heads=wanted)
        assert found.head_set.values.tolist() == list(wanted)
        xr.testing.assert_allclose(found.effect, direct.effect)


N = np.int64
NUMPY: list[tuple[Any, dict[str, Any]]] = [
    (ml.attribution_patch, {"steps": N(2), "layers": np.array([1])}),
    (ml.activation_patch, {"layers": np.array([1]), "max_batch": N(3), "epsilon": np.float32(0.5)}),
    (ml.ablate, {"kind": "resample", "reference": [PAIR], "draws": N(1), "seed": N(2)}),
    (
        ml.scale_heads,
        {"heads": ["L1H1"], "alpha": np.array([0, 2]), "controls": N(1), "seed": N(1)},
    ),
    (ml.knockout, {"keys": np.array([1]), "window": N(2), "layers": np.array([1])}),
    (ml.logit_lens, {"top_k": N(3), "max_batch": N(2)}),
    (ml.self_repair, {"kind": "resample", "reference": [PAIR], "draws": N(1), "layers": [N(1)]}),
    (ml.prune_heads, {"heads": {"a": ["L1H1"]}, "k": np.array([1]), "controls": N(1)}),
    (ml.conflict_heads, {"seed": N(1), "noise_scale": N(3)}),
    (ml.screen_then_verify, {"k": N(2), "sample": N(3), "seed": N(1), "steps": N(2)}),
    (ml.direct_logit_attribution, {"max_batch": N(1)}),
]


@pytest.mark.parametrize(("method", "options"), NUMPY, ids=lambda one: getattr(one, "__name__", ""))
def test_numbers_of_numpy_do_what_those_of_python_do(
    method: Any, options: dict[str, Any], toy_model: ToyModel
) -> None:
    model = toy_model("gpt2")
    plain = {n: v.tolist() if hasattr(v, "tolist") else v for n, v in options.items()}
    ours, theirs = method(model, PAIR, **options), method(model, PAIR, **plain)
    xr.testing.assert_equal(ours, theirs)
    assert ours.attrs["seed"] == theirs.attrs["seed"]
    for name in {"steps", "draws", "controls", "window", "top_k", "sample", "max_batch"} & {*plain}:
        with pytest.raises(ml.OptionError, match=f"{name}=True"):
            method(model, PAIR, **{**plain, name: True})


HEADS: list[tuple[Any, dict[str, Any]]] = [
    (ml.activation_patch, {"metric": "vibes"}),
    (ml.attribution_patch, {"metric": "rank"}),
    (ml.ablate, {"kind": "mean"}),
    (ml.scale_heads, {"heads": ["L0H0"], "alpha": []}),
    (ml.knockout, {"keys": "last", "cut": "both"}),
    (ml.conflict_heads, {"noise_scale": -1}),
    (ml.prune_heads, {"heads": {"a": ["L0H0"]}, "k": [3]}),
    (ml.direct_logit_attribution, {}),
    (ml.token_lens, {"groups": ["nowhere"]}),
    (ml.screen_then_verify, {"k": 0}),
]


@pytest.mark.parametrize(("method", "options"), HEADS, ids=lambda one: getattr(one, "__name__", ""))
def test_that_a_recurrent_model_has_no_heads_is_said_first_and_before_any_run(
    method: Any, options: dict[str, Any], runs_nothing: Callable[[str], ml.Model]
) -> None:
    with pytest.raises(ml.SiteError, match="recurrent and has no attention .* Allowed: "):
        method(runs_nothing("mamba"), PAIR, **options)


LATE: list[tuple[Any, dict[str, Any], str]] = [
    (ml.screen_then_verify, {"max_batch": 0}, "max_batch=0"),
    (
        ml.activation_patch,
        {"site": "mixer_out", "by": "layer"},
        "gpt2 blocks have no such site .*Allowed",
    ),
    (ml.logit_lens, {"sites": ["mixer_out"]}, "have no such site"),
    *(
        (method, {"interventions": given}, reason)
        for method in (ml.logit_lens, ml.direct_logit_attribution)
        for given, reason in (
            (3, "interventions=3. Allowed: a list"),
            (["L0H0"], r"interventions=\['L0H0'\]"),
            ([ml.Ablate(ml.Site("z", 9, 0))], "layer 9 of 'z'"),
            ([ml.Ablate(ml.Site("mlp_out", 0, pos=99))], "position 99 lies outside"),
        )
    ),
]


@pytest.mark.parametrize(("method", "options", "reason"), LATE)
def test_what_is_wrong_is_said_before_any_run(
    method: Any, options: dict[str, Any], reason: str, runs_nothing: Callable[[str], ml.Model]
) -> None:
    with pytest.raises(ml.MechlabError, match=reason):
        method(runs_nothing("gpt2"), PAIR, **options)


@pytest.fixture
def runs_nothing(fresh_model: ToyModel) -> Callable[[str], ml.Model]:
    """A model that was never verified and fails the test when it runs."""

    def refuse(*args: Any) -> None:
        raise AssertionError("the model was run")

    def made(family: str) -> ml.Model:
        model = fresh_model(family)
        model.bridge.register_forward_pre_hook(refuse)
        model.hf.register_forward_pre_hook(refuse)
        return model

    return made
