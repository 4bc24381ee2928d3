"""IOI prompts: who is repeated, what the corruptions change, positions by name."""

from collections import Counter
from collections.abc import Callable

import pytest
from published import public_tokenizer
from tokenizer_only import TokenizerOnly, atlas_tokenizer

from mechlab.errors import PromptError
from mechlab.models import Model
from mechlab.prompts import IOI_WORDS, IoiWords, PromptPair, ioi, named_positions

NAMES = set(IOI_WORDS.names)


def named(pair: PromptPair, corrupted: bool = False) -> list[str]:
    text = pair.corrupted if corrupted else pair.clean
    words = "".join(c if c.isalnum() else " " for c in text).split()
    return [word for word in words if word in NAMES]


def test_the_wrong_answer_is_repeated_and_the_answer_is_not() -> None:
    for pair in ioi(60):
        assert Counter(named(pair)) == {pair.answer: 1, pair.wrong_answer: 2}
        held = {name: pair.clean[a:b] for name, a, b in pair.places}
        assert held["io"] == pair.answer and held["s1"] == held["s2"] == pair.wrong_answer
        spans = {name: (a, b) for name, a, b in pair.places}
        assert spans["s1"][1] < spans["s1_next"][0] < spans["s1_next"][1] < spans["s2"][0]


def test_abc_names_three_others_and_the_rest_of_the_text_stays() -> None:
    for pair in ioi(60):
        others = named(pair, corrupted=True)
        assert len(set(others)) == 3 and not set(others) & {pair.answer, pair.wrong_answer}
        clean, corrupted = pair.clean, pair.corrupted
        for mine, other in zip(named(pair), others, strict=True):
            clean, corrupted = clean.replace(mine, "X"), corrupted.replace(other, "X")
        assert clean == corrupted


def test_third_and_swap_change_the_last_name_only() -> None:
    for pair, swapped in zip(ioi(20, corruption="third"), ioi(20, corruption="swap"), strict=True):
        assert pair.clean == swapped.clean
        *first, last = named(pair, corrupted=True)
        assert first == named(pair)[:2] and last not in first
        assert named(swapped, corrupted=True) == [*named(swapped)[:2], swapped.answer]


def test_both_orders_are_equally_frequent_and_groups_are_templates() -> None:
    pairs = ioi(100)
    assert Counter(pairs.about("order")) == {"ABBA": 50, "BABA": 50}
    for pair, group in zip(pairs, pairs.groups, strict=True):
        first = named(pair)[0]
        order = "ABBA" if first == pair.answer else "BABA"
        assert group == f"group ioi {dict(pair.about)['template']} {order}"


def test_same_arguments_same_bytes_and_more_begin_with_the_same() -> None:
    assert ioi(20, 1).digest == ioi(40, 1)[:20].digest != ioi(20, 2).digest


def test_with_a_model_all_names_have_one_length_and_positions_agree() -> None:
    model = atlas_tokenizer()
    pairs = ioi(12, model=model)
    clean, corrupted = (
        model.tokenize([getattr(p, side) for p in pairs]) for side in ("clean", "corrupted")
    )
    assert clean.lengths == corrupted.lengths
    first = pairs[0].places[0]
    assert named_positions(model, pairs, "s2", last_token=True) == named_positions(
        model, pairs, "c", last_token=True, corrupted=True
    )
    assert first[0] == "io"
    ends = [[length - 1] for length in clean.lengths]
    assert named_positions(model, pairs, "end") == ends


def test_our_names_are_single_tokens_of_gpt2() -> None:
    model = TokenizerOnly(public_tokenizer("gpt2"))
    pairs = ioi(100, model=model)
    found = [named_positions(model, pairs, name) for name in ("io", "s1", "s2")]
    assert all(len(at) == 1 for positions in found for at in positions)
    assert len({*pairs.about("io"), *pairs.about("s")}) > 50


def test_single_token_names_are_preferred(toy_model: Callable[..., Model]) -> None:
    model = toy_model("gpt2", "words")
    known = ("Ann", "Bob", "Mary", "John", "Paris", "Zanzibar", "Rome")
    words = IoiWords(("When {a} and {b} went to the {place} {c} gave the {object} to",),
                     known, ("store",), ("book",))  # fmt: skip
    pairs = ioi(10, model=model, words=words)
    assert not any("Zanzibar" in pair.clean + pair.corrupted for pair in pairs)
    assert all(len(at) == 1 for at in named_positions(model, pairs, "io"))
    with pytest.raises(PromptError, match="(?s)only 0 of 60 names have equally many.*words="):
        ioi(1, model=model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corruption": "xyz"}, "(?s)corruption=.*xyz.*'abc'"),
        ({"count": -1}, "count=-1"),
        ({"words": IoiWords(("{a} met {a} and {b}",), ("A",), (), ())},
         "(?s)has {a} 2 times.*has {c} 0 times.*1 different names.*empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        ioi(**options)  # type: ignore[arg-type]
