"""Answers continue their prompt: the leading-space rule, merges, several tokens."""

import warnings

import pytest

from mechlab.errors import OptionError, PromptError
from mechlab.models import AnswerTokenWarning
from mechlab.models.answers import continuation


@pytest.mark.parametrize(
    ("prompt", "answer", "joined"),
    [("A is", "B", " B"), ("A is", " B", " B"), ("A is ", "B", "B"), ("A is", "\nB", "\nB")],
)
def test_one_space_stands_between_prompt_and_answer(prompt: str, answer: str, joined: str) -> None:
    assert continuation(prompt, answer) == joined


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_an_answer_has_the_same_tokens_with_and_without_its_space(toy_model, kind: str) -> None:
    model = toy_model("gpt2", kind)
    prompts = ["The capital of France is"] * 2
    bare, spaced = model.answer_tokens(prompts, ["Paris", " Paris"], answer="full")
    assert bare == spaced
    whole = model.tokenize("The capital of France is Paris").tokens[0].tolist()
    assert tuple(whole[-len(bare) :]) == bare


def test_the_first_token_is_the_first_of_all(fresh_model) -> None:
    model = fresh_model("gpt2", "bpe")
    prompts, answers = ["The capital of Peru is"] * 2, ["Lima", "Zürich"]
    full = model.answer_tokens(prompts, answers, answer="full")
    with pytest.warns(AnswerTokenWarning):
        first = model.answer_tokens(prompts, answers)
    assert first == [tokens[:1] for tokens in full]
    assert len(full[1]) > 1


def test_several_tokens_are_said_once_per_model(fresh_model) -> None:
    model = fresh_model("gpt2", "bpe")
    with pytest.warns(AnswerTokenWarning, match="1 of 1 answers have several tokens") as told:
        ((first,),) = model.answer_tokens(["The city of"], ["Zürich"])
    message = str(told[0].message)
    assert "Only the first token of an answer is scored" in message
    assert f"that is {model.token_string(first)!r} alone" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.answer_tokens(["The city of"], ["Zürich"])
        fresh_model("gpt2", "bpe").answer_tokens(["The city of"], ["Zürich"], answer="full")


def test_an_answer_that_changes_the_prompts_tokens_is_refused(toy_model) -> None:
    model = toy_model("gpt2", "bpe")  # " capital" is one token, so the free space merges into it
    assert model.token_strings("a capital")[-1] == " capital"
    with pytest.raises(PromptError, match=r"#1 'capital' changes the tokens of its prompt 'The '"):
        model.answer_tokens(["The", "The "], ["capital", "capital"])


def test_every_answer_that_cannot_be_used_is_named(toy_model) -> None:
    prompts = ["The capital of"] * 3
    with pytest.raises(PromptError, match="2 of 3 answers") as caught:
        toy_model("gpt2").answer_tokens(prompts, ["", "Paris", "  "])
    assert "#0" in str(caught.value) and "#2" in str(caught.value)
    with pytest.raises(PromptError, match="has no token for 'quokka'"):
        toy_model("gpt2").answer_tokens(prompts, ["Rome", "quokka", "Oslo"])


def test_a_full_answer_must_fit_into_the_context(toy_model) -> None:
    model = toy_model("gpt2")
    prompt = "the " * 126 + "the"  # 128 tokens with BOS: the context
    assert model.answer_tokens([prompt], ["Rome"], answer="full")
    with pytest.raises(PromptError, match="needs 129 tokens of a context of 128"):
        model.answer_tokens([prompt], ["Rome Italy"], answer="full")
    with pytest.warns(AnswerTokenWarning) if not model._warned else warnings.catch_warnings():
        assert model.answer_tokens([prompt], ["Rome Italy"]) == model.answer_tokens(
            [prompt], ["Rome"]
        )


def test_options_are_checked(toy_model) -> None:
    with pytest.raises(OptionError, match="answer='last'"):
        toy_model("gpt2").answer_tokens(["The"], ["Rome"], answer="last")
    with pytest.raises(OptionError, match="2 answers for 1 prompts"):
        toy_model("gpt2").answer_tokens(["The"], ["Rome", "Oslo"])
