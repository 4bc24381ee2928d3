"""Attention knockout: which edges are cut, what remains of the weights, and what is refused."""

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
from mechlab.engine import Base
from mechlab.errors import OptionError, PromptError, SiteError
from mechlab.hooks import Block
from mechlab.methods.knockout import knockout
from mechlab.models import Model
from mechlab.prompts import Fact, PromptPair
from mechlab.store import Store

ToyModel = Callable[..., Model]
EIFFEL = Fact("The Eiffel Tower is located in the city of", "Eiffel Tower", "Paris")
PARIS = Fact("Paris is the capital of", "Paris", "France")
FACTS = [EIFFEL, PARIS]
CONTEXT = PromptPair(
    "w1 speaks Cairo w2 Paris is in", "w1 speaks Lima w2 Rome is in", "Cairo", "France"
)


def probability(model: Model, fact: Fact, *steps: Block) -> float:
    logits = plain_run(model, fact.prompt, steps).logits[-1]
    return float(logits.softmax(-1)[model.tokenizer.convert_tokens_to_ids(fact.target)])


def pattern(model: Model, *steps: Block) -> torch.Tensor:
    (found,) = engine.record(model, [Base(EIFFEL.prompt, steps)], [("pattern", 1)])
    return found.values["pattern", 1]


def test_groups_may_be_arrays_sets_and_iterators(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    spelled = knockout(model, FACTS, keys={"a": [1, 2], "b": "subject"}, queries=[-1])
    for group in (np.array([1, 2]), {2, 1}, range(1, 3)):
        keys: Any = {"a": group, "b": "subject"}
        ours = knockout(model, FACTS, keys=keys, queries=np.array([-1]))  # type: ignore[arg-type]
        assert_array_equal(ours.effect, spelled.effect)
        assert ours.attrs["options"] == spelled.attrs["options"]
    one_by_one = knockout(model, FACTS, keys=iter(["subject"]))  # type: ignore[arg-type]
    assert one_by_one.source.values.tolist() == ["subject"]


@pytest.mark.parametrize("cut", ["mask", "zero"])
@pytest.mark.parametrize("heads", [None, ["L0H1", "L1H0", "L1H3"]])
def test_a_knockout_is_the_blocked_edges_of_its_window(
    cut: Any, heads: Any, attention_family: str, toy_model: ToyModel
) -> None:
    """Against hooks written by hand: layer 1 with a window of 2 is layers 0 and 1."""
    model = toy_model(attention_family)
    ours = knockout(model, FACTS, keys="subject", cut=cut, window=2, layers=[1], heads=heads)
    assert ours.effect.dims == ("prompt", "layer", "source")
    assert (int(ours.window_start[0]), int(ours.window_stop[0])) == (0, 2)
    of_layer: dict[int, Any] = {0: None, 1: None} if heads is None else {0: (1,), 1: (0, 3)}
    for index, (fact, keys) in enumerate(zip(FACTS, [(2, 3), (1,)], strict=True)):
        last = len(model.token_strings(fact.prompt)) - 1
        steps = [Block(n, (last,), keys, of_layer[n], cut) for n in (0, 1)]
        expected = probability(model, fact, *steps)
        assert float(ours.patched[index].squeeze()) == pytest.approx(expected, abs=1e-6)
        plain = probability(model, fact)
        assert float(ours.unpatched[index]) == pytest.approx(plain, abs=1e-6)
        relative = (expected - plain) / plain
        assert float(ours.relative_change[index].squeeze()) == pytest.approx(relative, abs=1e-3)
        assert abs(relative) > 1e-4


def test_rows_that_lost_a_mass_differ_by_one_over_the_rest(
    attention_family: str, toy_model: ToyModel
) -> None:
    """mask = zero / (1 - removed mass): masked rows sum to 1, zeroed rows to less."""
    model, keys = toy_model(attention_family), (2, 3)
    last = len(model.token_strings(EIFFEL.prompt)) - 1
    plain = pattern(model)
    masked = pattern(model, Block(1, (last,), keys, None, "mask"))
    zeroed = pattern(model, Block(1, (last,), keys, None, "zero"))
    removed = plain[:, last, list(keys)].sum(-1)
    assert float(removed.min()) > 1e-4
    assert_allclose(zeroed[:, last].sum(-1), 1 - removed, atol=1e-6)
    assert_allclose(masked[:, last].sum(-1), 1, atol=1e-6)
    assert_allclose(masked[:, last] * (1 - removed)[:, None], zeroed[:, last], atol=1e-6)
    assert torch.equal(masked[:, :last], plain[:, :last])
    assert torch.equal(zeroed[:, :last], plain[:, :last])
    assert not masked.isnan().any()


def test_cut_off_from_all_others_the_last_token_is_alone(toy_model: ToyModel) -> None:
    """All layers, everything before: the answer depends on the last token and its place only."""
    model = toy_model("llama")  # rotary positions: only differences of positions count
    same_end = [
        Fact("The Eiffel Tower is located in the city of", "Eiffel", "Paris"),
        Fact("Ann Bob Mary went to the city near store of", "Ann", "Paris"),
    ]
    window = 2 * toys.N_LAYERS + 1
    ours = knockout(model, same_end, keys="all_before", window=window)
    assert_allclose(ours.patched[0], ours.patched[1], rtol=1e-5)
    assert float(np.abs(ours.unpatched[0] - ours.unpatched[1])) > 1e-5
    # Every centre has the same window, and a run of the token alone gives the same probability.
    tokens = torch.tensor([[model.tokenizer.convert_tokens_to_ids("of")]])
    alone = model.bridge(tokens, use_cache=False)[0, -1].softmax(-1)
    expected = float(alone[model.tokenizer.convert_tokens_to_ids("Paris")])
    assert_allclose(ours.patched[0].values.ravel(), expected, rtol=1e-4)


def test_named_groups_are_the_tokens_they_name(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    names = ["bos", "subject", "first_subject", "last_subject", "not_subject", "all_before"]
    ours = knockout(model, FACTS, keys=names, window=1, layers=[1])
    assert ours.source.values.tolist() == names
    assert ours.key_positions.values[0].tolist() == [
        "0",
        "2 3",
        "2",
        "3",
        "1 4 5 6 7 8",
        "0 1 2 3 4 5 6 7 8",
    ]
    assert ours.key_positions.values[1].tolist() == ["0", "1", "1", "1", "2 3 4", "0 1 2 3 4"]
    assert ours.query_positions.values.tolist() == ["9", "5"]
    named = {"from the end": [-2, -3], "last": "last"}
    ours = knockout(model, FACTS, queries="all", keys=named, cut="zero")
    assert ours.key_positions.values[0].tolist() == ["7 8", "9"]
    assert ours.query_positions.values[1] == "0 1 2 3 4 5"


def test_answers_in_the_context_are_found_as_words(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    ours = knockout(model, CONTEXT, keys="answer", metric="logit_diff")
    assert ours.key_positions.values.tolist() == [["3"]]
    with pytest.raises(PromptError, match="'France' does not stand in the prompt"):
        knockout(model, CONTEXT, keys="wrong_answer")
    model = toy_model("gpt2", "bpe")
    fact = Fact("Parisian food, Paris food, near Paris and in", "near", "Paris")
    (positions,) = knockout(model, fact, keys="answer").key_positions.values[0]
    tokens = model.token_strings(fact.prompt)
    assert "".join(tokens[int(pos)] for pos in positions.split()).split() == ["Paris", "Paris"]
    assert tokens[int(positions.split()[0]) - 1] == ","


@pytest.mark.parametrize("cut", ["mask", "zero"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_without_its_edge_the_planted_head_has_nothing_to_copy(family: str, cut: Any) -> None:
    """`they said Madrid . Poland is`: cutting the city takes copy and anti-copy away in full."""
    circuit = made("conflict", family)
    ours = knockout(
        circuit.model, circuit.pairs, keys="answer", cut="zero", window=7, metric="logit_diff"
    )
    planted = np.array(circuit.direct["copy"]) + np.array(circuit.direct["anti"])
    assert_allclose(ours.effect, -planted[:, None, None] * np.ones(ours.effect.shape), atol=1e-4)
    copy = circuit.heads["copy"]
    one = knockout(
        circuit.model,
        circuit.pairs,
        keys="answer",
        cut=cut,
        window=1,
        heads=[copy],
        metric="logit_diff",
    ).effect
    assert_array_equal(one.sel(layer=[n for n in range(3) if n != copy.layer]), 0)
    at = one.sel(layer=copy.layer)[:, 0]
    lost = -np.array(circuit.direct["copy"])
    assert_allclose(at, lost, atol=1e-4)  # what a masked row turns to holds no city


@pytest.mark.parametrize(("cut", "family"), [("mask", "llama"), ("zero", "neox")])
def test_batches_company_and_the_store_change_nothing(
    cut: Any, family: str, toy_model: ToyModel, tmp_path: Any
) -> None:
    model = toy_model(family)
    options: Any = {"keys": ["subject", "bos"], "cut": cut, "metric": "log_probability"}
    together = knockout(model, FACTS, **options)
    for other in ({"max_batch": 2}, {"mode": "plain"}, {"mode": "packed"}):
        ours = knockout(model, FACTS, **options, **other)
        assert_allclose(ours.effect, together.effect, atol=1e-5)
    stored = Store(tmp_path).run(knockout, model, FACTS, **options)
    assert_allclose(stored.effect, together.effect, atol=1e-5)
    other_cut = {**options, "cut": "zero" if cut == "mask" else "mask"}
    keys = {Store(tmp_path).key(knockout, model, FACTS, **o) for o in (options, other_cut)}
    assert len(keys) == 2, "how edges are cut is part of what a result is"


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"keys": "object"}, OptionError, "'object' is not a group"),
        ({"keys": ["subject", "objects"]}, OptionError, "'objects' is not a group"),
        ({"keys": {}}, OptionError, "names no group"),
        ({"keys": "wrong_answer"}, OptionError, "a fact does not have: wrong_answer"),
        ({"keys": [40, 2]}, PromptError, r"positions \[40\] are not among its 10 tokens"),
        ({"keys": "all"}, PromptError, "2 queries without a key"),
        ({"keys": "bos", "queries": "all"}, PromptError, "position 0"),
        ({"keys": "subject", "queries": ["last", "subject"]}, OptionError, "one group"),
        ({"keys": "subject", "cut": "plain"}, OptionError, "cut='plain'"),
        ({"keys": "subject", "window": 0}, OptionError, "window=0"),
        ({"keys": "subject", "layers": [5]}, SiteError, r"layers \[5\]"),
        ({"keys": "subject", "heads": ["L0H7"]}, SiteError, "L0H7"),
        ({"keys": "subject", "heads": []}, OptionError, "names no head"),
        ({"keys": "subject", "metric": "logit_diff"}, OptionError, "compares two answers"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    options: dict[str, Any], error: type[Exception], reason: str, toy_model: ToyModel
) -> None:
    with pytest.raises(error, match=reason):
        knockout(toy_model("gpt2"), FACTS, **options)


def test_zeroed_rows_may_lose_every_key(toy_model: ToyModel) -> None:
    ours = knockout(toy_model("gpt2"), FACTS, keys="all", cut="zero", window=7)
    assert not np.isnan(ours.effect).any()
    assert float(np.abs(ours.effect).min()) > 0


def test_prompts_without_a_group_and_models_without_attention_are_refused(
    toy_model: ToyModel,
) -> None:
    without = Fact("Ann was born in", "Ann", "")
    with pytest.raises(PromptError, match="1 of 2 facts have no target"):
        knockout(toy_model("gpt2"), [PARIS, without], keys="subject")
    assert (
        knockout(toy_model("gpt2"), [PARIS, without], keys="subject", metric="kl_divergence")
        .effect.notnull()
        .all()
    )
    with pytest.raises(SiteError, match="no attention edges"):
        knockout(toy_model("mamba"), FACTS, keys="subject")
    pair = PromptPair("Ann was in", "Bob was in", "Lima", "Oslo")
    with pytest.raises(OptionError, match="Subjects belong to facts"):
        knockout(toy_model("gpt2"), pair, keys="subject")


@pytest.mark.parametrize("cut", ["mask", "zero"])
def test_edges_to_later_tokens_are_none(
    cut: Any, attention_family: str, toy_model: ToyModel
) -> None:
    ours = knockout(
        toy_model(attention_family), FACTS, queries=[1], keys={"later": [2, 3]}, cut=cut
    )
    assert_allclose(ours.effect, 0, atol=1e-6)
