"""Prompts are checked when they are made."""

import pytest

from mechlab.errors import PromptError
from mechlab.prompts import Fact, PromptPair


def test_the_subject_span_is_the_first_occurrence() -> None:
    fact = Fact("In Rome, all roads lead to Rome or", "Rome", "out")
    assert fact.subject_span == (3, 7)
    assert fact.prompt[slice(*fact.subject_span)] == "Rome"


def test_a_later_occurrence_is_chosen_by_its_start() -> None:
    fact = Fact("In Rome, all roads lead to Rome or", "Rome", "out", subject_start=27)
    assert fact.subject_span == (27, 31)


@pytest.mark.parametrize("start", [-1, 4, 500])
def test_a_start_that_is_not_the_subject_is_refused(start: int) -> None:
    with pytest.raises(
        PromptError, match=rf"(?s)subject_start={start} of .* not 'Rome'.*Leave it out"
    ):
        Fact("In Rome, all roads lead to Rome or", "Rome", "out", subject_start=start)


@pytest.mark.parametrize("start", ["3", 3.0, True])
def test_a_start_that_is_no_whole_number_is_refused(start: object) -> None:
    with pytest.raises(PromptError, match="not a whole number"):
        Fact("In Rome, all roads lead to Rome or", "Rome", "out", subject_start=start)  # type: ignore[arg-type]


def test_a_subject_that_does_not_occur_is_refused() -> None:
    with pytest.raises(PromptError, match="'france' does not occur in the prompt 'The capital"):
        Fact("The capital of France is", "france", "Paris")


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_an_empty_prompt_and_subject_are_named_together(blank: str) -> None:
    with pytest.raises(
        PromptError, match="(?s)prompt is empty.*subject is empty.*Correct the fields"
    ):
        Fact(blank, blank, "Paris")


def test_a_blank_target_is_refused_but_none_may_be_expected() -> None:
    assert Fact("The capital of France is", "France").target == ""
    with pytest.raises(PromptError, match="target is empty"):
        Fact("The capital of France is", "France", " ")


def test_what_is_not_text_is_refused() -> None:
    with pytest.raises(PromptError, match="subject is int 7, not text"):
        Fact("7 is a number", 7, "x")  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="half a surrogate pair"):
        Fact("a \ud83d b", "a", "x")


def test_the_two_answers_of_a_pair_differ() -> None:
    with pytest.raises(PromptError, match="are both 'Paris'"):
        PromptPair("a", "b", " Paris", "Paris")
    with pytest.raises(PromptError, match="corrupted is empty.*wrong_answer is empty"):
        PromptPair("a", "", "Paris", "")


def test_a_prompt_does_not_change() -> None:
    fact = Fact("The capital of France is", "France", "Paris")
    with pytest.raises(AttributeError):
        fact.prompt = "x"  # type: ignore[misc]
    assert hash(fact) == hash(Fact("The capital of France is", "France", "Paris"))
