"""Seeded choices that no version of any library can change: hashes, not generators."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from mechlab.errors import PromptError

__all__ = ["check_count", "check_seed", "chosen", "ordered", "pick", "sample"]

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
    good = isinstance(count, int) and not isinstance(count, bool) and count >= 1
    if not good or (at_most is not None and count > at_most):  # type: ignore[operator]
        raise PromptError(
            f"count={count!r} {what}.\n  Allowed: whole numbers from 1{limit}.\n"
            "  Ask for so many, or allow more kinds of them."
        )
    return count  # type: ignore[return-value]


def check_seed(seed: object) -> None:
    """Refuse a seed that is no whole number.

    Raises:
        PromptError: saying what is allowed.
    """
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise PromptError(f"seed={seed!r}.\n  Allowed: whole numbers.\n  Give one of these.")


def chosen(option: str, given: object, known: Sequence[T]) -> list[T]:
    """Return the options given, without repetition.

    Raises:
        PromptError: when something is not among those known, naming both.
    """
    wanted = [given] if isinstance(given, str) else given
    if not isinstance(wanted, Sequence) or not wanted or any(one not in known for one in wanted):
        raise PromptError(
            f"{option}={given!r} is not a selection of what there is.\n"
            f"  Allowed: one or more of {', '.join(map(repr, known))}.\n  Choose among these."
        )
    return list(dict.fromkeys(wanted))
