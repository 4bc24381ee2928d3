"""Head scaling: identities to the bit, closed forms, outcomes that add up, and controls."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import toys
from circuits import made
from numpy.testing import assert_allclose, assert_array_equal
from oracles.plain import plain_run

from mechlab import engine
from mechlab.axes import Head
from mechlab.engine import Base
from mechlab.errors import OptionError, SiteError
from mechlab.hooks import Scale, Site
from mechlab.methods import ablate, scale_heads
from mechlab.models import Model, random_heads
from mechlab.prompts import PromptPair
from mechlab.store import Store

ToyModel = Callable[..., Model]
PARIS = PromptPair(
    "Paris is the capital of France w1", "Rome was by tower near Italy w7", "Paris", "Rome"
)
ANN = PromptPair("Ann was born in", "Bob was born in", "Madrid", "Cairo")
PAIRS = [PARIS, ANN]
LAST = toys.N_LAYERS - 1
TEXT = PARIS.clean


def recorded(model: Model, place: tuple[str, int], *steps: Scale) -> torch.Tensor:
    (found,) = engine.record(model, [Base(TEXT, steps)], [place])
    return found.values[place]


def test_times_one_is_the_same_run_to_the_bit(attention_family: str, toy_model: ToyModel) -> None:
    model = toy_model(attention_family)
    ours = scale_heads(model, PAIRS, heads=["L1H2"], alpha=[1.0, 2.0])
    assert_array_equal(ours.effect.sel(alpha=1.0), 0)
    assert_array_equal(ours.logit_diff.sel(alpha=1.0)[:, 0], ours.unscaled_logit_diff)
    # Not only because nothing is run for it: the hook itself changes no bit.
    scaled = plain_run(model, TEXT, [Scale(Site("z", 1, 2), 1.0)]).logits
    assert torch.equal(scaled, plain_run(model, TEXT).logits)
    assert float(np.abs(ours.effect.sel(alpha=2.0)).max()) > 1e-3


@pytest.mark.parametrize("positions", ["all", "last"])
def test_times_zero_is_zero_ablation(
    positions: Any, attention_family: str, toy_model: ToyModel
) -> None:
    model, names = toy_model(attention_family), ["L0H1", "L1H2", "L2H3"]
    ours = scale_heads(model, PAIRS, heads=names, alpha=[0], positions=positions)
    zero = ablate(model, PAIRS, heads=names, positions=positions)
    for name in names:
        layer, head = int(name[1]), int(name[3])
        expected = zero.effect.sel(layer=layer, head=head)
        assert_allclose(ours.effect.sel(head_set=name, alpha=0), expected, atol=1e-5)
        assert float(np.abs(expected).max()) > 1e-4


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_with_a_frozen_norm_the_last_layers_logits_are_linear_and_the_slope_is_the_direct_effect(
    family: str,
) -> None:
    """The norms of this circuit divide by a constant, which is what freezing them means."""
    circuit = made("conflict", family)
    grid = [-3.0, -1.0, 0.0, 1.0, 2.5]
    sets = {role: [head] for role, head in circuit.heads.items()}
    ours = scale_heads(circuit.model, circuit.pairs, heads=sets, alpha=grid)
    for role in circuit.heads:
        for factor in grid:
            expected = (factor - 1) * np.array(circuit.direct[role])
            found = ours.effect.sel(head_set=role, alpha=factor)
            assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("layer", range(toys.N_LAYERS))
def test_the_pattern_of_the_layer_stays_and_so_do_the_other_heads(
    layer: int, attention_family: str, toy_model: ToyModel
) -> None:
    """Under grouped queries as well: `z` belongs to one query head, its value to a group."""
    model, step = toy_model(attention_family), Scale(Site("z", layer, 2), -1.5)
    assert torch.equal(
        recorded(model, ("pattern", layer), step), recorded(model, ("pattern", layer))
    )
    before, after = recorded(model, ("z", layer)), recorded(model, ("z", layer), step)
    siblings = [head for head in range(toys.N_HEADS) if head != 2]
    assert torch.equal(after[:, siblings], before[:, siblings])
    assert torch.equal(after[:, 2], -1.5 * before[:, 2])
    if layer < LAST:
        later = ("pattern", layer + 1)
        assert not torch.equal(recorded(model, later, step), recorded(model, later))


def test_scaling_values_is_scaling_all_heads_of_their_group(toy_model: ToyModel) -> None:
    """On GPT-2 a group is one head; on Llama a value of the last layer belongs to two."""
    for family, group in (("gpt2", [1]), ("llama", [2, 3])):
        model = toy_model(family)
        ours = scale_heads(
            model, PARIS, heads=[Head(LAST, h) for h in group], alpha=[-2], together=True
        )
        step = Scale(Site("v", LAST, 1), -2.0)
        logits = plain_run(model, TEXT, [step]).logits[-1]
        word = model.tokenizer.convert_tokens_to_ids
        expected = float(logits[word("Paris")] - logits[word("Rome")])
        assert float(ours.logit_diff.squeeze()) == pytest.approx(expected, abs=1e-5)


def test_shares_add_up_and_follow_the_most_probable_token(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    ours = scale_heads(model, PAIRS, heads=["L0H1", "L2H0"], alpha=[-4, 0, 4])
    assert_array_equal(ours.share.sum("outcome"), 1)
    assert ours.outcome.values.tolist() == ["in_context", "memorised", "other"]
    step = Scale(Site("z", 0, 1), -4.0)
    top = int(plain_run(model, ANN.clean, [step]).logits[-1].argmax())
    found = ours.top_token.sel(head_set="L0H1", alpha=-4)[1].item()
    assert found == model.token_string(top)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_turning_the_copy_head_down_hands_the_answer_to_memory(family: str) -> None:
    """Context 3 a - 0.5 against memory 2: the winner changes at a = 5/6."""
    circuit = made("conflict", family)
    copy = circuit.heads["copy"]
    ours = scale_heads(
        circuit.model, circuit.pairs, heads=[copy], alpha=[-1, 0, 0.7, 1, 2], controls=2, seed=1
    )
    share = ours.share.sel(head_set=str(copy)).mean("prompt")
    assert share.sel(outcome="in_context").values.tolist() == [0, 0, 0, 1, 1]
    assert share.sel(outcome="memorised").values.tolist() == [1, 1, 1, 0, 0]
    others = ours.isel(head_set=ours.is_control.values)
    quiet = [name for name in others.members.values if name != str(circuit.heads["fact"])]
    assert quiet
    for name in quiet:
        assert_array_equal(
            others.effect.isel(head_set=others.members.values.tolist().index(name)), 0
        )


def test_controls_come_from_the_same_layers_and_are_named(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    options: Any = {"heads": {"pair": ["L0H1", "L2H2"]}, "alpha": [0], "controls": 3}
    ours = scale_heads(model, PAIRS, **options)
    assert ours.head_set.values.tolist() == ["pair", *(f"pair control {i}" for i in range(3))]
    assert ours.is_control.values.tolist() == [False, True, True, True]
    assert ours.control_of.values.tolist() == ["", "pair", "pair", "pair"]
    for members in ours.members.values[1:]:
        layers = [name[1] for name in members.split("+")]
        assert layers == ["0", "2"]
        assert "L0H1" not in members and "L2H2" not in members
    again = scale_heads(model, PAIRS, **options)
    assert again.members.values.tolist() == ours.members.values.tolist()
    other = scale_heads(model, PAIRS, **{**options, "seed": 5})
    assert other.members.values.tolist() != ours.members.values.tolist()


def test_a_set_is_scaled_together(toy_model: ToyModel) -> None:
    model, group = toy_model("neox"), ["L0H1", "L1H2"]
    ours = scale_heads(model, ANN, heads=group, alpha=[2], together=True)
    assert ours.head_set.values.tolist() == ["L0H1+L1H2"]
    steps = [Scale(Site("z", 0, 1), 2.0), Scale(Site("z", 1, 2), 2.0)]
    logits = plain_run(model, ANN.clean, steps).logits[-1]
    word = model.tokenizer.convert_tokens_to_ids
    expected = float(logits[word("Madrid")] - logits[word("Cairo")])
    assert float(ours.logit_diff.squeeze()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_batches_company_and_the_store_change_nothing(
    family: str, toy_model: ToyModel, tmp_path: Any
) -> None:
    model = toy_model(family)
    options: Any = {"heads": ["L0H1", "L1H2"], "alpha": [-1.0, 0.0, 2.0], "controls": 1}
    together = scale_heads(model, PAIRS, **options)
    for other in ({"max_batch": 2}, {"mode": "plain"}, {"mode": "packed"}):
        ours = scale_heads(model, PAIRS, **options, **other)
        assert_allclose(ours.logit_diff, together.logit_diff, atol=1e-5)
        assert ours.top_token.values.tolist() == together.top_token.values.tolist()
    stored = Store(tmp_path).run(scale_heads, model, PAIRS, **options)
    assert_allclose(stored.logit_diff, together.logit_diff, atol=1e-5)
    assert_array_equal(stored.share, together.share)


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"heads": ["L0H9", "L7H1"]}, SiteError, "L0H9, L7H1"),
        ({"heads": []}, OptionError, "no set at all|sets without heads"),
        ({"heads": "L0H1"}, OptionError, "Put it in brackets"),
        ({"heads": ["L0H1"], "alpha": []}, OptionError, "alpha="),
        ({"heads": ["L0H1"], "alpha": [1, 1]}, OptionError, "different numbers"),
        ({"heads": ["L0H1"], "alpha": [float("nan")]}, OptionError, "alpha=nan"),
        ({"heads": ["L0H1"], "positions": "each"}, OptionError, "positions='each'"),
        ({"heads": ["L0H1"], "controls": -1}, OptionError, "controls=-1"),
        ({"heads": ["L0H1"], "together": "yes"}, OptionError, "together='yes'"),
        (
            {"heads": {"all": [f"L0H{h}" for h in range(4)]}, "controls": 1},
            OptionError,
            "left to draw from",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(
    options: dict[str, Any], error: type[Exception], reason: str, toy_model: ToyModel
) -> None:
    with pytest.raises(error, match=reason):
        scale_heads(toy_model("gpt2"), PAIRS, **options)


def test_recurrent_models_have_nothing_to_scale(toy_model: ToyModel) -> None:
    with pytest.raises(SiteError, match="no attention heads"):
        scale_heads(toy_model("mamba2"), PAIRS, heads=["L0H0"])


# random heads -------------------------------------------------------------------------------------


def test_random_heads_are_reproducible_different_and_never_excluded(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    every = [Head(layer, head) for layer in range(toys.N_LAYERS) for head in range(toys.N_HEADS)]
    assert random_heads(model, len(every)) == every
    drawn = random_heads(model, 4, seed=3, exclude=["L1H1", Head(2, 0)])
    assert drawn == random_heads(model, 4, seed=3, exclude=[Head(1, 1), "L2H0"])
    assert len(set(drawn)) == 4 and not {Head(1, 1), Head(2, 0)} & set(drawn)
    assert len({tuple(random_heads(model, 4, seed=seed)) for seed in range(20)}) > 10
    assert all(head.layer == 2 for head in random_heads(model, 3, layers=[2]))
    alike = random_heads(model, same_layers_as=["L0H0", "L0H1", "L2H3"], exclude=["L0H0"])
    assert [head.layer for head in alike] == [0, 0, 2]


def test_every_head_is_drawn_equally_often(toy_model: ToyModel) -> None:
    model, draws = toy_model("gpt2"), 600
    counts = np.zeros((toys.N_LAYERS, toys.N_HEADS))
    for seed in range(draws):
        for head in random_heads(model, 3, seed=seed):
            counts[head.layer, head.head] += 1
    expected = draws * 3 / counts.size
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"k": 13}, "12 are left"),
        ({"k": 4, "layers": [0], "exclude": ["L0H0"]}, "3 are left"),
        ({}, "k=None"),
        ({"k": -1}, "k=-1"),
        ({"k": 3, "same_layers_as": ["L0H0"]}, "fixes layers and number"),
    ],
)
def test_draws_that_cannot_be_are_refused(
    options: dict[str, Any], reason: str, toy_model: ToyModel
) -> None:
    with pytest.raises(OptionError, match=reason):
        random_heads(toy_model("gpt2"), **options)
