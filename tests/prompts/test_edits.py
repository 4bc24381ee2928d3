"""Requests to edit a fact, cases, and the readers of CounterFact, zsRE and own files."""

import pytest

from mechlab import prompts
from mechlab.errors import PromptError
from mechlab.prompts import EditCase, EditRequest, ScoredPrompt


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


REQUEST = EditRequest("The capital of {} is", "Poland", "London", target_true="Warsaw")


def test_a_plain_text_is_scored_with_the_objects_of_the_request():
    case = EditCase(
        REQUEST,
        paraphrases=["Poland's capital is"],
        neighbourhood=[{"prompt": "The capital of Spain is", "target_true": "Madrid"}],
    )
    assert case.prompts_of("paraphrase") == (
        ScoredPrompt("Poland's capital is", "London", "Warsaw"),
    )
    assert case.neighbourhood == (ScoredPrompt("The capital of Spain is", "", "Madrid"),)
    assert case.prompts_of("rewrite")[0].prompt == REQUEST.prompt


def test_every_part_of_a_case_that_cannot_be_used_is_listed():
    with pytest.raises(PromptError) as caught:
        EditCase(
            REQUEST,
            paraphrases="Poland's capital is",  # type: ignore[arg-type]
            two_hop=["", ScoredPrompt("a", "b"), 3],  # type: ignore[arg-type,list-item]
            reference_texts=[" "],  # type: ignore[arg-type]
        )
    text = str(caught.value)
    for part in ("paraphrases is str", "two_hop #0: prompt is empty", "two_hop #2: int 3"):
        assert part in text
    assert "reference_texts #0" in text and "two_hop #1" not in text
    with pytest.raises(PromptError, match="are both 'b'"):
        ScoredPrompt("a", "b", " b")
    with pytest.raises(PromptError, match="Allowed: an EditRequest"):
        EditCase("The capital of Poland is London")  # type: ignore[arg-type]


def test_cases_make_a_prompt_set_of_their_own_kind():
    case = EditCase(REQUEST, paraphrases=["Poland's capital is"])
    cases = prompts.as_prompt_set([case, EditCase(REQUEST)], kind="edit")
    assert cases.kind == "edit" and len(set(cases.labels)) == 2
    assert cases.prompt_digest(0) != cases.prompt_digest(1)
    with pytest.raises(PromptError, match="not Fact"):
        prompts.as_prompt_set(case, kind="any")
