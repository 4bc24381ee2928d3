"""The option `positions`: where senders are patched, for all pairs alike or pair by pair."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.engine import Node
from mechlab.errors import OptionError, PromptError
from mechlab.prompts import PromptPair, PromptSet, named_positions

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Where", "check_site_positions", "plain_positions", "positions_of"]

Where = tuple[int, ...] | None
"""Positions counted from the start, sorted; `None` for all of them."""


def plain_positions(given: Any) -> Any:
    """Return the option in lists and numbers of Python: arrays, ranges and iterators are spelled.

    What is recorded of a call, and what its key in the store is made of, is the same however
    positions were given.
    """
    if hasattr(given, "tolist"):
        return given.tolist()
    if hasattr(given, "__array__"):
        return np.asarray(given).tolist()
    if isinstance(given, Integral) and not isinstance(given, bool):
        return int(given)
    if isinstance(given, str | bytes | bytearray | Mapping) or not isinstance(given, Iterable):
        return given
    return [plain_positions(item) for item in given]


def positions_of(
    model: "Model", pairs: PromptSet[PromptPair], given: object, lengths: Sequence[int]
) -> list[Where]:
    """Return the positions of each pair.

    Args:
        model: the model, which finds the tokens of named places.
        pairs: the pairs.
        given: `all`, `last`, whole numbers, names of places, or a list of either per pair.
        lengths: tokens of each pair's prompts.

    Raises:
        OptionError: what is none of these, truth values, positions named twice, places that no
            pair has.
        PromptError: positions or places that a prompt does not have, and two positions that are
            one token of it; all offenders at once.
    """
    given = plain_positions(given)
    if given == "all":
        return [None] * len(lengths)
    lists = [[-1]] * len(lengths) if given == "last" else _lists(given, len(lengths))
    _refuse_absent(lists, lengths)
    named = _places(model, pairs, lists)
    found: list[Where] = []
    for index, (here, length) in enumerate(zip(lists, lengths, strict=True)):
        numbers = named[index] if index in named else [pos % length for pos in here]
        found.append(tuple(sorted(numbers)))
    return found


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


# --- what was given -------------------------------------------------------------------------------


def _lists(given: Any, count: int) -> list[list[Any]]:
    """Return one list of numbers or of names per pair.

    Raises:
        OptionError: with all that is wrong.
    """
    listed = given if isinstance(given, list) else [given]
    per_pair = bool(listed) and all(isinstance(one, list) for one in listed)
    lists = listed if per_pair else [listed]
    problems = [
        f"{problem} in the list of pair #{index}" if per_pair else problem
        for index, one in enumerate(lists)
        for problem in _problems(one)
    ]
    if per_pair and len(lists) != count:
        problems.append(f"{len(lists)} lists for {count} pairs")
    if problems:
        raise OptionError(
            f"positions={given!r:.80}: {'; '.join(problems[:10])}. Allowed: 'all', 'last', a list "
            "of different whole numbers (negative ones count from the end) or of names of places, "
            f"or one such list for each of the {count} pairs. Use one of these."
        )
    return lists if per_pair else [listed] * count


def _problems(one: list[Any]) -> list[str]:
    if not one:
        return ["no position"]
    if truths := [value for value in one if isinstance(value, bool)]:
        what = ", ".join(map(repr, dict.fromkeys(truths)))
        return [f"truth values ({what}) are no positions; np.flatnonzero makes them of a mask"]
    if wrong := [value for value in one if not (_is_whole(value) or isinstance(value, str))]:
        return [f"{', '.join(f'{value!r:.30}' for value in wrong[:5])} cannot be used"]
    if len({isinstance(value, str) for value in one}) > 1:
        return ["numbers and names in one list"]
    twice = [value for value in dict.fromkeys(one) if one.count(value) > 1]
    return [f"{', '.join(map(repr, twice))} named twice"] if twice else []


# --- against the prompts --------------------------------------------------------------------------


def _refuse_absent(lists: Sequence[Sequence[Any]], lengths: Sequence[int]) -> None:
    """Refuse numbers outside a prompt, and numbers that are one token of it.

    Raises:
        PromptError: naming all of them.
    """
    outside, meeting = [], []
    for index, (here, length) in enumerate(zip(lists, lengths, strict=True)):
        numbers = [pos for pos in here if not isinstance(pos, str)]
        if bad := [pos for pos in numbers if not -length <= pos < length]:
            outside.append(f"#{index} ({length} tokens): {bad}")
        elif twice := [pos for pos in numbers if pos < 0 and pos + length in numbers]:
            both = ", ".join(f"{pos + length} and {pos}" for pos in twice)
            meeting.append(f"#{index} ({length} tokens): {both}")
    if outside:
        raise PromptError(
            f"{len(outside)} of {len(lengths)} prompts do not have these positions: "
            f"{', '.join(outside)}.\n  Allowed: positions inside each prompt, negative ones counted"
            " from the end.\n  Give a list per pair where prompts differ."
        )
    if meeting:
        raise PromptError(
            f"positions name one token twice in {len(meeting)} of {len(lengths)} prompts: "
            f"{', '.join(meeting)}.\n  Allowed: different tokens.\n  Count all positions from the "
            "start, or all from the end."
        )


def _places(
    model: "Model", pairs: PromptSet[PromptPair], lists: Sequence[Sequence[Any]]
) -> dict[int, list[int]]:
    """Return the tokens of named places by pair; pairs with numbers are left out.

    Raises:
        OptionError: places that no pair has.
        PromptError: places that some pairs do not have, or have at other tokens in the corrupted
            prompt; all of them at once.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, here in enumerate(lists):
        if isinstance(here[0], str):
            groups.setdefault(tuple(here), []).append(index)
    _refuse_unknown(pairs, groups)
    found: dict[int, list[int]] = {}
    problems: list[str] = []
    for names, members in groups.items():
        clean = named_positions(model, [pairs[i] for i in members], *names)
        found |= dict(zip(members, clean, strict=True))
        for index in members:
            problems += _shifted(model, pairs[index], names, index)
    if problems:
        raise PromptError(
            f"{len(problems)} places are not at the same tokens of both prompts:\n"
            + "\n".join(problems)
            + "\n  Allowed: places that clean and corrupted prompt have at the same tokens.\n"
            "  Leave these pairs out, or give positions as numbers."
        )
    return found


def _refuse_unknown(
    pairs: PromptSet[PromptPair], groups: Mapping[tuple[str, ...], Sequence[int]]
) -> None:
    known = [{name for name, *_ in pair.places} | {"end"} for pair in pairs]
    names = dict.fromkeys(name for group in groups for name in group)
    if nowhere := [name for name in names if not any(name in held for held in known)]:
        everywhere = ", ".join(map(repr, sorted(set.union(*known))))
        raise OptionError(
            f"positions={', '.join(map(repr, nowhere))}: no pair has such a place. Allowed: 'all', "
            f"'last', whole numbers, or the places of these pairs: {everywhere}. Use one of these."
        )
    lacking = [
        f"  #{index} {pairs[index].clean!r:.60} lacks {', '.join(map(repr, missing))}; it has "
        f"{', '.join(map(repr, sorted(known[index])))}"
        for group, members in groups.items()
        for index in members
        if (missing := [name for name in group if name not in known[index]])
    ]
    if lacking:
        raise PromptError(
            f"{len(lacking)} of {len(pairs)} pairs do not have these places:\n"
            + "\n".join(lacking)
            + "\n  Allowed: places that each pair has.\n  Give a list per pair where pairs differ."
        )


def _shifted(model: "Model", pair: PromptPair, names: Sequence[str], index: int) -> list[str]:
    """Return the places that stand elsewhere in the corrupted prompt, as far as it names them."""
    there = {name for name, *_ in pair.corrupted_places}
    both = [
        (name, *(named_positions(model, [pair], name, corrupted=side)[0] for side in (False, True)))
        for name in names
        if name in there
    ]
    return [f"  #{index} {name!r}: {a} and {b}" for name, a, b in both if a != b]


def check_site_positions(nodes: Sequence[Node], lengths: Sequence[int]) -> None:
    """Refuse sites at positions that some prompt does not have.

    Raises:
        PromptError: naming all of them.
    """
    named = sorted({site.pos for node in nodes for site in node if site.pos is not None})
    if not (far := [pos for pos in named if pos >= min(lengths)]):
        return
    short = [f"#{i} ({length} tokens)" for i, length in enumerate(lengths) if length <= max(far)]
    raise PromptError(
        f"a node names position {', '.join(map(str, far))}, which {len(short)} of {len(lengths)} "
        f"prompts do not have: {', '.join(short)}.\n  Allowed: positions that every prompt has.\n"
        "  Leave pos out of the site and give positions per pair."
    )
