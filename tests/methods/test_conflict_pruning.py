"""Pruning: planted heads decide who wins, k = 0 is the identity, controls, and refusals."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import toys
from circuits import CIRCUITS, Circuit
from numpy.testing import assert_allclose, assert_array_equal

from mechlab.axes import Head, heads
from mechlab.errors import OptionError, PromptError, SiteError
from mechlab.methods import ablate, conflict_heads, conflict_rankings, prune_heads
from mechlab.models import Model
from mechlab.prompts import PromptPair
from mechlab.store import Store

ToyModel = Callable[..., Model]
PAIRS = [
    PromptPair("Paris is the capital of France w1", "Rome was in", "Oslo", "Rome"),
    PromptPair("Ann was born in", "Bob was born in", "Madrid", "Cairo"),
]
RANKED: dict[str, Any] = {"one": ["L2H1", "L1H3", "L0H0"], "two": ["L0H2", "L2H3", "L2H0"]}


@cache
def made(family: str, **options: Any) -> Circuit:
    return CIRCUITS["conflict"](family, **options)


def share(result: Any, name: str) -> list[list[float]]:
    """Mean share of in-context and memorised answers per k."""
    mean = result.share.sel(head_set=name).mean("prompt")
    return [mean.sel(outcome=outcome).values.tolist() for outcome in ("in_context", "memorised")]


@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_pruning_the_planted_heads_hands_the_answer_over(kind: Any) -> None:
    """With copy 3 against fact 2 the context wins; without the copy head the memory does.

    The anti-copy head is the next one of the memory ranking: it lowers the context's answer.
    """
    circuit = made("llama")
    ranked = conflict_rankings(conflict_heads(circuit.model, circuit.pairs))
    reference = {"reference": circuit.pairs} if kind == "mean" else {}
    ours = prune_heads(
        circuit.model, circuit.pairs, heads=ranked, k=[1, 2], kind=kind, controls=3, **reference
    )
    assert share(ours, "context")[1][:2] == [0, 1]
    assert share(ours, "memory")[0] == [1, 1, 1]
    expected = {"memory": [0, 2, 2.5], "context": [0, -3, -3]}
    tolerance = 1e-4 if kind == "zero" else 1.0  # a mean is over other cities, a sixth is its own
    for name, effect in expected.items():
        found = ours.effect.sel(head_set=name).mean("prompt")
        assert_allclose(found, effect, atol=tolerance)
    assert ours.members.sel(head_set="context", k=1) == str(circuit.heads["copy"])


def test_where_memory_wins_pruning_the_fact_head_turns_it() -> None:
    circuit = made("gpt2", copy=2.0, fact=3.0, anti=0.0)
    ranked = conflict_rankings(conflict_heads(circuit.model, circuit.pairs))
    ours = prune_heads(circuit.model, circuit.pairs, heads=ranked, k=[1], controls=0)
    assert share(ours, "memory") == [[0, 1], [1, 0]]
    assert share(ours, "context") == [[0, 0], [1, 1]]


def test_random_controls_that_miss_the_planted_heads_change_nothing() -> None:
    circuit = made("llama")
    ranked = {"context": [circuit.heads["copy"]], "memory": [circuit.heads["fact"]]}
    ours = prune_heads(circuit.model, circuit.pairs, heads=ranked, k=[1], controls=8)
    planted = {str(head) for head in circuit.heads.values()}
    controls = ours.isel(head_set=ours.is_control.values).sel(k=1)
    quiet = [i for i, names in enumerate(controls.members.values) if names not in planted]
    assert len(quiet) >= 5
    assert_array_equal(controls.effect.isel(head_set=quiet), 0)
    assert_array_equal(controls.share.isel(head_set=quiet).sel(outcome="in_context"), 1)


def test_no_head_pruned_is_the_identity(attention_family: str, toy_model: ToyModel) -> None:
    ours = prune_heads(toy_model(attention_family), PAIRS, heads=RANKED, k=[2], controls=2)
    assert ours.k.values.tolist() == [0, 2]
    assert_array_equal(ours.effect.sel(k=0), 0)
    assert float(np.abs(ours.effect.sel(k=2)).max()) > 1e-3
    assert_array_equal(ours.share.sum("outcome"), 1)
    assert_array_equal(ours.effect, ours.logit_diff - ours.unpruned_logit_diff)


def test_pruning_to_zero_is_zeroing_the_heads_slice_of_the_output_matrix(
    toy_model: ToyModel,
) -> None:
    """Two routes: `z` set to 0 at run time, and weights that send it nowhere."""
    ours = prune_heads(toy_model("llama"), PAIRS, heads=RANKED, k=[3], controls=0)
    hf = toys.make_hf("llama")
    with torch.no_grad():
        for head in heads(*RANKED["one"]):
            columns = slice(head.head * toys.D_HEAD, (head.head + 1) * toys.D_HEAD)
            hf.model.layers[head.layer].self_attn.o_proj.weight[:, columns] = 0
    tokenizer = toy_model("llama").tokenizer
    for row, pair in enumerate(PAIRS):
        with torch.no_grad():
            logits = hf(torch.tensor([tokenizer(pair.clean)["input_ids"]])).logits[0, -1]
        right, wrong = tokenizer.convert_tokens_to_ids([pair.answer, pair.wrong_answer])
        found = float(ours.logit_diff[row].sel(head_set="one", k=3))
        assert found == pytest.approx(float(logits[right] - logits[wrong]), abs=1e-5)
        assert abs(float(ours.effect[row].sel(head_set="one", k=3))) > 1e-3


@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_pruning_is_ablation_of_the_set(
    kind: Any, attention_family: str, toy_model: ToyModel
) -> None:
    model = toy_model(attention_family)
    extra: dict[str, Any] = {"reference": PAIRS} if kind == "mean" else {}
    ours = prune_heads(model, PAIRS, heads=RANKED, k=[3], kind=kind, controls=0, **extra)
    if kind == "mean":
        extra["average"] = "over_positions"
    theirs = ablate(model, PAIRS, by="set", heads=RANKED, kind=kind, **extra)
    assert_allclose(ours.effect.sel(k=3), theirs.effect.sel(head_set=list(RANKED)), atol=1e-5)


def test_controls_take_as_many_heads_of_each_layer_and_others_while_they_last(
    toy_model: ToyModel,
) -> None:
    model = toy_model("gpt2")
    ranked = {"a": ["L0H0", "L2H1", "L2H2", "L2H0"]}
    ours = prune_heads(model, PAIRS, heads=ranked, k=[1, 2, 4], controls=20)
    chosen = {
        k: heads(*str(ours.members.sel(head_set="a", k=k).item()).split("+")) for k in (1, 2, 4)
    }
    for name in ours.head_set.values[1:]:
        assert ours.control_of.sel(head_set=name) == "a"
        for k, own in chosen.items():
            at = ours.sel(head_set=name, k=k)
            drawn = heads(*str(at.members.item()).split("+"))
            assert sorted(h.layer for h in drawn) == sorted(h.layer for h in own)
            assert len(set(drawn)) == k
            assert int(at.chosen_too) == len(set(drawn) & set(own)) == (2 if k == 4 else 0)
    assert len(set(ours.members.sel(k=2).values[1:])) > 5
    again = prune_heads(model, PAIRS, heads=ranked, k=[2], controls=20)
    assert again.members.sel(k=2).values.tolist() == ours.members.sel(k=2).values.tolist()
    other = prune_heads(model, PAIRS, heads=ranked, k=[2], controls=20, seed=1)
    assert other.members.sel(k=2).values.tolist() != ours.members.sel(k=2).values.tolist()


def test_fractions_are_parts_of_all_heads(toy_model: ToyModel) -> None:
    ranked = {"all": [Head(layer, head) for layer in range(3) for head in range(4)]}
    ours = prune_heads(toy_model("gpt2"), PAIRS, heads=ranked, k=[0.25, 3, 1, 0.5], controls=0)
    assert ours.k.values.tolist() == [0, 1, 3, 6]


def test_batches_company_and_the_store_change_nothing(toy_model: ToyModel, tmp_path: Any) -> None:
    model = toy_model("neox")
    options: Any = {"heads": RANKED, "k": [1, 3], "controls": 1}
    whole = prune_heads(model, PAIRS, **options)
    for other in ({"max_batch": 2}, {"mode": "plain"}):
        assert_allclose(
            prune_heads(model, PAIRS, **options, **other).effect, whole.effect, atol=1e-5
        )
    alone = prune_heads(model, PAIRS[1:], **options)
    assert_allclose(alone.effect[0], whole.effect[1], atol=1e-5)
    stored = Store(tmp_path).run(prune_heads, model, PAIRS, **options)
    assert_allclose(stored.effect, whole.effect, atol=1e-5)
    assert_array_equal(stored.share, whole.share)


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"heads": ["L0H1"]}, OptionError, "a mapping from names"),
        ({"heads": {}}, OptionError, "no set at all"),
        ({"k": [4]}, OptionError, r"fewer heads: 'one' \(3\), 'two' \(3\)"),
        ({"k": []}, OptionError, "k=\\[\\]"),
        ({"k": [1.5]}, OptionError, "k=1.5"),
        ({"k": [-1]}, OptionError, "k=-1"),
        ({"heads": {"a": ["L9H0", "L0H9"]}, "k": [1]}, SiteError, "L9H0, L0H9"),
        ({"kind": "mean"}, OptionError, "needs reference"),
        ({"reference": PAIRS}, OptionError, "reads no reference"),
        ({"kind": "noise"}, OptionError, "kind='noise'"),
        ({"controls": -1}, OptionError, "controls=-1"),
        ({"found_on": PAIRS[1:]}, PromptError, "1 of 2 pairs are among those .* #1"),
    ],
)
def test_what_cannot_be_pruned_or_was_seen_before_is_refused(
    options: dict[str, Any], error: type[Exception], reason: str, toy_model: ToyModel
) -> None:
    with pytest.raises(error, match=reason):
        prune_heads(toy_model("gpt2"), PAIRS, **{"heads": RANKED, "k": [1], **options})


def test_recurrent_models_have_nothing_to_prune(toy_model: ToyModel) -> None:
    with pytest.raises(SiteError, match="no attention heads"):
        prune_heads(toy_model("mamba2"), PAIRS, heads=RANKED, k=[0])
