"""Places, groups and notes of pairs, and digests that they must not disturb."""

from collections.abc import Callable
from typing import Any

import pytest

from mechlab.canonical import digest
from mechlab.errors import PromptError
from mechlab.models import Model
from mechlab.prompts import PromptPair, PromptSet, named_positions
from mechlab.prompts.places import write

PLAIN = PromptPair("Paris is in", "Rome is in", "France", "Italy")
FULL = PromptPair(
    "Paris is in", "Rome is in", "France", "Italy", group="g", places=[("city", 0, 5)],  # type: ignore[arg-type]
    corrupted_places=(("city", 0, 4),), about=(("rank", 3), ("form", "x")),
)  # fmt: skip


def test_a_pair_without_extras_keeps_the_digest_it_always_had() -> None:
    as_it_was = {
        "kind": "pair", "clean": "Paris is in", "corrupted": "Rome is in", "answer": "France",
        "wrong_answer": "Italy", "label": None,
    }  # fmt: skip
    assert PLAIN.to_json() == as_it_was
    assert PromptSet((PLAIN,)).prompt_digest(0) == digest(as_it_was)
    assert PromptSet((FULL,)).digest != PromptSet((PLAIN,)).digest


def test_lists_become_tuples_so_that_pairs_stay_frozen() -> None:
    assert FULL.places == (("city", 0, 5),) and hash(FULL)


def test_groups_fall_back_to_the_prompt_itself() -> None:
    named = PromptPair("g", "x", "a", "b")
    pairs = PromptSet((PLAIN, FULL, FULL, named))
    assert pairs.groups == ("Paris is in", "group g", "group g", "g")


def test_what_is_known_of_all_pairs_is_a_column() -> None:
    assert PromptSet((FULL, FULL)).about("rank") == (3, 3)
    with pytest.raises(PromptError, match="(?s)1 of 2 prompts say nothing about 'rank': #1"):
        PromptSet((FULL, PLAIN)).about("rank")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"places": (("a", 0, 99),)}, "places holds"),
        ({"places": (("a", 3, 3),)}, "places holds"),
        ({"places": (("a", 5, 6),)}, "places holds"),
        ({"corrupted_places": (("a", 0, 5), ("a", 0, 1))}, "corrupted_places names a place twice"),
        ({"places": "abc"}, "places is str"),
        ({"group": " "}, "group is empty"),
        ({"about": (("rank", 1.5),)}, "about is"),
        ({"about": (("rank", 1), ("rank", 2))}, "about names something twice"),
    ],
)
def test_places_and_notes_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        PromptPair("Paris is in", "Rome is in", "France", "Italy", **fields)


def test_a_pattern_names_what_it_is_filled_with() -> None:
    written = write("{a} and {b}, {a}", {"a": "x", "b": "yz"})
    assert written.text == "x and yz, x"
    assert written.places == (("a", 0, 1), ("b", 6, 8), ("a_2", 10, 11))


def test_positions_are_those_of_the_whole_prompt(toy_model: Callable[..., Model]) -> None:
    model = toy_model("gpt2", "bpe")
    text = "In Zanzibar and Oslo, the river of"
    pair = PromptPair(text, text, "a", "b", places=(("z", 3, 11), ("o", 16, 20)))
    (found,) = named_positions(model, [pair], "z")
    pieces = model.token_strings(text)
    assert "".join(pieces[at] for at in found).strip() == "Zanzibar" and len(found) > 1
    assert named_positions(model, [pair], "z", last_token=True) == [found[-1:]]
    both = named_positions(model, [pair], "z", "end", last_token=True)
    assert both == [[found[-1], len(pieces) - 1]]


def test_unknown_places_are_listed_at_once(toy_model: Callable[..., Model]) -> None:
    with pytest.raises(PromptError, match="(?s)2 of 3 pairs.*#0.*'end'.*#2"):
        named_positions(toy_model("gpt2"), [PLAIN, FULL, PLAIN], "city")
    with pytest.raises(PromptError, match="no place is named"):
        named_positions(toy_model("gpt2"), [FULL])
