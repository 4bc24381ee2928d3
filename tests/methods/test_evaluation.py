"""`evaluate_edit` against plain Hugging Face runs and against the published definitions by hand."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys

import mechlab as ml
from mechlab.errors import OptionError, PromptError
from mechlab.methods.evaluation.measures import harmonic_mean, magnitudes, successes
from mechlab.models import Model
from mechlab.prompts import PROMPT_KINDS, EditCase, EditRequest, ScoredPrompt
from mechlab.results import check_result

ToyModel = Callable[..., Model]

REQUEST = EditRequest("The capital of {} is", "France", "Rome", "Paris")
CASES = [
    EditCase(
        REQUEST,
        paraphrases=["France is near", "Big Ben is located in France, called"],
        neighbourhood=[ScoredPrompt("The capital of Italy is", "Big Ben", "Rome")],
        two_hop=[ScoredPrompt("The", "tower", "river to Rome")],
        generation_prompts=["The capital of France is", "France"],
        reference_texts=["Rome is the capital of Italy"],
    ),
    EditCase(
        EditRequest("{} was born in the city of", "Ann", "Seattle", "Madrid, Spain"),
        neighbourhood=["Bob was born in", "Mary was born", "John and Mary"],
        other_relations=[ScoredPrompt("Ann gave the book to", "Bob", "John and Mary")],
    ),
]
PLACES = [
    (c, kind, number, name)
    for c, case in enumerate(CASES)
    for kind in PROMPT_KINDS
    for number in range(len(case.prompts_of(kind)))
    for name in ("target", "target_true")
]


@cache
def plain(family: str) -> Any:
    """A family's toy as a plain Hugging Face model, with the weights of `toy_model`."""
    return toys.make_hf(family)


@torch.no_grad()
def one_by_one(family: str, tokenizer: Any, prompt: str, answer: str) -> tuple[float, float]:
    """NLL per token and accuracy as CounterFact's code has them: one text, nothing batched."""
    prefix = len(tokenizer(prompt).input_ids)
    tokens = tokenizer(f"{prompt} {answer}", return_tensors="pt").input_ids
    target = tokenizer(f" {answer}", add_special_tokens=False).input_ids
    logs = plain(family)(tokens).logits[0].log_softmax(-1)
    losses = [-float(logs[prefix + j - 1, token]) for j, token in enumerate(target)]
    hits = [int(logs[prefix + j - 1].argmax()) == token for j, token in enumerate(target)]
    return float(np.mean(losses)), float(np.mean(hits))


@pytest.mark.parametrize("family", ["gpt2", "neox", "llama", "mamba"])
def test_scores_equal_one_plain_run_for_each_prompt_and_object(
    family: str, toy_model: ToyModel, bpe_tokenizer: Any
) -> None:
    model = toy_model(family, "bpe")
    found = ml.evaluate_edit(model, CASES)
    check_result(found)
    for c, kind, number, name in PLACES:
        prompt = CASES[c].prompts_of(kind)[number]
        expected = one_by_one(family, bpe_tokenizer, prompt.prompt, getattr(prompt, name))
        cell = found.isel(case=c, prompt=number).sel(prompt_kind=kind, target=name)
        assert (float(cell.nll), float(cell.accuracy)) == pytest.approx(expected, abs=1e-5)
        assert str(cell.prompt_text.values) == prompt.prompt
    assert int(np.isfinite(found.nll).sum()) == len(PLACES)  # nothing else has a number
    singly = ml.evaluate_edit(model, CASES, max_batch=1)
    np.testing.assert_allclose(found.nll, singly.nll, atol=1e-5)


def test_the_published_shares_follow_from_the_scores(
    toy_model: ToyModel, bpe_tokenizer: Any
) -> None:
    found = ml.evaluate_edit(toy_model("llama", "bpe"), CASES)
    for c, case in enumerate(CASES):
        for kind, name, sign in (
            ("rewrite", "efficacy", 1), ("paraphrase", "paraphrase", 1),
            ("neighbourhood", "neighbourhood", -1), ("other_relations", "other_relations", -1),
            ("languages", "languages", 1), ("two_hop", "two_hop", 1),
        ):  # fmt: skip
            both = [
                [one_by_one("llama", bpe_tokenizer, p.prompt, t)[0]
                 for t in (p.target, p.target_true)]
                for p in case.prompts_of(kind)
            ]  # fmt: skip
            wins = [sign * (true - new) > 0 for new, true in both]
            gaps = [sign * (np.exp(-new) - np.exp(-true)) for new, true in both]
            expected = [np.mean(wins), np.mean(gaps)] if both else [np.nan, np.nan]
            got = [float(found[n][c]) for n in (name, f"{name}_magnitude")]
            np.testing.assert_allclose(got, expected, atol=1e-5)


def test_zsre_counts_the_tokens_that_a_token_by_token_run_gets_right(toy_model: ToyModel) -> None:
    model = toy_model("gpt2", "words")
    tokens = model.tokenizer(REQUEST.prompt, return_tensors="pt").input_ids

    @torch.no_grad()
    def says(ids: list[int]) -> int:
        read = torch.cat([tokens, torch.tensor([ids], dtype=torch.long)], 1)
        return int(plain("gpt2")(read).logits[0, -1].argmax())

    greedy: list[int] = []
    for _ in range(3):
        greedy.append(says(greedy))
    first, second, third = (model.tokenizer.decode([token]) for token in greedy)
    for target, share in (
        (f"{first} {second} {third}", 1.0), (f"{first} {second} Ann", 2 / 3), ("Ann", 0.0),
    ):  # fmt: skip
        case = EditCase(
            EditRequest(REQUEST.template, "France", target),
            neighbourhood=[ScoredPrompt(REQUEST.prompt, target_true=target)],
        )
        found = ml.evaluate_edit(model, case, protocol="zsre")
        assert found.efficacy.item() == found.neighbourhood.item() == pytest.approx(share)
        exact = ml.evaluate_edit(model, case, protocol="exact")
        assert exact.efficacy.item() == float(share == 1)
        assert np.isnan(found.efficacy_magnitude.item())  # there is no old object


def test_a_tie_is_a_failure_on_both_sides(fresh_model: ToyModel) -> None:
    model = fresh_model("llama", "words")
    new, old = (model.tokenizer.convert_tokens_to_ids(word) for word in ("Rome", "Paris"))
    with torch.no_grad():
        head = model.hf.get_output_embeddings().weight
        head[new] = head[old]
    case = EditCase(REQUEST, neighbourhood=["The capital of Italy is"])
    found = ml.evaluate_edit(model, case)
    assert float(found.nll[0, 0, 0, 0]) == float(found.nll[0, 0, 0, 1])
    assert found.efficacy.item() == found.neighbourhood.item() == 0


def test_successes_by_hand() -> None:
    nll = np.full((1, len(PROMPT_KINDS), 3, 2), np.nan)
    rewrite, near = PROMPT_KINDS.index("rewrite"), PROMPT_KINDS.index("neighbourhood")
    nll[0, rewrite, 0] = [1.0, 2.0]  # the new object is likelier: right
    nll[0, near, 0] = [1.0, 2.0]  # and wrong here
    nll[0, near, 1] = [2.0, 1.0]
    there = ~np.isnan(nll)
    there[0, near, 2] = True  # scored, but the model overflowed
    found = successes(nll, np.zeros_like(nll), there, "counterfact")
    assert found[0, rewrite, 0] == 1 and np.isnan(found[0, rewrite, 1])
    assert found[0, near].tolist() == [0, 1, 0]
    size = magnitudes(nll)
    gap = np.exp(-1) - np.exp(-2)
    np.testing.assert_allclose([size[0, rewrite, 0], *size[0, near, :2]], [gap, -gap, gap])


def test_the_harmonic_mean_of_a_zero_is_zero() -> None:
    assert harmonic_mean(np.array([0.0, 1.0, 1.0])) == 0
    assert harmonic_mean(np.array([100.0, 96.4, 75.4])) == pytest.approx(89.2, abs=0.05)
    assert np.isnan(harmonic_mean(np.array([np.nan, 0.0, 1.0])))


def test_atlas_as_shipped_has_no_edit_in_it() -> None:
    model = ml.load_model("atlas")
    cases = ml.prompts.edit_cases(ml.prompts.world_edits(6, seed=1), paraphrases=3, neighbours=3)
    found = ml.evaluate_edit(model, cases)
    for name in ("efficacy", "paraphrase", "languages"):
        assert float(found[name].mean()) == 0
    for name in ("neighbourhood", "other_relations"):
        assert float(found[name].mean()) == 1
    exact = ml.evaluate_edit(model, cases, protocol="exact")
    assert float(exact.neighbourhood.mean()) == 1 and float(exact.efficacy.mean()) == 0


def test_an_evaluation_is_stored_and_read_back_whole(toy_model: ToyModel, tmp_path: Path) -> None:
    model, store = toy_model("mamba", "words"), ml.Store(tmp_path)
    other = EditRequest("{} was born in", "Ann", "Madrid", "Spain")
    cases = [EditCase(REQUEST, paraphrases=["France is near"]), EditCase(other)]
    first = store.run(ml.evaluate_edit, model, cases)
    again = ml.Store(tmp_path).run(ml.evaluate_edit, model, cases, max_batch=1)
    assert again.identical(first) and first.drop_attrs().identical(
        ml.evaluate_edit(model, cases).drop_attrs()
    )


def test_everything_is_refused_before_anything_runs(toy_model: ToyModel) -> None:
    model = toy_model("llama", "words")
    lacking = EditCase(EditRequest("The capital of {} is", "France", "Rome"))
    with pytest.raises(
        PromptError, match=r"2 prompts lack an object.*\n.*#0 rewrite 0.*target_true"
    ):
        ml.evaluate_edit(model, [lacking, CASES[0], lacking])
    strange = [EditCase(EditRequest("The zzz of {} is", "France", "Rome", "qqq"))] * 2
    with pytest.raises(PromptError, match="zzz"):
        ml.evaluate_edit(model, strange)
    for options, match in (
        ({"protocol": "rome"}, "protocol"),
        ({"generation_length": -1}, "generation_length"),
        ({"generation_length": 129}, "at most 128"),
        ({"generation_top_k": 0}, "generation_top_k"),
        ({"max_batch": 0}, "max_batch"),
    ):
        with pytest.raises(OptionError, match=match):
            ml.evaluate_edit(model, CASES[1], **options)  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="generation prompts have no room"):
        ml.evaluate_edit(toy_model("llama", "bpe"), CASES, generation_length=5)
