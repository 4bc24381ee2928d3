"""Requests to edit a fact, cases, and the readers of CounterFact, zsRE and own files."""

import pytest

from mechlab import prompts
from mechlab.errors import PromptError
from mechlab.prompts import EditRequest


def test_the_subject_stands_where_the_template_has_it_even_when_it_occurs_earlier():
    request = EditRequest("Is it a mad idea to visit Mad{}?", "a", "London")
    assert request.prompt == "Is it a mad idea to visit Mada?"
    start, end = request.subject_span
    assert (start, request.prompt[start:end]) == (29, "a")
    assert request.fact.subject_span == request.subject_span


def test_other_braces_are_plain_text_in_template_subject_and_target():
    request = EditRequest("In {0} and {x} the set {{}} of", "{curly} {}", "{n}")
    assert request.prompt == "In {0} and {x} the set {{curly} {}} of"
    assert request.fact.subject == "{curly} {}"


def test_everything_wrong_with_a_request_is_said_at_once():
    with pytest.raises(PromptError, match=r"template is empty.*subject is int 3.*target is empty"):
        EditRequest(" ", 3, "")  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="holds {} 0 times; target and target_true are both"):
        EditRequest("The capital of Poland is", "Poland", " London", "London")
    with pytest.raises(PromptError, match="holds {} 2 times"):
        EditRequest("{} and {}", "Poland", "London")


def test_a_request_is_keyed_by_what_it_says():
    request = EditRequest("The capital of {} is", "Poland", "London", target_true="Warsaw")
    assert EditRequest(**request.to_json()) == request
    assert request.label == "The capital of Poland is London"
    assert prompts.as_prompt_set(request.fact)[0].target == "Warsaw"
