"""Conflict prompts: the sign, the four answers, alignment, and the same bytes every time."""

import re
import unicodedata
from typing import Any

import numpy as np
import pytest
from tokenizer_only import atlas_tokenizer

from mechlab.errors import PromptError
from mechlab.prompts import CONFLICT_FORMS, capital_conflicts, conflicts, countries, named_positions
from mechlab.prompts.countries import RELATIONS

BY_NAME = {country.name: country for country in countries()}
forms = pytest.mark.parametrize("form", CONFLICT_FORMS)


@forms
def test_the_answer_is_in_the_context_and_the_wrong_answer_in_the_world(form: str) -> None:
    for pair in conflicts(24, relations=RELATIONS, form=form):  # type: ignore[arg-type]
        about = dict(pair.about)
        country, relation = BY_NAME[str(about["country"])], str(about["relation"])
        assert country.answer(relation) == pair.wrong_answer != pair.answer
        assert about["rank"] == country.rank
        stated = countries()[int(about["stated_rank"])].answer(relation)
        assert stated == pair.answer
        said = {pair.clean[a:b] for name, a, b in pair.places if name.startswith("stated")}
        asked = {pair.clean[a:b] for name, a, b in pair.places if name.startswith("country")}
        assert said == {pair.answer} and asked == {country.name}
        assert pair.group == f"{relation} {form} {about['template']}"
        assert f"rank {country.rank}" in str(pair.label)


@forms
def test_corrupted_prompts_say_the_same_of_another_country_with_other_answers(form: str) -> None:
    for pair in conflicts(24, relations=RELATIONS, form=form):  # type: ignore[arg-type]
        name, stated = (
            next(pair.corrupted[a:b] for place, a, b in pair.corrupted_places if place == wanted)
            for wanted in ("country", "stated")
        )
        relation = str(dict(pair.about)["relation"])
        four = {pair.answer, pair.wrong_answer, stated, BY_NAME[name].answer(relation)}
        assert len(four) == 4
        own = pair.clean.replace(pair.answer, "STATED").replace(
            str(dict(pair.about)["country"]), "COUNTRY"
        )
        assert own == pair.corrupted.replace(stated, "STATED").replace(name, "COUNTRY")


def letters(text: str) -> list[str]:
    plain = "".join(c for c in unicodedata.normalize("NFD", text.casefold()) if c < "\u0300")
    return [word for word in re.split("[^a-z]+", plain) if len(word) > 2]


@forms
def test_no_answer_can_be_read_off_a_name_in_its_prompt(form: str) -> None:
    for pair in conflicts(60, relations=RELATIONS, form=form):  # type: ignore[arg-type]
        sides = (
            (pair.clean, pair.places, [pair.answer, pair.wrong_answer]),
            (pair.corrupted, pair.corrupted_places, [pair.answer, pair.wrong_answer]),
        )
        for text, places, answers in sides:
            here = {name: text[a:b] for name, a, b in places}
            names = f"{here['country']} {here.get('distractor', '')}"
            held = [here["stated"], *answers] if text == pair.clean else [here["stated"]]
            for word in (word for answer in held for word in letters(answer)):
                for other in letters(names):
                    assert word[:3] != other[:3] or other in ("the", "and"), pair.label
                    assert len(word) < 4 or word not in other, pair.label
                    assert len(other) < 4 or other not in word, pair.label
            spare = text
            for part in sorted(here.values(), key=len, reverse=True):
                spare = spare.replace(part, " ")
            for answer in answers:
                assert not set(letters(answer)) & set(letters(spare)), pair.label


def test_the_documentation_counts_the_countries_that_are_left_out() -> None:
    asked = {
        relation: {
            str(dict(pair.about)["country"])
            for pair in conflicts(None, relations=relation, templates=0)
        }
        for relation in RELATIONS
    }
    counts = [f"{len(BY_NAME) - len(there)} for `{name}`" for name, there in asked.items()]
    text = " ".join(str(conflicts.__doc__).split())
    assert f"Of the table's {len(BY_NAME)} countries this leaves out" in text
    for count in counts:
        assert count in text, counts
    for country in ("Tunisia", "Guatemala", "Mexico", "Algeria", "Singapore", "Guinea-Bissau"):
        assert country not in asked["capital"]
    assert {"France", "Poland", "Egypt"} <= asked["capital"]


def test_same_arguments_same_bytes_and_more_begin_with_the_same() -> None:
    first = conflicts(20, seed=3)
    assert first.digest == conflicts(20, seed=3).digest
    assert conflicts(30, seed=3)[:20].digest == first.digest
    assert conflicts(20, seed=4).digest != first.digest
    assert capital_conflicts(20, seed=3).digest == first.digest


def test_repeating_forms_say_the_sentence_twice_and_questions_ask() -> None:
    repeat, question = (conflicts(1, form=form, templates=0)[0] for form in ("repeat", "question"))
    stem = repeat.clean.split(f" {repeat.answer}. ")
    assert stem[0] == stem[1] and stem[0].startswith("The capital of ")
    assert " Q: What is the capital of " in question.clean and question.clean.endswith("A:")


@forms
def test_with_a_model_pairs_align_place_by_place(form: str) -> None:
    model = atlas_tokenizer()
    pairs = conflicts(12, relations=RELATIONS, form=form, model=model)  # type: ignore[arg-type]
    lengths = [model.tokenize([p.clean, p.corrupted]).lengths for p in pairs]
    assert all(a == b for a, b in lengths)
    for name in ("country", "stated", "end"):
        assert named_positions(model, pairs, name) == named_positions(
            model, pairs, name, corrupted=True
        )
    for pair in pairs:
        right, wrong = model.answer_tokens(
            [pair.clean] * 2, [pair.answer, pair.wrong_answer], answer="full"
        )
        assert right[0] != wrong[0]
    assert {length for length, _ in lengths} != {lengths[0][0]}  # not of one length by chance


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "sonnet"}, "(?s)form=.*'sonnet'.*Allowed.*'repeat'"),
        ({"relations": ["anthem"]}, "(?s)relations=.*anthem.*Allowed"),
        ({"templates": [99]}, "(?s)templates=.*99.*Allowed"),
        ({"count": 0}, "(?s)count=0.*Allowed"),
        ({"count": 999, "templates": 0}, "(?s)only [0-9]+ of 197 conflicts.* of 999 asked for"),
        ({"seed": "x"}, "(?s)seed='x'.*Allowed"),
    ],
)
def test_what_cannot_be_made_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        conflicts(**options)  # type: ignore[arg-type]


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    made = conflicts(np.int64(6), np.int32(3), templates=np.array([0, 2]))  # type: ignore[arg-type]
    assert made.digest == conflicts(6, 3, templates=[0, 2]).digest
    one = conflicts(np.int64(4), templates=np.int64(2))  # type: ignore[arg-type]
    assert one.digest == conflicts(4, templates=2).digest
    options: list[dict[str, Any]] = [
        {"count": True},
        {"seed": False},
        {"templates": True},
        {"templates": [np.float32(1)]},
        {"templates": np.array([True, False])},
    ]
    for option in options:
        with pytest.raises(PromptError, match=f"{next(iter(option))}=.*\n.*Allowed"):
            conflicts(**option)
