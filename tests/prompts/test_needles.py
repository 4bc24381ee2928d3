"""Needle prompts: builders, built-in texts, what is refused, and the reader of head scores."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mechlab.errors import PromptError
from mechlab.prompts import (
    NEEDLES,
    THEMES,
    Fact,
    Needle,
    NeedlePrompt,
    PromptSet,
    as_prompt_set,
    closed_book,
    haystack_text,
    needles,
    read_head_scores,
)

PROMPT = NeedlePrompt("It rained. It snowed.", "The key is under the mat.", "Where?", "the mat", 30)


def test_every_needle_stands_at_every_length_and_depth() -> None:
    found = needles([100, 200], 3, count=2)
    cells = [(p.name, p.length, p.depth) for p in found]
    names = [needle.name for needle in NEEDLES[:2]]
    assert cells == [(n, size, d) for n in names for size in (100, 200) for d in (0, 50, 100)]
    assert found.kind == "needle" and len(set(found.labels)) == 12
    assert sorted(set(found.groups)) == ["group text 0", "group text 1"]
    assert found.digest == needles([100, 200], [0, 50.0, 100], count=2).digest
    assert needles(100, 10)[1].depth == 11.0  # rounded, as published


@pytest.mark.parametrize("theme", THEMES)
def test_a_built_in_text_says_nothing_twice_and_begins_alike_at_every_length(theme: str) -> None:
    text = haystack_text(theme, 225_000)  # about 50,000 tokens
    sentences = re.split(r"(?<=\.)\s+", text)
    assert len(set(sentences)) == len(sentences) > 1000
    assert text.startswith(haystack_text(theme, 1000)) and text.endswith(".")
    assert haystack_text(theme, 1000, seed=1) != haystack_text(theme, 1000)
    words = set(re.findall(r"\w{4,}", text.lower()))
    for needle in NEEDLES:
        rare = set(re.findall(r"\w{4,}", needle.answer.lower())) - words
        assert len(rare) >= 2, f"{needle.name} could be answered from {theme}"


@pytest.mark.parametrize("form", ["atlas", "key-value"])
def test_drawn_answers_stand_in_their_needle_only(form: str) -> None:
    found = needles([60, 120], 4, form=form, count=3, seed=5)  # type: ignore[arg-type]
    for prompt in found:
        start, end = prompt.answer_span or (0, 0)
        assert prompt.needle[start:end] == prompt.answer
        assert not re.search(rf"\b{prompt.answer}\b", prompt.haystack.lower())
        assert prompt.needle.startswith(prompt.question) and prompt.question not in prompt.haystack
    assert len({prompt.answer for prompt in found}) > 12
    assert found.digest != needles([60, 120], 4, form=form, count=3, seed=6).digest  # type: ignore[arg-type]


def test_texts_and_needles_of_ones_own_are_taken() -> None:
    own = [Needle("A is b.", "What is A?", "b", "first"), Needle("C is d.", "What is C?", "d")]
    found = needles(None, [50], needles=own, haystacks=["One text. And more."])
    assert [(p.needle_name, p.length, p.haystack) for p in found] == [
        ("first", None, "One text. And more."), ("d", None, "One text. And more.")
    ]  # fmt: skip
    assert set(found.groups) == {"group text 0"}


def test_the_digest_holds_every_field_and_the_haystack_by_its_own_digest() -> None:
    changes = {"haystack": "It rained. It hailed.", "depth": 40.0, "length": 31, "stop": "."}
    digests = {PromptSet((replace(PROMPT, **{n: v}),)).digest for n, v in changes.items()}  # type: ignore[arg-type]
    assert len(digests | {PromptSet((PROMPT,)).digest}) == 5
    assert "rained" not in json.dumps(PROMPT.to_json())


def test_closed_book_leaves_only_the_question() -> None:
    (prompt,) = closed_book(PromptSet((PROMPT,)))
    assert (prompt.haystack, prompt.needle, prompt.length) == ("", "", None)
    assert (prompt.question, prompt.answer) == ("Where?", "the mat")
    (fact,) = closed_book(Fact("The capital of France is", "France", "Paris"))
    assert (fact.question, fact.answer, fact.needle) == ("The capital of France is", "Paris", "")
    with pytest.raises(PromptError, match="no target"):
        closed_book([Fact("The capital of France is", "France")])


def test_all_that_is_wrong_with_a_prompt_is_said_at_once() -> None:
    with pytest.raises(PromptError) as caught:
        NeedlePrompt("x", "a needle", " ", "", 0, 101.0, label="")
    text = str(caught.value)
    assert all(name in text for name in ("question is empty", "answer is empty", "length is 0"))
    assert "depth is 101" in text and "label is ''" in text


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"answer": "the rug"}, "'the rug' is not in the needle"),
        ({"answer": "..."}, "holds no word"),
        ({"answer_start": 3}, "answer_start=3 reads"),
        ({"needle": "", "answer_start": 3}, "without a needle"),
        ({"needle": "  "}, "needle is blank"),
        ({"depth": float("nan")}, "depth is nan"),
    ],
)
def test_a_needle_that_does_not_hold_its_answer_is_refused(
    changed: dict[str, object], text: str
) -> None:
    with pytest.raises(PromptError, match=text):
        replace(PROMPT, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"lengths": [100, 0]}, r"lengths=\[0\]"),
        ({"lengths": "long"}, "lengths='long'"),
        ({"lengths": None}, "have no end"),
        ({"depths": [0, 120]}, "depths="),
        ({"depths": 0}, "depths=0"),
        ({"form": "poem"}, "form"),
        ({"count": 7}, "from 1 to 6"),
        ({"form": "atlas", "needles": NEEDLES}, "draws both"),
        ({"haystacks": ["a.", "b."]}, "2 texts for 3 needles"),
        ({"needles": ["The key is under the mat."]}, "1 of 1 needles are none"),
        ({"seed": 0.5}, "seed=0.5"),
    ],
)
def test_a_set_that_cannot_be_built_is_refused(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(PromptError, match=text):
        needles(**{"lengths": [100], **arguments})  # type: ignore[arg-type]


def test_methods_for_facts_and_pairs_do_not_take_needles() -> None:
    assert as_prompt_set(PROMPT, "needle")[0] is PROMPT
    with pytest.raises(PromptError, match="NeedlePrompt"):
        as_prompt_set(PROMPT, "any")
    with pytest.raises(PromptError, match="not NeedlePrompt"):
        as_prompt_set(Fact("a b", "a"), "needle")


def test_published_head_scores_are_read_by_layer_and_head(tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    file.write_text('{"0-0": [1, 0.5], "0-2": [0.25], "3-1": []}')
    found = read_head_scores(file)
    assert dict(found.sizes) == {"layer": 4, "head": 3}
    assert found.retrieval_score.sel(layer=0).values[[0, 2]].tolist() == [0.75, 0.25]
    assert found.tests.values.sum() == 3 and np.isnan(found.retrieval_score).sum() == 10
    file.write_text('{"0-0": [1], "0:1": [1], "0-3": [true], "0-4": ["a"], "0-5": 1}')
    with pytest.raises(PromptError, match="4 entries of 5") as caught:
        read_head_scores(file)
    assert "'0:1'" in str(caught.value)
