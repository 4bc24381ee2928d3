"""Groups of tokens by what they are in the prompt: the ends of attention edges."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from numbers import Integral
from typing import TYPE_CHECKING, Any

from mechlab.errors import OptionError, PromptError
from mechlab.prompts import Fact, PromptSet

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["GROUPS", "Group", "named_groups", "resolve"]

Group = str | tuple[int, ...]
"""A group's name, or positions, negative ones counted from the end."""

GROUPS = {
    "last": "the last token",
    "all": "every token",
    "all_before": "every token but the last",
    "bos": "the beginning-of-sequence token",
    "subject": "the subject of a fact",
    "first_subject": "the first token of the subject",
    "last_subject": "the last token of the subject",
    "not_subject": "every token but the subject, the last one and the beginning of sequence",
    "answer": "the answer where it stands in the prompt (the target of a fact)",
    "wrong_answer": "the wrong answer of a pair where it stands in the prompt",
}
"""The groups that have a name, and what each holds."""


def named_groups(given: object, option: str) -> dict[str, Group]:
    """Return groups by label.

    Args:
        given: a group, a list of names of groups, or a mapping from labels to groups; positions
            are a list of whole numbers.
        option: name of the option, for messages.

    Raises:
        OptionError: names that no group has, positions that are no whole numbers, no group at all.
    """
    if isinstance(given, Mapping):
        found = {str(label): _group(group, option) for label, group in given.items()}
    elif isinstance(given, str) or _are_numbers(given):
        group = _group(given, option)
        found = {group if isinstance(group, str) else str(list(group)): group}
    elif isinstance(given, Iterable):
        found = {str(name): _group(name, option) for name in given}
    else:
        found = {}
    if not found:
        raise OptionError(f"{option}={given!r:.60} names no group. {_allowed()}")
    return found


def resolve(
    model: "Model", prompts: PromptSet[Any], groups: Mapping[str, Group], lengths: Sequence[int]
) -> list[dict[str, tuple[int, ...]]]:
    """Return the positions of every group in every prompt, sorted.

    Raises:
        OptionError: a group that prompts of this kind do not have.
        PromptError: groups that some prompts do not have; all of them at once.
    """
    _check_kind(prompts, groups)
    problems: list[str] = []
    found: list[dict[str, tuple[int, ...]]] = []
    for index, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        here: dict[str, tuple[int, ...]] = {}
        for label, group in groups.items():
            positions = _positions(model, prompt, group, length)
            if not isinstance(positions, str):
                positions = tuple(sorted(set(positions))) or "it holds no token"
            if isinstance(positions, str):
                problems.append(f"  #{index} {prompt.text!r:.60}: {label!r}: {positions}")
            else:
                here[label] = positions
        found.append(here)
    if problems:
        raise PromptError(
            f"{len(problems)} groups of tokens are not there:\n"
            + "\n".join(problems)
            + "\n  Allowed: groups that every prompt has. Leave these prompts out, or name other "
            "groups; model.show_tokens(text) shows the positions."
        )
    return found


def _positions(model: "Model", prompt: Any, group: Group, length: int) -> Iterable[int] | str:
    """Return the positions of a group in one prompt, or what is wrong."""
    if not isinstance(group, str):
        outside = [pos for pos in group if not -length <= pos < length]
        problem = f"positions {outside} are not among its {length} tokens"
        return problem if outside else [pos % length for pos in group]
    start = 1 if model.prepend_bos else 0
    simple: dict[str, Callable[[], Iterable[int]]] = {
        "last": lambda: (length - 1,),
        "all": lambda: range(length),
        "all_before": lambda: range(length - 1),
    }
    if group in simple:
        return simple[group]()
    if group == "bos":
        return (0,) if start else f"{model.name} puts no beginning-of-sequence token in front"
    if group in ("answer", "wrong_answer"):
        return _answer_positions(model, prompt, group)
    first, last = model.subject_positions(prompt)
    return {
        "subject": range(first, last + 1),
        "first_subject": (first,),
        "last_subject": (last,),
        "not_subject": [p for p in range(start, length - 1) if not first <= p <= last],
    }[group]


def _answer_positions(model: "Model", prompt: Any, group: str) -> Iterable[int] | str:
    """Return the tokens of an answer, everywhere it stands in the prompt."""
    answer = prompt.target if isinstance(prompt, Fact) else getattr(prompt, group)
    words, text = answer.strip(), prompt.text
    starts = [i for i in range(len(text)) if words and text.startswith(words, i)]
    starts = [i for i in starts if _is_word(text, i, i + len(words))]
    spans = [model.subject_positions(Fact(text, words, subject_start=start)) for start in starts]
    if not spans:
        return f"{words!r} does not stand in the prompt"
    return [pos for first, last in spans for pos in range(first, last + 1)]


def _is_word(text: str, start: int, end: int) -> bool:
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    return not (before.isalnum() or after.isalnum())


def _group(given: object, option: str) -> Group:
    if isinstance(given, str) and given in GROUPS:
        return given
    if isinstance(given, Sized) and len(given) == 0:
        raise OptionError(f"{option}: {given!r:.60} holds no token. {_allowed()}")
    if _are_numbers(given):
        return tuple(int(pos) for pos in given)  # type: ignore[attr-defined]
    raise OptionError(f"{option}: {given!r:.60} is not a group of tokens. {_allowed()}")


def _are_numbers(given: object) -> bool:
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        return False
    return all(isinstance(pos, Integral) and not isinstance(pos, bool) for pos in given)


def _allowed() -> str:
    return f"Allowed: {', '.join(GROUPS)}, or positions such as [1, 2, -3]. Use these."


def _check_kind(prompts: PromptSet[Any], groups: Mapping[str, Group]) -> None:
    subject = {"subject", "first_subject", "last_subject", "not_subject"}
    missing = {"fact": {"wrong_answer"}, "pair": subject}[prompts.kind]
    if wrong := [group for group in groups.values() if isinstance(group, str) and group in missing]:
        raise OptionError(
            f"groups that a {prompts.kind} does not have: {', '.join(wrong)}. Subjects belong to "
            "facts, wrong answers to pairs. Use other groups or positions."
        )
