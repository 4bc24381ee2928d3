"""The option `positions`, for every method that takes it: all, one by one, listed, or named.

What is given is read without a model (`Positions.make`); places are found, and lists that differ
between prompts are fixed, once the prompts are tokenised (`Positions.within`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

from mechlab.errors import OptionError, PromptError
from mechlab.prompts import PromptPair, PromptSet, named_positions

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = [
    "Cell",
    "PositionOption",
    "Positions",
    "place_tokens",
    "plain_positions",
    "position_lists",
]

Cell = tuple[int, ...] | None
"""Positions written together, negative ones counted from the end; `None` for the whole prompt."""

PositionOption = str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]]
"""What the option takes: a word or a place, positions, places, or one list per prompt."""

FACT_PLACES = ("subject", "first_subject", "last_subject", "end")
"""Places of every fact. Those of a pair are its own, and `end`."""


@dataclass(frozen=True)
class Positions:
    """Which positions of a prompt are written, and whether together or one by one.

    Attributes:
        each: whether every position is a cell of its own (an axis `pos`).
        listed: positions of every prompt, written together, negative ones counted from the end;
            `None` for all of them.
        given: names of places, or one list per prompt, as given; empty where `listed` holds.
        shared: whether the one list in `given` holds for every prompt.
        own: where `given` lies, per prompt: positions in the run that is changed, and those that
            they correspond to in the other run of a pair. Empty until `within` found them.
    """

    each: bool
    listed: Cell
    given: tuple[tuple[int | str, ...], ...] = ()
    shared: bool = True
    own: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()

    @classmethod
    def make(cls, given: object) -> "Positions":
        """Read the option.

        Args:
            given: `all`, `each`, `last`, a list of positions, a place or a list of places, or one
                list per prompt; arrays are lists.

        Raises:
            OptionError: anything else.
        """
        named = {"all": cls(False, None), "each": cls(True, None), "last": cls(False, (-1,))}
        if isinstance(given, str) and given in named:
            return named[given]
        lists, per_prompt = position_lists(given, "'all' (together), 'each' (one by one), 'last'")
        if per_prompt or isinstance(lists[0][0], str):
            return cls(False, None, lists, not per_prompt)
        return cls(False, tuple(int(pos) for pos in lists[0]))

    @property
    def by_prompt(self) -> bool:
        """Whether each prompt has positions of its own."""
        return bool(self.given)

    @property
    def aligned(self) -> bool:
        """Whether two prompts need equal lengths for their positions to correspond."""
        lists = self.given or (self.listed,)
        return any(
            one is None or any(isinstance(pos, int) and pos >= 0 for pos in one) for one in lists
        )

    def within(
        self,
        model: "Model",
        prompts: PromptSet[Any],
        lengths: Sequence[int],
        *,
        others: Sequence[int] | None = None,
        corrupted: bool = False,
    ) -> "Positions":
        """Find the positions in every prompt, and refuse those that one does not have.

        Args:
            model: the model, which knows the tokens of a place.
            prompts: facts or pairs.
            lengths: tokens of the prompts that are changed.
            others: tokens of the other prompts of the pairs, if values come from there.
            corrupted: whether the corrupted prompts of the pairs are those that are changed.

        Raises:
            OptionError: places that no prompt has, or another number of lists than prompts.
            PromptError: positions or places that a prompt does not have, that name one token twice,
                or that do not correspond in a pair; all offenders at once.
        """
        if not self.given:
            self.check(lengths)
            self.check(others or ())
            return self
        lists = self.given * len(prompts) if self.shared else self.given
        if len(lists) != len(prompts):
            raise OptionError(
                f"positions: {len(lists)} lists for {len(prompts)} prompts. Allowed: one list for "
                "all, or one for each, in their order. Give as many."
            )
        here = place_tokens(model, prompts, lists, lengths, corrupted=corrupted)
        there = here
        if others is not None:
            there = place_tokens(model, prompts, lists, others, corrupted=not corrupted)
            _refuse_unplaced(prompts, lists, lengths, others)
            _refuse_uneven(prompts, lists, here, there)
        return replace(self, own=tuple(zip(here, there, strict=True)))

    def cells(self, length: int, prompt: int = 0) -> list[Cell]:
        """Return the cells of a prompt of `length` tokens, the prompt of that number."""
        if self.own:
            return [self.own[prompt][0]]
        return [(pos,) for pos in range(length)] if self.each else [self.listed]

    def sources(self, cell: Cell, length: int, prompt: int = 0) -> list[int | None]:
        """Return where a cell's values come from in another prompt of `length` tokens."""
        if self.own:
            return list(self.own[prompt][1])
        return [None] if cell is None else [pos % length for pos in cell]

    def check(self, lengths: Sequence[int]) -> None:
        """Refuse positions of all prompts that one of these does not have, or has twice.

        Raises:
            PromptError: naming every prompt that is too short, or where two positions meet.
        """
        refuse_absent([self.listed or ()] * len(lengths), lengths)


# --- reading --------------------------------------------------------------------------------------


def plain_positions(given: Any) -> Any:
    """Return the option in lists and numbers of Python: arrays, ranges and iterators are spelled.

    What is recorded of a call is then the same however positions were given.
    """
    if hasattr(given, "tolist"):
        return given.tolist()
    if isinstance(given, Integral) and not isinstance(given, bool):
        return int(given)
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        return given
    return [plain_positions(item) for item in given]


def position_lists(
    given: object, words: str = "'all', 'last'"
) -> tuple[tuple[tuple[int | str, ...], ...], bool]:
    """Return lists of positions or of names of places, and whether there is one per prompt.

    Args:
        given: a list, a list of lists, or one name.
        words: what else the option allows, for the message.

    Raises:
        OptionError: what is none of these, truth values, something twice; with all that is wrong.
    """
    plain = plain_positions(given)
    listed = [plain] if isinstance(plain, str) else plain
    per_prompt = isinstance(listed, list) and bool(listed) and isinstance(listed[0], list)
    lists = listed if per_prompt else [listed]
    problems = [
        f"{problem} in the list of prompt #{index}" if per_prompt else problem
        for index, one in enumerate(lists)
        for problem in _problems(one)
    ]
    if problems:
        raise OptionError(
            f"positions={given!r:.60}: {'; '.join(problems[:10])}. Allowed: {words}, a list of "
            "different whole numbers (negative ones count from the end), names of places, or one "
            "such list per prompt. Use one of these."
        )
    return tuple(map(tuple, lists)), per_prompt


def _problems(one: Any) -> list[str]:
    if not isinstance(one, list) or not one:
        return ["no position" if one == [] else f"{one!r:.30} is no list"]
    if any(isinstance(value, bool) for value in one):
        return ["truth values are no positions (np.flatnonzero makes them of a mask)"]
    if wrong := [value for value in one if not (_is_whole(value) or isinstance(value, str))]:
        return [f"{', '.join(f'{value!r:.30}' for value in wrong[:5])} cannot be used"]
    if len({isinstance(value, str) for value in one}) > 1:
        return ["numbers and names in one list"]
    twice = [value for value in dict.fromkeys(one) if one.count(value) > 1]
    return [f"{', '.join(map(repr, twice))} named twice"] if twice else []


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


# --- against the prompts --------------------------------------------------------------------------


def place_tokens(
    model: "Model",
    prompts: PromptSet[Any],
    lists: Sequence[Sequence[int | str]],
    lengths: Sequence[int],
    *,
    corrupted: bool = False,
    words: str = "the words of the option",
) -> list[tuple[int, ...]]:
    """Return the tokens of each prompt's list, in its order, counted from the start.

    A place of a pair that the corrupted prompt does not name stands where it does in the clean one.

    Args:
        model: the model, which knows the tokens of a place.
        prompts: facts or pairs.
        lists: one per prompt, of numbers or of names of places.
        lengths: tokens of each prompt.
        corrupted: of the corrupted prompts of pairs.
        words: what else the option allows, for the message.

    Raises:
        OptionError: places that no prompt has.
        PromptError: positions or places that a prompt does not have, or that name one token twice;
            all offenders at once.
    """
    _refuse_unknown(prompts, lists, words)
    tokens: dict[tuple[int, str], list[int]] = {}
    for name in dict.fromkeys(one for names in lists for one in names if isinstance(one, str)):
        members = [index for index, names in enumerate(lists) if name in names]
        sides = [corrupted and _names_it(prompts[index], name) for index in members]
        for side in set(sides):
            some = [index for index, own in zip(members, sides, strict=True) if own is side]
            found = _tokens(model, [prompts[index] for index in some], name, side)
            tokens |= dict(zip([(index, name) for index in some], found, strict=True))
    spelled: list[list[int]] = []
    for index, names in enumerate(lists):
        parts = [[one] if isinstance(one, int) else tokens[index, one] for one in names]
        spelled.append([pos for part in parts for pos in part])
    refuse_absent(spelled, lengths)
    return [
        tuple(pos % length for pos in here) for here, length in zip(spelled, lengths, strict=True)
    ]


def _names_it(pair: PromptPair, name: str) -> bool:
    return name == "end" or any(name == held for held, *_ in pair.corrupted_places)


def _tokens(model: "Model", prompts: Sequence[Any], name: str, corrupted: bool) -> list[list[int]]:
    """Return the tokens of one place in each prompt."""
    if isinstance(prompts[0], PromptPair):
        return named_positions(model, prompts, name, corrupted=corrupted)
    if name == "end":
        return [[-1] for _ in prompts]
    spans = [model.subject_positions(fact) for fact in prompts]
    if name == "subject":
        return [list(range(first, last + 1)) for first, last in spans]
    return [[first if name == "first_subject" else last] for first, last in spans]


def _places(prompt: Any) -> set[str]:
    if isinstance(prompt, PromptPair):
        return {name for name, *_ in prompt.places} | {"end"}
    return set(FACT_PLACES)


def _refuse_unknown(
    prompts: PromptSet[Any], lists: Sequence[Sequence[int | str]], words: str
) -> None:
    wanted = [[one for one in names if isinstance(one, str)] for names in lists]
    if not any(wanted):
        return
    known = [_places(prompt) for prompt in prompts]
    everywhere = set[str]().union(*known)
    named = dict.fromkeys(name for names in wanted for name in names)
    if nowhere := [name for name in named if name not in everywhere]:
        raise OptionError(
            f"positions={', '.join(map(repr, nowhere))}: no prompt has such a place. Allowed: "
            f"{words}, whole numbers, or the places of these prompts: "
            f"{', '.join(map(repr, sorted(everywhere)))}. Use one of these."
        )
    lacking = [
        f"  #{index} {prompts[index].text!r:.60} lacks {', '.join(map(repr, missing))}"
        for index, names in enumerate(wanted)
        if (missing := [name for name in names if name not in known[index]])
    ]
    if lacking:
        raise PromptError(
            f"{len(lacking)} of {len(prompts)} prompts do not have these places:\n"
            + "\n".join(lacking)
            + "\n  Allowed: places that each prompt has.\n  Leave these prompts out, or give one "
            "list per prompt."
        )


def refuse_absent(lists: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
    """Refuse positions outside a prompt, and positions that are one token of it.

    Raises:
        PromptError: naming all of them.
    """
    short, meeting = [], []
    for index, (here, length) in enumerate(zip(lists, lengths, strict=True)):
        if bad := [pos for pos in here if not -length <= pos < length]:
            short.append(f"#{index} ({length} tokens): {bad}")
        elif len({pos % length for pos in here}) < len(here):
            meeting.append(f"#{index} ({length} tokens): {list(here)}")
    if short:
        raise PromptError(
            f"positions that do not exist in {len(short)} of {len(lengths)} prompts: "
            f"{', '.join(short)}. Allowed: positions that each prompt has. Give other ones, or "
            "count from the end with negative numbers."
        )
    if meeting:
        raise PromptError(
            f"positions name one token twice in {len(meeting)} of {len(lengths)} prompts: "
            f"{', '.join(meeting)}. Allowed: different tokens. Count all positions from the start, "
            "or all from the end, and name places that share no token."
        )


def _refuse_unplaced(
    prompts: PromptSet[Any],
    lists: Sequence[Sequence[int | str]],
    lengths: Sequence[int],
    others: Sequence[int],
) -> None:
    """Refuse places that the corrupted prompt does not name and cannot have at the same tokens."""
    unplaced = [
        f"  #{index} {prompts[index].text!r:.60}: {', '.join(map(repr, missing))} ({a} and {b})"
        for index, (a, b) in enumerate(zip(lengths, others, strict=True))
        if a != b
        and (
            missing := [
                one
                for one in lists[index]
                if isinstance(one, str) and not _names_it(prompts[index], one)
            ]
        )
    ]
    if unplaced:
        raise PromptError(
            f"{len(unplaced)} of {len(prompts)} pairs do not say where these places are in their "
            "corrupted prompt, which has another number of tokens:\n"
            + "\n".join(unplaced)
            + "\n  Allowed: places in corrupted_places too, or prompts of equal length.\n  Add the "
            "places, or leave these pairs out."
        )


def _refuse_uneven(
    prompts: PromptSet[Any],
    lists: Sequence[Sequence[int | str]],
    here: Sequence[Sequence[int]],
    there: Sequence[Sequence[int]],
) -> None:
    """Refuse places of which the two prompts of a pair have different numbers of tokens."""
    uneven = [
        f"  #{index} {prompts[index].text!r:.60}: {', '.join(map(str, lists[index]))}: "
        f"{len(a)} and {len(b)} tokens"
        for index, (a, b) in enumerate(zip(here, there, strict=True))
        if len(a) != len(b)
    ]
    if uneven:
        raise PromptError(
            f"{len(uneven)} of {len(prompts)} pairs have places of different length in their two "
            "prompts:\n"
            + "\n".join(uneven)
            + "\n  Allowed: places of equally many tokens, which then correspond one to one.\n"
            "  Choose words of equal length in tokens, or name another place."
        )
