"""PH3's conflict scores: planted heads with their closed forms, three plain runs, and refusals."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import toys
from circuits import CIRCUITS, Circuit
from numpy.testing import assert_allclose, assert_array_equal
from oracles.three_passes import path_logits

from mechlab.axes import Head
from mechlab.errors import OptionError, PromptError, SiteError
from mechlab.hooks import Site
from mechlab.methods import conflict_heads, conflict_rankings, path_patch, split_pairs
from mechlab.methods.conflict.quantities import scores_of
from mechlab.models import Model
from mechlab.prompts import PromptPair, PromptSet, conflicts

ToyModel = Callable[..., Model]
FRANCE, ITALY = "Paris is the capital of France w1", "Rome was by tower near Italy w7"
PAIRS = [
    PromptPair(FRANCE, ITALY, "Oslo", "Rome"),
    PromptPair("Ann was born in", "Bob gave to in", "Madrid", "Cairo"),
]
PLACED = PromptPair(
    FRANCE, ITALY, "Oslo", "Rome", places=(("country", 24, 30),), about=(("country", "France"),)
)


@cache
def made(family: str, **options: Any) -> Circuit:
    return CIRCUITS["conflict"](family, **options)


@pytest.mark.parametrize("x_new", ["pair", "zero"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_planted_heads_have_their_closed_forms_and_all_others_nothing(
    family: str, x_new: Any
) -> None:
    """Logits: context 3 - 0.5, memory 2. Either other run takes the planted writes away."""
    circuit = made(family)
    ours = conflict_heads(circuit.model, circuit.pairs, quantity="raw_logit", x_new=x_new)
    expected = np.zeros(ours.score.shape[1:])
    for role, (answer, value) in {"copy": (0, -3.0), "fact": (1, -2.0), "anti": (0, 0.5)}.items():
        head = circuit.heads[role]
        expected[head.layer, head.head, answer] = value
    assert_allclose(ours.score, np.broadcast_to(expected, ours.score.shape), atol=1e-4)
    difference = expected[..., 0] - expected[..., 1]
    assert_allclose(ours.conflict_score.mean("prompt"), difference, atol=1e-4)
    assert_allclose(ours.original, [[2.5, 2.0]] * len(circuit.pairs), atol=1e-4)


@pytest.mark.parametrize(
    ("quantity", "fact", "copy"),
    [("relative_logit", 2 / 2, -3 / 2.5), ("raw_logit", 2.0, -3.0), ("logit_diff", 4.0, -6.0)],
)
def test_every_reading_ranks_fact_head_and_copy_head_with_opposite_signs(
    quantity: Any, fact: float, copy: float
) -> None:
    circuit = made("gpt2")
    ours = conflict_heads(circuit.model, circuit.pairs, quantity=quantity)
    rankings = conflict_rankings(ours)
    assert rankings["memory"][0] == circuit.heads["fact"]
    assert rankings["context"][0] == circuit.heads["copy"]
    mean = ours.conflict_score.mean("prompt")
    for role, value in (("fact", fact), ("copy", copy)):
        head = circuit.heads[role]
        assert float(mean.sel(layer=head.layer, head=head.head)) == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("freeze", ["heads", "heads+mlps"])
def test_scores_equal_three_plain_runs(
    freeze: Any, attention_family: str, toy_model: ToyModel
) -> None:
    model = toy_model(attention_family)
    ours = conflict_heads(model, PAIRS, quantity="raw_logit", freeze=freeze)
    centred = conflict_heads(model, PAIRS, quantity="raw_logit", freeze=freeze, centred=True)
    word = model.tokenizer.convert_tokens_to_ids
    for row, pair in enumerate(PAIRS):
        ids = [word(pair.answer), word(pair.wrong_answer)]
        for head in (Head(0, 1), Head(1, 3), Head(2, 2)):
            logits = path_logits(
                model, pair.clean, pair.corrupted, [Site("z", head.layer, head.head)], [],
                freeze=freeze,
            )  # fmt: skip
            at = {"layer": head.layer, "head": head.head}
            assert_allclose(ours.patched[row].sel(at), logits[ids], atol=2e-5)
            assert_allclose(centred.patched[row].sel(at), (logits - logits.mean())[ids], atol=2e-5)
    assert float(np.abs(ours.score).max()) > 1e-2


def test_the_logit_difference_is_that_of_path_patch(toy_model: ToyModel) -> None:
    """Both methods stand on the same engine piece; the context's answer comes first in both."""
    model = toy_model("llama")
    ours = conflict_heads(model, PAIRS, quantity="logit_diff", ln="frozen")
    theirs = path_patch(model, PAIRS, positions="last", ln="frozen").effect.isel(receiver=0)
    assert_allclose(ours.score[..., 0], theirs.values.reshape(2, toys.N_LAYERS, -1), atol=1e-5)
    assert_allclose(ours.score[..., 1], -ours.score[..., 0], atol=1e-5)
    assert_allclose(ours.conflict_score, 2 * ours.score[..., 0], atol=1e-5)


def test_swapping_the_answers_flips_every_score(toy_model: ToyModel) -> None:
    model = toy_model("neox")
    swapped = [PromptPair(p.clean, p.corrupted, p.wrong_answer, p.answer) for p in PAIRS]
    for quantity in ("relative_logit", "probability"):
        ours = conflict_heads(model, PAIRS, quantity=quantity)  # type: ignore[arg-type]
        other = conflict_heads(model, swapped, quantity=quantity)  # type: ignore[arg-type]
        assert_array_equal(ours.conflict_score, -other.conflict_score)


def test_a_pair_that_is_its_own_other_record_scores_nothing(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    same = [PromptPair(p.clean, p.clean, p.answer, p.wrong_answer) for p in PAIRS]
    assert_array_equal(conflict_heads(model, same).score, 0)
    silent = conflict_heads(model, [PLACED], x_new="noise", noise_scale=0)
    assert_array_equal(silent.score, 0)


def test_noise_is_drawn_by_the_seed_and_not_by_company(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    more = [PLACED, PromptPair(**{**PLACED.__dict__, "clean": PLACED.clean.replace("w1", "w2")})]
    alone = conflict_heads(model, [PLACED], x_new="noise", seed=3)
    assert float(np.abs(alone.score).max()) > 1e-3
    together = conflict_heads(model, more, x_new="noise", seed=3)
    assert_allclose(together.score[0], alone.score[0], atol=1e-5)
    other = conflict_heads(model, [PLACED], x_new="noise", seed=4)
    assert float(np.abs(other.score - alone.score).max()) > 1e-3


def test_importance_does_not_depend_on_batch_size(toy_model: ToyModel) -> None:
    model = toy_model("llama")
    whole = conflict_heads(model, PAIRS)
    for other in (conflict_heads(model, PAIRS, max_batch=1), conflict_heads(model, PAIRS[::-1])):
        found = other.sel(prompt=whole.prompt)
        assert_allclose(found.score, whole.score, atol=1e-5)


def test_a_logit_of_zero_has_no_relative_score() -> None:
    original, patched = np.array([2.0, 0.0], "f"), np.array([[1.0, 3.0], [1.0, 0.0]], "f")
    relative = scores_of("relative_logit", original, patched)
    assert_array_equal(relative, [[-0.5, 0.5], [np.nan, np.nan]])
    assert_array_equal(scores_of("relative_logit", -original, -patched)[0], [0.5, -0.5])
    assert_array_equal(scores_of("raw_logit", original, patched), [[-1, 1], [1, 0]])


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"quantity": "logits"}, OptionError, "quantity='logits'"),
        ({"x_new": "mean"}, OptionError, "x_new='mean'"),
        ({"freeze": "mlps"}, OptionError, "freeze='mlps'"),
        ({"ln": "none"}, OptionError, "ln='none'"),
        ({"centred": True, "quantity": "probability"}, OptionError, "Leave centred out"),
        ({"centred": 1}, OptionError, "centred=1"),
        ({"x_new": "noise", "noise_scale": -1.0}, OptionError, "noise_scale=-1.0"),
        ({"x_new": "noise"}, PromptError, "2 of 2 pairs name no place 'country'.*#0, #1"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    options: Any, error: type[Exception], reason: str, toy_model: ToyModel
) -> None:
    with pytest.raises(error, match=reason):
        conflict_heads(toy_model("gpt2"), PAIRS, **options)


def test_pairs_that_cannot_be_compared_are_refused(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    short = [*PAIRS, PromptPair("Ann was born in", "Bob was", "Madrid", "Cairo")]
    with pytest.raises(PromptError, match="1 of 3 pairs do not align"):
        conflict_heads(model, short)
    assert conflict_heads(model, short, x_new="zero").sizes["prompt"] == 3
    with pytest.raises(SiteError, match="no attention heads"):
        conflict_heads(toy_model("mamba2"), PAIRS)


# rankings and halves ------------------------------------------------------------------------------


def test_rankings_are_each_other_turned_round(toy_model: ToyModel) -> None:
    ours = conflict_heads(toy_model("llama"), PAIRS)
    ranked = conflict_rankings(ours)
    assert ranked["context"] == ranked["memory"][::-1]
    assert len(set(ranked["memory"])) == toys.N_LAYERS * toys.N_HEADS
    assert conflict_rankings(ours.conflict_score) == ranked
    with pytest.raises(OptionError, match="holds no conflict score"):
        conflict_rankings(ours.original)


def test_halves_share_no_country_and_are_the_same_for_every_wording() -> None:
    repeat, paragraph = (conflicts(60, form=form) for form in ("repeat", "paragraph"))  # type: ignore[arg-type]
    sides = [split_pairs(pairs, seed=1) for pairs in (repeat, paragraph)]
    for pairs, (find, held) in zip((repeat, paragraph), sides, strict=True):
        assert len(find) + len(held) == len(pairs) and min(len(find), len(held)) > 15
    finding = {c for find, _ in sides for c in find.about("country")}
    assert not finding & {c for _, held in sides for c in held.about("country")}
    other, _ = split_pairs(repeat, seed=2)
    assert other.digest != sides[0][0].digest
    few, _ = split_pairs(repeat, share=0.2, seed=1)
    assert set(few.about("country")) < finding


def test_sets_that_cannot_be_split_are_refused() -> None:
    with pytest.raises(PromptError, match="say nothing about 'country'"):
        split_pairs(PromptSet(tuple(PAIRS)))
    with pytest.raises(PromptError, match="fall on one side"):
        split_pairs(PromptSet((PLACED,)))
    with pytest.raises(OptionError, match="share=1"):
        split_pairs(PromptSet(tuple(PAIRS)), share=1)
