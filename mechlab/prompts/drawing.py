"""Seeded choices that no version of any library can change: hashes, not generators."""

import hashlib
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import TypeVar

from mechlab.errors import PromptError

__all__ = ["check_count", "check_seed", "chosen", "is_whole", "ordered", "pick", "sample"]

T = TypeVar("T")


def number(*labels: object) -> int:
    """Return a whole number that depends on the labels alone, of 64 bits."""
    text = "\0".join(map(str, labels))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def pick(options: Sequence[T], *labels: object) -> T:
    """Return one of the options."""
    return options[number(*labels) % len(options)]


def ordered(options: Sequence[T], *labels: object) -> list[T]:
    """Return all options in an order of their own, which depends on their text and the labels."""
    return sorted(options, key=lambda option: number(*labels, option))


def sample(options: Sequence[T], count: int, *labels: object) -> list[T]:
    """Return `count` different options in a drawn order."""
    return ordered(options, *labels)[:count]


def check_count(count: object, what: str, at_most: int | None = None) -> int:
    """Refuse a count that is no whole number from 1.

    Raises:
        PromptError: naming the limits.
    """
    limit = "" if at_most is None else f" to {at_most}"
    good = is_whole(count) and count >= 1  # type: ignore[operator]
    if not good or (at_most is not None and count > at_most):  # type: ignore[operator]
        raise PromptError(
            f"count={count!r} {what}.\n  Allowed: whole numbers from 1{limit}.\n"
            "  Ask for so many, or allow more kinds of them."
        )
    return int(count)  # type: ignore[call-overload, no-any-return]


def check_seed(seed: object) -> None:
    """Refuse a seed that is no whole number.

    Raises:
        PromptError: saying what is allowed.
    """
    if not is_whole(seed):
        raise PromptError(f"seed={seed!r}.\n  Allowed: whole numbers.\n  Give one of these.")


def is_whole(value: object) -> bool:
    """Return whether a value is an integer of Python or numpy, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def chosen(option: str, given: object, known: Sequence[T]) -> list[T]:
    """Return the options given, without repetition; numpy's numbers as Python's.

    Args:
        option: its name, for the message.
        given: one option, or several.
        known: those that there are.

    Raises:
        PromptError: when something is not among those known, naming both.
    """
    alone = isinstance(given, str | Integral) or not isinstance(given, Iterable)
    wanted = [given] if alone else list(given)  # type: ignore[call-overload]
    wanted = [one.item() if hasattr(one, "item") else one for one in wanted]
    if not wanted or any(_is_broken(one) or one not in known for one in wanted):
        raise PromptError(
            f"{option}={given!r} is not a selection of what there is.\n"
            f"  Allowed: one or more of {', '.join(map(repr, known))}.\n  Choose among these."
        )
    return list(dict.fromkeys(known[known.index(one)] for one in wanted))


def _is_broken(value: object) -> bool:
    """Return whether a value is a number but no whole one: `True` and 1.0 equal 1."""
    return isinstance(value, Real) and not is_whole(value)
