"""Prompt sets: order, labels, digests, selection."""

import hashlib

import numpy as np
import pytest

from mechlab.errors import PromptError
from mechlab.prompts import Fact, PromptPair, PromptSet, as_prompt_set

FRANCE = Fact("The capital of France is", "France", "Paris")
ITALY = Fact("The capital of Italy is", "Italy", "Rome")
ROME = Fact("Rome lies in", "Rome", "Italy", label="Rome?")
PAIR = PromptPair(
    "John and Mary met, John gave it to", "John and Mary met, Mary gave it to", "Mary", "John"
)


def test_a_set_is_a_sequence_and_a_slice_a_set() -> None:
    prompts = PromptSet([FRANCE, ITALY, ROME], "places")  # type: ignore[arg-type]
    assert list(prompts) == [FRANCE, ITALY, ROME] and len(prompts) == 3
    assert prompts[-1] is ROME and prompts.index(ITALY) == 1
    assert prompts[1:] == PromptSet((ITALY, ROME), "places")
    assert prompts.kind == "fact" and PromptSet((PAIR,)).kind == "pair"
    assert "3 of kind 'fact'" in repr(prompts)


def test_the_digest_is_the_sha256_of_the_canonical_json() -> None:
    text = (
        '{"kind":"fact","prompts":[{"kind":"fact","label":null,"prompt":"The capital of France is",'
        '"subject":"France","subject_start":null,"target":"Paris"}]}'
    )
    assert PromptSet((FRANCE,)).digest == hashlib.sha256(text.encode()).hexdigest()


def test_the_digest_depends_on_contents_and_order_but_not_on_the_name() -> None:
    both = PromptSet((FRANCE, ITALY))
    assert both.digest == PromptSet((FRANCE, ITALY), "capitals").digest
    others = [(ITALY, FRANCE), (FRANCE,), (FRANCE, ROME)]
    assert len({both.digest, *(PromptSet(prompts).digest for prompts in others)}) == 4


def test_the_digest_of_a_prompt_depends_on_no_other_prompt() -> None:
    alone, among = PromptSet((ITALY,)), PromptSet((FRANCE, ITALY))
    assert alone.prompt_digest(0) == among.prompt_digest(1) != among.prompt_digest(0)


def test_repeated_labels_are_made_unique() -> None:
    named = [Fact("a b", "a", label=label) for label in ("x", "x (2)", "x", "x")]
    assert PromptSet(tuple(named)).labels == ("x", "x (2)", "x (3)", "x (4)")
    assert PromptSet((FRANCE, ROME)).labels == ("The capital of France is", "Rome?")


@pytest.mark.parametrize("chosen", [[True, False, True], np.array([1, 0, 1]) > 0, [0, 2], [-3, -1]])
def test_prompts_are_selected_by_mask_or_index(chosen: list[int]) -> None:
    assert PromptSet((FRANCE, ITALY, ROME)).select(chosen).prompts == (FRANCE, ROME)


def test_a_selection_that_does_not_fit_is_refused() -> None:
    prompts = PromptSet((FRANCE, ITALY))
    with pytest.raises(PromptError, match="mask has 3 values for 2 prompts"):
        prompts.select([True, False, True])
    with pytest.raises(PromptError, match=r"cannot select \[2\] from 2 prompts"):
        prompts.select([0, 2])
    with pytest.raises(PromptError, match="is empty"):
        prompts.select([False, False])


def test_one_prompt_a_list_and_a_set_all_become_a_set() -> None:
    prompts = as_prompt_set(FRANCE)
    assert prompts == as_prompt_set([FRANCE]) == as_prompt_set(iter([FRANCE]))
    assert as_prompt_set(prompts) is prompts


def test_the_wrong_kind_is_named_by_its_place() -> None:
    with pytest.raises(PromptError, match=r"1 of 2 prompts are not Fact: #1 \(PromptPair\)"):
        as_prompt_set([FRANCE, PAIR])
    with pytest.raises(PromptError, match=r"2 of 2 prompts are not PromptPair: #0 \(Fact\), #1"):
        as_prompt_set([FRANCE, ITALY], "pair")
    with pytest.raises(PromptError, match=r"1 of 1 prompts are not Fact: #0 \(str\)"):
        as_prompt_set(["The capital of France is"])


@pytest.mark.parametrize("junk", ["The capital of France is", 7, None])
def test_what_is_not_a_collection_is_refused(junk: object) -> None:
    with pytest.raises(PromptError, match="not a collection of prompts.*Fact\\(prompt, subject"):
        as_prompt_set(junk)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(PromptError, match="prompt set 'none' is empty.*at least one"):
        PromptSet((), "none")
