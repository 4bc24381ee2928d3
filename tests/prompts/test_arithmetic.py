"""Arithmetic prompts: right results, and what each change changes."""

from collections.abc import Callable
from typing import Any

import pytest

from mechlab.errors import PromptError
from mechlab.models import Model
from mechlab.prompts import ARITHMETIC_TEMPLATES, PromptPair, arithmetic, named_positions
from mechlab.prompts.arithmetic import result_of, spelled

changes = pytest.mark.parametrize("change", ["operands", "same_result", "operation"])
counts = pytest.mark.parametrize("operands", [2, 3])


def read(text: str, places: tuple[tuple[str, int, int], ...]) -> dict[str, int]:
    return {name: int(text[a:b]) for name, a, b in places}


def value(formula: str, numbers: dict[str, int]) -> float:
    """The value by Python's own rules."""
    return float(eval(formula.format(**{k: str(v) for k, v in numbers.items()})))


@changes
@counts
def test_both_results_are_those_of_python(change: Any, operands: Any) -> None:
    for pair in arithmetic(60, change=change, operands=operands):
        about = dict(pair.about)
        clean, corrupted = (
            read(pair.clean, pair.places),
            read(pair.corrupted, pair.corrupted_places),
        )
        assert value(str(about["formula"]), clean) == int(pair.answer) == about["result"]
        other = value(str(about["corrupted_formula"]), corrupted)
        if change == "same_result":
            assert other == int(pair.answer) and clean != corrupted
        else:
            assert other == int(pair.wrong_answer)
        assert max(*clean.values(), int(pair.answer)) <= 300
        assert (clean == corrupted) == (change == "operation")
        assert (about["formula"] != about["corrupted_formula"]) == (change == "operation")


def test_every_formula_is_drawn_and_results_differ() -> None:
    pairs = arithmetic(200)
    assert set(pairs.about("formula")) == {f for f in ARITHMETIC_TEMPLATES if "{z}" not in f}
    assert len(set(pairs.about("result"))) > 60
    assert arithmetic(50).digest == pairs[:50].digest != arithmetic(50, seed=1).digest


def test_numbers_are_spelled() -> None:
    assert [spelled(n) for n in (0, 13, 20, 47, 100, 212, 999)] == [
        "zero", "thirteen", "twenty", "forty-seven", "one hundred", "two hundred and twelve",
        "nine hundred and ninety-nine",
    ]  # fmt: skip
    assert len({spelled(n) for n in range(1000)}) == 1000
    pair: PromptPair = arithmetic(1, number_words=True)[0]
    assert not any(c.isdigit() for c in pair.clean + pair.answer)


def test_divisions_with_a_rest_have_no_result() -> None:
    assert result_of("{x}/{y}", {"x": 7, "y": 2}) is None
    assert result_of("{x}/{y}", {"x": 7, "y": 0}) is None
    assert result_of("({x}+{y})*{z}", {"x": 1, "y": 2, "z": 3}) == 9


def test_with_a_model_answers_are_single_tokens_and_prompts_align(
    toy_model: Callable[..., Model],
) -> None:
    model = toy_model("gpt2", "bpe")  # digits are tokens of their own here, spaces too
    templates = {"{x}-{y}": ("{x} minus {y} equals:\n",), "{x}+{y}": ("{x} plus {y} equals:\n",)}
    with pytest.raises(PromptError, match="(?s)no pair #0 .*results of one token"):
        arithmetic(2, templates=templates, model=model)
    words = toy_model("gpt2", "words")
    known = {"{x}-{y}": ("w1 {x} w2 {y} is",), "{x}+{y}": ("w3 {x} w2 {y} is",)}
    with pytest.raises(PromptError, match="no pair"):
        arithmetic(1, templates=known, model=words)  # no digits in its vocabulary


def test_single_digit_results_are_found_where_digits_are_tokens() -> None:
    pairs = arithmetic(10, model=_Digits(), maximum=99)
    assert all(len(p.answer) == len(p.wrong_answer) == 1 for p in pairs)
    assert all(len(p.clean) == len(p.corrupted) for p in pairs)
    found = named_positions(_Digits(), pairs, "y")
    assert found == named_positions(_Digits(), pairs, "y", corrupted=True)


class _Digits:
    """Every character is a token."""

    def tokenize(self, texts: Any) -> Any:
        class Tokens:
            lengths = tuple(map(len, texts))
            offsets = tuple(tuple((i, i + 1) for i in range(len(text))) for text in texts)

        return Tokens()

    def answer_tokens(self, prompts: Any, answers: Any, *, answer: Any) -> Any:
        return [tuple(map(ord, text)) for text in answers]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"change": "sign"}, "change="),
        ({"operands": 4}, "operands="),
        ({"maximum": 0}, "(?s)maximum=0.*from 1"),
        ({"maximum": 1000, "number_words": True}, "(?s)maximum=1000.*999"),
        ({"templates": {"{x}**{y}": ("{x} {y}",)}}, "(?s)formula holds.*Allowed"),
        ({"templates": {"{x}+": ("{x}",)}}, "cannot be read"),
        ({"templates": {"{x}+{y}": ("{x} and {x}",)}}, "(?s)1 templates do not hold"),
        ({"templates": {"{x}+{y}": ("{x} {y}",)}, "change": "operation"}, "1 formulas of 2"),
    ],
)
def test_what_cannot_be_made_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        arithmetic(**options)
