"""Likelihoods of answers: equal to whole forwards, plain and contrasted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from numpy.testing import assert_allclose, assert_array_equal
from oracles.plain import plain_run

from mechlab.axes import Head
from mechlab.hooks import Scale, Site
from mechlab.methods import DeCoRe, score_answers
from mechlab.models import Model
from mechlab.prompts import Fact, PromptPair, PromptSet
from mechlab.store import Store

ToyModel = Callable[..., Model]
TEXT = "The capital of France is"
ANSWERS = ["Paris", "Rome Italy w4", "Berlin w9"]
HEADS = [Head(0, 1), Head(1, 2), Head(2, 0)]
SILENT = [Scale(Site("z", head.layer, head.head), 0.0) for head in HEADS]


def plain_rows(model: Model, text: str, answer: str, *steps: Scale) -> tuple[np.ndarray, list[int]]:
    """Return log-probabilities [token, vocab] that predict an answer, and its tokens."""
    count = len(answer.split())
    whole = f"{text} {answer}"
    logits = plain_run(model, whole, steps).logits
    ids = model.tokenize(whole).tokens[0].tolist()[-count:]
    return logits[-count - 1 : -1].double().log_softmax(-1).numpy(), ids


def test_an_answer_has_the_sum_of_its_tokens_in_one_forward_of_hugging_face(
    attention_family: str, toy_model: ToyModel
) -> None:
    model, hf = toy_model(attention_family), toys.make_hf(attention_family)
    ours = score_answers(model, TEXT, answers=ANSWERS)
    for column, answer in enumerate(ANSWERS):
        ids = model.tokenize(f"{TEXT} {answer}").tokens
        with torch.no_grad():
            p = hf(ids).logits[0, :-1].double().log_softmax(-1)
        count = len(answer.split())
        tokens = p.gather(-1, ids[0, 1:, None])[-count:, 0]
        assert_allclose(ours.token_log_probability[0, column, :count], tokens, atol=1e-5)
        assert float(ours.log_probability[0, column]) == pytest.approx(
            float(tokens.sum()), abs=1e-5
        )
        assert np.isnan(ours.token_log_probability[0, column, count:]).all()
    assert_array_equal(ours.log_probability, ours.base_log_probability)
    assert int(ours.choice[0]) == int(ours.log_probability[0].argmax("answer"))


@pytest.mark.parametrize("renormalise", [True, False])
def test_a_contrast_is_that_of_two_whole_forwards(renormalise: bool, toy_model: ToyModel) -> None:
    model = toy_model("llama")
    rule = DeCoRe(HEADS, mask="zero")
    ours = score_answers(model, TEXT, answers=ANSWERS, decode=rule, renormalise=renormalise)
    assert ours.attrs["phase"] == "all"
    for column, answer in enumerate(ANSWERS):
        p, ids = plain_rows(model, TEXT, answer)
        m, _ = plain_rows(model, TEXT, answer, *SILENT)
        entropy = -(np.exp(p) * p).sum(-1)
        mixed = (1 + entropy[:, None]) * p - entropy[:, None] * m
        if renormalise:
            mixed -= np.log(np.exp(mixed).sum(-1, keepdims=True))
        expected = mixed[np.arange(len(ids)), ids]
        assert_allclose(ours.alpha[0, column, : len(ids)], entropy, atol=1e-4)
        assert_allclose(
            ours.token_log_probability[0, column, : len(ids)], expected, rtol=1e-4, atol=1e-3
        )
        assert float(ours.base_log_probability[0, column]) == pytest.approx(
            p[np.arange(len(ids)), ids].sum(), abs=1e-4
        )
    assert float(np.abs(ours.log_probability - ours.base_log_probability).max()) > 0.1


def test_masked_heads_without_a_contrast_are_a_forward_without_them(toy_model: ToyModel) -> None:
    model = toy_model("neox")
    ours = score_answers(model, TEXT, answers=ANSWERS, ablate=HEADS, mask="zero")
    for column, answer in enumerate(ANSWERS):
        p, ids = plain_rows(model, TEXT, answer, *SILENT)
        expected = p[np.arange(len(ids)), ids].sum()
        assert float(ours.log_probability[0, column]) == pytest.approx(expected, abs=1e-4)


def test_alpha_0_is_the_base_and_a_phase_of_decode_leaves_the_prompt_alone(
    toy_model: ToyModel,
) -> None:
    model = toy_model("gpt2")
    base = score_answers(model, TEXT, answers=ANSWERS)
    none = score_answers(model, TEXT, answers=ANSWERS, decode=DeCoRe(HEADS, alpha=0.0))
    assert_array_equal(none.log_probability, base.log_probability)
    late = score_answers(model, TEXT, answers=ANSWERS, decode=DeCoRe(HEADS, phase="decode"))
    whole = score_answers(model, TEXT, answers=ANSWERS, decode=DeCoRe(HEADS))
    assert float(np.abs(late.log_probability - whole.log_probability).max()) > 1e-3


def test_prompts_may_have_answers_of_their_own(toy_model: ToyModel) -> None:
    model = toy_model("gpt2")
    texts = [TEXT, "Ann was born in"]
    own = score_answers(model, texts, answers=[["Paris", "Rome Italy w4"], ["Cairo"]])
    shared = score_answers(model, texts, answers=["Paris", "Rome Italy w4", "Cairo"])
    assert_allclose(own.log_probability[0], shared.log_probability[0, :2], atol=1e-5)
    assert float(own.log_probability[1, 0]) == pytest.approx(
        float(shared.log_probability[1, 2]), abs=1e-5
    )
    assert np.isnan(own.log_probability[1, 1]) and int(own.choice[1]) == 0
    assert list(own.answer_text.values[1]) == ["Cairo", ""]
    pair = score_answers(model, PromptPair(TEXT, "The capital of Italy is", "Paris", "Rome"))
    fact = score_answers(model, Fact(TEXT, "France", "Paris"))
    assert list(pair.answer.values) == ["answer", "wrong_answer"]
    for other in (pair, fact):
        assert float(other.log_probability[0, 0]) == pytest.approx(
            float(shared.log_probability[0, 0]), abs=1e-5
        )


def test_the_choice_goes_to_the_most_likely_answer_and_what_is_implausible_has_no_chance(
    toy_model: ToyModel,
) -> None:
    model = toy_model("gpt2")
    words = [f"w{i}" for i in range(8)]
    strict = DeCoRe(HEADS, plausibility=1.0)
    ours = score_answers(model, TEXT, answers=words, decode=strict)
    assert np.isneginf(ours.log_probability).sum() >= 7  # one token alone is the most probable
    free = score_answers(model, TEXT, answers=words, decode=DeCoRe(HEADS, alpha=5.0))
    assert int(free.choice[0]) == int(free.log_probability[0].argmax("answer"))
    assert int(free.base_choice[0]) == int(free.base_log_probability[0].argmax("answer"))
    assert int(free.choice[0]) != int(free.base_choice[0])


def test_the_store_keeps_answers_prompt_by_prompt_unless_each_has_its_own(
    tmp_path: Path, toy_model: ToyModel
) -> None:
    model, store = toy_model("gpt2"), Store(tmp_path)
    facts = PromptSet([Fact(TEXT, "France", "Paris"), Fact("Ann was born in", "Ann", "Cairo w1")])
    lists = [["Paris", "Rome Italy w4"], ["Cairo"]]
    for answers in (None, ANSWERS, lists):
        stored = store.run(score_answers, model, facts, answers=answers)
        direct = score_answers(model, facts, answers=answers)
        for name in ("log_probability", "token_log_probability", "choice", "n_tokens"):
            assert_array_equal(stored[name], direct[name])
        assert_array_equal(stored.token, direct.token)
