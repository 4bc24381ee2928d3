"""Arithmetic questions in pairs: other operands, the same result, or another operation.

Setting of Stolfo et al. 2023 (causal mediation of arithmetic); the templates are our own, and those
of the authors are read with `read_arithmetic_templates`. Results and operands are whole numbers
from 0 to `maximum`, and divisions leave no rest.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from mechlab.errors import PromptError
from mechlab.prompts.drawing import check_count, check_seed, chosen, is_whole, pick
from mechlab.prompts.kinds import PromptPair
from mechlab.prompts.places import Aligner, Tokenizes, Written, write
from mechlab.prompts.sets import PromptSet

__all__ = ["ARITHMETIC_TEMPLATES", "Change", "arithmetic", "result_of"]

Change = Literal["operands", "same_result", "operation"]

_TEMPLATES = {
    "{x}+{y}": (
        "{x} plus {y} equals",
        "The sum of {x} and {y} is",
        "Q: What is {x} plus {y}? A:",
        "If you have {x} apples and get {y} more, the number of your apples is",
    ),
    "{x}-{y}": (
        "{x} minus {y} equals",
        "The difference between {x} and {y} is",
        "Q: What is {x} minus {y}? A:",
        "If you have {x} apples and give away {y}, the number of your apples is",
    ),
    "{x}*{y}": (
        "{x} times {y} equals",
        "The product of {x} and {y} is",
        "Q: What is {x} times {y}? A:",
        "If {x} baskets hold {y} apples each, the number of apples is",
    ),
    "{x}/{y}": (
        "{x} over {y} equals",
        "The ratio of {x} and {y} is",
        "Q: What is {x} over {y}? A:",
        "If {x} apples are shared by {y} people, the number of apples for each is",
    ),
    "{x}+{y}+{z}": (
        "{x} plus {y} plus {z} equals",
        "Q: What is {x} plus {y} plus {z}? A:",
    ),
    "{x}+{y}-{z}": (
        "{x} plus {y} minus {z} equals",
        "Q: What is {x} plus {y} minus {z}? A:",
    ),
    "{x}-{y}+{z}": (
        "{x} minus {y} plus {z} equals",
        "Q: What is {x} minus {y} plus {z}? A:",
    ),
    "({x}+{y})*{z}": (
        "The sum of {x} and {y}, times {z}, equals",
        "Q: What is the sum of {x} and {y}, times {z}? A:",
    ),
}
ARITHMETIC_TEMPLATES: Mapping[str, tuple[str, ...]] = MappingProxyType(_TEMPLATES)
"""Questions by formula. Templates of the same number and as many operands differ in the operation
only, so that `change="operation"` exchanges the word for it."""

TRIES = 1000
"""So many draws are made for one pair before it is given up."""

_OPERATIONS: dict[type[ast.operator], Callable[[int, int], int | None]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a // b if b and a % b == 0 else None,
}


class _Task(NamedTuple):
    """What all draws have in common."""

    seed: int
    templates: Mapping[str, tuple[str, ...]]
    formulas: tuple[str, ...]
    change: str
    maximum: int
    words: bool
    aligner: Aligner


def result_of(formula: str, operands: Mapping[str, int]) -> int | None:
    """Return the value of a formula such as `"({x}+{y})*{z}"`, or `None` for a division with rest.

    Raises:
        PromptError: for anything but +, -, *, / and brackets over the operands.
    """
    return _value(_parsed(formula), operands)


def arithmetic(
    count: int = 64,
    seed: int = 0,
    *,
    operands: Literal[2, 3] = 2,
    change: Change = "operands",
    maximum: int = 300,
    number_words: bool = False,
    templates: Mapping[str, Sequence[str]] = ARITHMETIC_TEMPLATES,
    model: Tokenizes | None = None,
) -> PromptSet[PromptPair]:
    """Return pairs of arithmetic questions.

    `answer` is the result of the clean question, `wrong_answer` that of the corrupted one. With
    `change="same_result"` **both** questions have the result `answer`, and `wrong_answer` is a
    number that neither has. Pairs have the places `x`, `y` (and `z`), the group is the clean
    template, and `about` says `formula`, `corrupted_formula`, `template`, the operands, `result`.

    The same arguments give the same bytes, and a larger `count` begins with the same pairs.

    Args:
        count: how many pairs.
        seed: which numbers and templates.
        operands: how many numbers a question has.
        change: what differs in the corrupted question: `operands`, operands of the `same_result`,
            or the `operation` (the template of the same number of another formula).
        maximum: the largest operand and result.
        number_words: write "twelve" for 12, also in answers; up to 999.
        templates: questions by formula.
        model: the model that will read the prompts. With it, clean and corrupted prompts align
            place by place, and answers are single tokens that differ (where digits are tokens of
            their own, results are below 10).

    Raises:
        PromptError: an option outside its choices, templates that cannot be filled, or when no pair
            can be found.
    """
    check_seed(seed)
    check_count(count, "arithmetic pairs")
    chosen("operands", [operands], (2, 3))
    chosen("change", [change], get_args(Change))
    limit = 999 if number_words else 10**6
    if not is_whole(maximum) or not 1 <= maximum <= limit:
        raise PromptError(
            f"maximum={maximum!r}.\n  Allowed: whole numbers from 1 to {limit}.\n"
            "  Give one of these."
        )
    table = {formula: tuple(texts) for formula, texts in templates.items()}
    _check_templates(table)
    formulas = tuple(f for f in table if len(_fields(f)) == operands)
    if not formulas or (change == "operation" and len(formulas) < 2):
        raise PromptError(
            f"templates have {len(formulas)} formulas of {operands} operands.\n"
            "  Allowed: one or more, and two or more for change='operation'.\n"
            "  Give more templates."
        )
    task = _Task(seed, table, formulas, change, int(maximum), number_words, Aligner(model))
    pairs = [_pair(task, index) for index in range(count)]
    return PromptSet(tuple(pairs), f"arithmetic ({change})")


def _pair(task: _Task, index: int) -> PromptPair:
    for attempt in range(TRIES):
        label = (task.seed, "arithmetic", index, attempt)
        formula = pick(task.formulas, *label, "formula")
        number = pick(range(len(task.templates[formula])), *label, "template")
        clean = _drawn(task, formula, (*label, "clean"))
        if clean is None:
            continue
        found = _changed(task, formula, number, clean, label)
        if found is None:
            continue
        other, numbers, wrong = found
        result = result_of(formula, clean)
        assert result is not None
        texts = [_write(task, formula, number, clean), _write(task, other, number, numbers)]
        shapes = task.aligner.shapes(texts)
        answers = [_spelled(task, result), _spelled(task, wrong)]
        if None in shapes or shapes[0] != shapes[1] or texts[0].text == texts[1].text:
            continue
        if task.aligner.first_tokens_differ(texts[0].text, answers, whole=True):
            about: dict[str, str | int] = {"formula": formula, "corrupted_formula": other}
            about["template"] = number
            about |= {**clean, "result": result}
            return PromptPair(
                texts[0].text,
                texts[1].text,
                answers[0],
                answers[1],
                group=f"arithmetic {formula} {number}",
                places=texts[0].places,
                corrupted_places=texts[1].places,
                about=tuple(about.items()),
            )
    raise PromptError(
        f"no pair #{index} with change={task.change!r} and numbers up to {task.maximum} was found "
        f"in {TRIES} draws.\n  Allowed: templates whose results reach the range and, with model=, "
        "results of one token.\n  Change maximum= or the templates."
    )


def _drawn(task: _Task, formula: str, label: tuple[object, ...]) -> dict[str, int] | None:
    """Return operands whose result is in range, or `None`."""
    numbers = {f: pick(range(task.maximum + 1), *label, f) for f in _fields(formula)}
    if "*" in formula or "/" in formula:  # small factors, or hardly any result is in range
        small = max(1, int(task.maximum**0.5))
        numbers = {f: pick(range(1, small + 1), *label, f) for f in numbers}
    if formula == "{x}/{y}":
        numbers["x"] *= numbers["y"]
    result = result_of(formula, numbers)
    return numbers if result is not None and 0 <= result <= task.maximum else None


def _changed(
    task: _Task, formula: str, number: int, clean: dict[str, int], label: tuple[object, ...]
) -> tuple[str, dict[str, int], int] | None:
    """Return formula, operands and wrong answer of the corrupted question, or `None`."""
    result = result_of(formula, clean)
    if task.change == "operation":
        others = [f for f in task.formulas if f != formula and number < len(task.templates[f])]
        if not others:
            return None
        other = pick(others, *label, "other")
        wrong = result_of(other, clean)
        fits = wrong is not None and 0 <= wrong <= task.maximum and wrong != result
        return (other, clean, wrong) if fits and wrong is not None else None
    numbers = _drawn(task, formula, (*label, "corrupted"))
    if numbers is None:
        return None
    other_result = result_of(formula, numbers)
    assert other_result is not None and result is not None
    if task.change == "operands":
        return (formula, numbers, other_result) if other_result != result else None
    moved = _same_result(task, formula, clean, label)
    return (formula, moved, other_result) if moved and other_result != result else None


def _same_result(
    task: _Task, formula: str, clean: dict[str, int], label: tuple[object, ...]
) -> dict[str, int] | None:
    """Return other operands with the same result: all but the first are drawn, the first solved."""
    result = result_of(formula, clean)
    rest = {f: pick(range(task.maximum + 1), *label, "same", f) for f in clean if f != "x"}
    if "*" in formula or "/" in formula:
        small = max(1, int(task.maximum**0.5))
        rest = {f: pick(range(1, small + 1), *label, "same", f) for f in rest}
    for x in range(task.maximum + 1):
        numbers = {"x": x, **rest}
        if numbers != clean and result_of(formula, numbers) == result:
            return {field: numbers[field] for field in clean}
    return None


def _write(task: _Task, formula: str, number: int, numbers: Mapping[str, int]) -> Written:
    text = task.templates[formula][number].rstrip()
    return write(text, {field: _spelled(task, value) for field, value in numbers.items()})


def _spelled(task: _Task, value: int) -> str:
    return spelled(value) if task.words else str(value)


_SMALL = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen""".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def spelled(value: int) -> str:
    """Return a number from 0 to 999 in words, as in "two hundred and twelve"."""
    if value < 20:
        return _SMALL[value]
    if value < 100:
        tens = _TENS[value // 10 - 2]
        return f"{tens}-{_SMALL[value % 10]}" if value % 10 else tens
    hundreds = f"{_SMALL[value // 100]} hundred"
    return f"{hundreds} and {spelled(value % 100)}" if value % 100 else hundreds


@cache
def _parsed(formula: str) -> ast.expr:
    try:
        return ast.parse(formula.replace("{", "").replace("}", ""), mode="eval").body
    except SyntaxError as err:
        raise PromptError(
            f"formula {formula!r} cannot be read.\n  Allowed: +, -, *, / and brackets over {{x}}, "
            "{y}, {z}.\n  Correct it."
        ) from err


def _fields(formula: str) -> tuple[str, ...]:
    return tuple(field for field in "xyz" if f"{{{field}}}" in formula)


def _value(node: ast.expr, operands: Mapping[str, int]) -> int | None:
    if isinstance(node, ast.Name) and node.id in operands:
        return operands[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _value(node.left, operands), _value(node.right, operands)
        if left is None or right is None:
            return None
        return _OPERATIONS[type(node.op)](left, right)
    raise PromptError(
        f"a formula holds {ast.unparse(node)!r}.\n  Allowed: +, -, *, / and brackets over its "
        "operands.\n  Correct it."
    )


def _check_templates(templates: Mapping[str, tuple[str, ...]]) -> None:
    problems = []
    for formula, texts in templates.items():
        fields = _fields(formula)
        result_of(formula, dict.fromkeys(fields, 1))
        problems += [
            f"{text!r} of {formula!r}"
            for text in texts
            if any(text.count(f"{{{field}}}") != 1 for field in fields)
            or text.count("{") != len(fields)
        ]
        if not texts or not fields:
            problems.append(f"{formula!r} has no template or no operand")
    if problems:
        raise PromptError(
            f"{len(problems)} templates do not hold each operand of their formula once: "
            f"{'; '.join(problems)}.\n  Write {{x}}, {{y}}, {{z}} where the numbers stand."
        )
