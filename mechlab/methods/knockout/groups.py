"""Groups of tokens by what they are in the prompt: the ends of attention edges."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from numbers import Integral
from typing import TYPE_CHECKING, Any

from mechlab.engine import plain_positions
from mechlab.errors import OptionError, PromptError
from mechlab.prompts import Fact, PromptPair, PromptSet, named_positions

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["GROUPS", "Group", "named_groups", "plain_groups", "resolve"]

Group = str | tuple[int, ...] | tuple[tuple[int, ...], ...]
"""A group's name or a place's, positions, negative ones counted from the end, or these per prompt.
"""

GROUPS = {
    "last": "the last token",
    "end": "the same",
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


def named_groups(prompts: PromptSet[Any], given: object, option: str) -> dict[str, Group]:
    """Return groups by label.

    Args:
        prompts: facts or pairs; the places of pairs are groups as well.
        given: a group, a list of names of groups, or a mapping from labels to groups; positions
            are a list of whole numbers, in a mapping also one list per prompt.
        option: name of the option, for messages.

    Raises:
        OptionError: names that no group has, positions that are no whole numbers, no group at all.
    """
    places = _places(prompts)
    if isinstance(given, Mapping):
        found = {str(k): _group(one, option, places, len(prompts)) for k, one in given.items()}
    elif isinstance(given, str) or _are_numbers(given):
        group = _group(given, option, places)
        found = {group if isinstance(group, str) else str(list(group)): group}
    elif isinstance(given, Iterable):
        found = {str(name): _group(name, option, places) for name in given}
    else:
        found = {}
    if not found:
        raise OptionError(f"{option}={given!r:.60} names no group. {_allowed(places)}")
    return found


def plain_groups(given: Any) -> Any:
    """Return the option in lists, numbers and names of Python, for groups and mappings of them."""
    if isinstance(given, Mapping):
        return {str(label): plain_positions(group) for label, group in given.items()}
    return plain_positions(given)


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
            if isinstance(group, tuple) and isinstance(group[0], tuple):
                group = group[index]
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


def _positions(model: "Model", prompt: Any, group: Any, length: int) -> Iterable[int] | str:
    """Return the positions of a group in one prompt, or what is wrong."""
    if not isinstance(group, str):
        outside = [pos for pos in group if not -length <= pos < length]
        problem = f"positions {outside} are not among its {length} tokens"
        return problem if outside else [pos % length for pos in group]
    start = 1 if model.prepend_bos else 0
    simple: dict[str, Callable[[], Iterable[int]]] = {
        "last": lambda: (length - 1,),
        "end": lambda: (length - 1,),
        "all": lambda: range(length),
        "all_before": lambda: range(length - 1),
    }
    if group in simple:
        return simple[group]()
    if group == "bos":
        return (0,) if start else f"{model.name} puts no beginning-of-sequence token in front"
    if group in ("answer", "wrong_answer"):
        return _answer_positions(model, prompt, group)
    if isinstance(prompt, PromptPair):
        held = [name for name, *_ in prompt.places]
        if group not in held:
            return f"it has no such place, but {', '.join(map(repr, held)) or 'none at all'}"
        return named_positions(model, [prompt], group)[0]
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


def _places(prompts: PromptSet[Any]) -> list[str]:
    """Return the places that any of the prompts has, as far as they are no groups."""
    if prompts.kind != "pair":
        return []
    return list(dict.fromkeys(name for pair in prompts for name, *_ in pair.places))


def _group(given: object, option: str, places: Sequence[str], prompts: int = 0) -> Group:
    """Return one group; one list per prompt is allowed where their number is given."""
    if isinstance(given, str) and (given in GROUPS or given in places):
        return given
    if isinstance(given, Sized) and len(given) == 0:
        raise OptionError(f"{option}: {given!r:.60} holds no token. {_allowed(places)}")
    if _are_numbers(given):
        return tuple(int(pos) for pos in given)  # type: ignore[attr-defined]
    lists = plain_positions(given)
    if prompts and isinstance(lists, list) and all(map(_are_numbers, lists)):
        if len(lists) != prompts or not all(lists):
            raise OptionError(
                f"{option}: {len(lists)} lists for {prompts} prompts, of {list(map(len, lists))} "
                "positions. Allowed: one list of one or more for each. Give as many."
            )
        return tuple(map(tuple, lists))
    raise OptionError(f"{option}: {given!r:.60} is not a group of tokens. {_allowed(places)}")


def _are_numbers(given: object) -> bool:
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        return False
    return all(isinstance(pos, Integral) and not isinstance(pos, bool) for pos in given)


def _allowed(places: Sequence[str]) -> str:
    names = ", ".join(dict.fromkeys((*GROUPS, *places)))
    return (
        f"Allowed: {names}, positions such as [1, 2, -3], or in a mapping one list of positions "
        "per prompt. Use these."
    )


def _check_kind(prompts: PromptSet[Any], groups: Mapping[str, Group]) -> None:
    subject = {"subject", "first_subject", "last_subject", "not_subject"}
    missing = {"fact": {"wrong_answer"}, "pair": subject - {*_places(prompts)}}[prompts.kind]
    if wrong := [group for group in groups.values() if isinstance(group, str) and group in missing]:
        raise OptionError(
            f"groups that a {prompts.kind} does not have: {', '.join(wrong)}. Subjects belong to "
            "facts, wrong answers and places to pairs. Use other groups or positions."
        )
