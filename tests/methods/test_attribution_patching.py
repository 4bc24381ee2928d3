"""Attribution patching: a derivative, an integral that adds up, and a model left as found."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from mechlab import engine
from mechlab.engine import Base, Row
from mechlab.errors import ModelError, OptionError
from mechlab.hooks import Insert, Site
from mechlab.methods import activation_patch, attribution_patch
from mechlab.metrics import logit_diff
from mechlab.models import Model
from mechlab.prompts import PromptPair

ToyModel = Callable[..., Model]
PARIS = PromptPair(
    "Paris is the capital of France w1", "Rome was by tower near Italy w7", "Paris", "Rome"
)
ANN = PromptPair("Ann was born in", "Bob speaks from in", "Madrid", "Cairo")
PAIRS = [PARIS, ANN]
SITES = {
    "gpt2": ["z", "q", "k", "v", "attn_out", "mlp_out", "resid_pre", "resid_mid", "resid_post"],
    "neox": ["z", "mlp_out", "resid_pre"],
    "llama": ["z", "k", "v", "resid_mid"],
    "mamba": ["mixer_out", "resid_pre"],
    "mamba2": ["mixer_out"],
}
CASES = [(family, site) for family, sites in SITES.items() for site in sites]


def axis_of(site: str) -> str:
    return {"z": "head", "q": "head", "k": "kv_head", "v": "kv_head"}.get(site, "layer")


def values(model: Model, text: str, site: str, layer: int) -> Tensor:
    (recording,) = engine.record(model, [Base(text)], [(site, layer)])
    return recording.values[site, layer]


@pytest.mark.parametrize(("family", "site"), CASES)
def test_the_estimate_is_the_derivative_along_the_patch(
    family: str, site: str, toy_model: ToyModel
) -> None:
    """Central differences of the exact metric, at 2 % and 4 % of the patch either way."""
    model, step = toy_model(family), 0.02
    by, layer, head = axis_of(site), 1, 1
    ours = attribution_patch(model, PAIRS, site=site, by=by, layers=[layer])  # type: ignore[arg-type]
    for index, pair in enumerate(PAIRS):
        here = values(model, pair.corrupted, site, layer)
        there = values(model, pair.clean, site, layer)
        at = Site(site, layer, None if by == "layer" else head)
        both = torch.stack([here + k * step * (there - here) for k in (1, -1, 2, -2)])
        both = both if by == "layer" else both[:, :, head]
        word = model.tokenizer.convert_tokens_to_ids
        read = engine.run(
            model,
            [Base(pair.corrupted)],
            [Row(0, (Insert(at, "moved", i),)) for i in range(4)],
            read="logit_diff",
            answers=[(word(pair.answer), word(pair.wrong_answer))],
            banks={"moved": both},
        ).rows
        slope = (8 * (read[0] - read[1]) - (read[2] - read[3])) / (12 * step)
        cell = ours.effect[index] if by == "layer" else ours.effect.sel({by: head})[index]
        assert float(cell.squeeze()) == pytest.approx(slope, rel=5e-3, abs=3e-4)


@pytest.mark.parametrize(
    ("family", "site", "direction"),
    [(f, s, "denoising") for f, s in CASES if s in ("z", "mixer_out")]
    + [
        ("gpt2", "pattern", "noising"),
        ("llama", "k", "noising"),
        ("llama", "resid_mid", "noising"),
    ],
)
def test_integrated_gradients_of_a_layer_add_up_to_its_exact_patch(
    family: str, site: str, direction: str, toy_model: ToyModel
) -> None:
    """The error falls with the square of the steps, as the midpoint rule promises."""
    model, by = toy_model(family), "head" if site == "pattern" else axis_of(site)
    options: dict[str, Any] = {"site": site, "direction": direction}
    exact = activation_patch(model, PAIRS, by="layer", **options).effect

    def error(steps: int) -> float:
        parts = attribution_patch(model, PAIRS, by=by, steps=steps, **options).effect  # type: ignore[arg-type]
        return float(np.abs(parts.sum(set(parts.dims) - {"prompt", "layer"}) - exact).max())

    coarse, fine = error(6), error(24)
    assert fine < 1e-2
    assert fine < coarse / 6 or fine < 1e-4
    assert float(np.abs(exact).max()) > 0.05


@pytest.mark.parametrize("site", ["z", "v", "pattern"])
def test_positions_add_up_and_can_be_chosen(site: str, toy_model: ToyModel) -> None:
    model, by = toy_model("llama"), "kv_head" if site == "v" else "head"

    def estimate(positions: Any) -> Any:
        return attribution_patch(model, PAIRS, site=site, by=by, positions=positions).effect  # type: ignore[arg-type]

    each = estimate("each")
    assert_allclose(each.sum("pos"), estimate("all"), atol=2e-6)
    assert_allclose(each[0].isel(pos=[2, -1]).sum("pos"), estimate([2, -1])[0], atol=2e-6)
    assert_allclose(each[1].isel(pos=4), estimate("last")[1], atol=2e-6)


def test_prompts_of_different_length_correspond_from_the_end(toy_model: ToyModel) -> None:
    """Near the corrupted run the estimate is the exact effect: here both end in the same words."""
    model = toy_model("gpt2")
    pair = PromptPair("Ann was born in", "When Bob was born in", "Madrid", "Cairo")
    exact = activation_patch(model, pair, site="mlp_out", by="layer", positions="last")
    guess = attribution_patch(model, pair, site="mlp_out", by="layer", positions="last", steps=64)
    assert_allclose(guess.effect, exact.effect, atol=1e-3)
    assert float(np.abs(exact.effect).min()) > 1e-3


def test_batches_and_company_change_nothing(family: str, toy_model: ToyModel) -> None:
    model = toy_model(family)
    options: Any = {"site": SITES[family][0], "by": axis_of(SITES[family][0]), "steps": 2}
    many = [PARIS, ANN, PARIS, ANN, ANN, PARIS]
    together = attribution_patch(model, many, **options)
    for index, pair in enumerate(many[:2]):
        alone = attribution_patch(model, pair, **options)
        assert_allclose(alone.effect[0], together.effect[index], atol=5e-6)
    exact = activation_patch(model, PAIRS, **{k: v for k, v in options.items() if k != "steps"})
    assert_allclose(together.clean_metric[:2], exact.clean_metric, atol=2e-6)
    assert_allclose(together.corrupted_metric[:2], exact.corrupted_metric, atol=2e-6)


def own_metric(logits: Tensor, answers: Tensor) -> Tensor:
    """Twice the logit difference."""
    return 2 * logit_diff(logits, answers)


def test_any_smooth_metric_will_do(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    once, twice = (
        attribution_patch(model, PAIRS),
        attribution_patch(model, PAIRS, metric=own_metric),
    )
    assert_allclose(twice.effect, 2 * once.effect.values, rtol=1e-4, atol=1e-6)
    assert twice.effect.attrs["units"] == "own_metric"


def test_the_model_is_left_as_it_was_found(family: str, toy_model: ToyModel) -> None:
    model = toy_model(family)
    site = SITES[family][0]
    hooks = [len(point.fwd_hooks) for point in model.bridge.hook_dict.values()]
    options: Any = {"site": site, "by": axis_of(site), "steps": 2}
    outside = attribution_patch(model, PAIRS, **options)
    for switched_off in (torch.no_grad(), torch.inference_mode()):
        with switched_off:  # gradients are switched on inside, whatever holds outside
            inside = attribution_patch(model, PAIRS, **options)
            assert not torch.is_grad_enabled()
        assert_allclose(inside.effect, outside.effect, atol=1e-6)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert all(p.grad is None and not p.requires_grad for p in model.hf.parameters())
    assert [len(point.fwd_hooks) for point in model.bridge.hook_dict.values()] == hooks


def test_a_model_made_under_inference_mode_is_refused_with_the_reason(
    fresh_model: ToyModel,
) -> None:
    with torch.inference_mode():
        model = fresh_model("llama")
    with pytest.raises(ModelError, match="Load the model outside"):
        attribution_patch(model, PAIRS)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mamba"])
def test_a_fresh_model_first_used_under_inference_mode_has_gradients(
    family: str, fresh_model: ToyModel
) -> None:
    model, by = fresh_model(family), axis_of(SITES[family][0])
    with torch.inference_mode():
        first = attribution_patch(model, PAIRS, site=SITES[family][0], by=by)  # type: ignore[arg-type]
    again = attribution_patch(model, PAIRS, site=SITES[family][0], by=by)  # type: ignore[arg-type]
    assert_allclose(first.effect, again.effect, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"metric": "rank"}, "no gradient"),
        ({"metric": "kl_divergence"}, "no gradient"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 1.5}, "steps=1.5"),
        ({"site": "scores"}, "site='scores'"),
    ],
)
def test_what_has_no_estimate_is_refused(
    options: dict[str, Any], reason: str, toy_model: ToyModel
) -> None:
    with pytest.raises(OptionError, match=reason):
        attribution_patch(toy_model("gpt2"), PAIRS, **options)
