"""Checks of plain options; each says what was received and what is allowed."""

import math
from collections.abc import Sequence
from numbers import Integral, Real

from mechlab.errors import OptionError

__all__ = ["check_choice", "check_number", "check_whole"]


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse a value that an option does not offer.

    Raises:
        OptionError: when it is not one of `allowed`.
    """
    if not isinstance(value, str) or value not in allowed:
        choices = ", ".join(map(repr, allowed))
        raise OptionError(f"{name}={value!r}. Allowed: {choices}. Choose one of these.")


def check_whole(
    name: str, value: object, *, at_least: int | None = None, optional: bool = False
) -> None:
    """Refuse what is no whole number of Python or numpy, a truth value, or too small.

    Raises:
        OptionError: naming the option and its limit.
    """
    if optional and value is None:
        return
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or (at_least is not None and value < at_least):  # type: ignore[operator]
        limit = "" if at_least is None else f" from {at_least}"
        raise OptionError(f"{name}={value!r}. Allowed: whole numbers{limit}. Give one of these.")


def check_number(name: str, value: object, *, at_least: float | None = None) -> None:
    """Refuse what is not a finite number, or too small.

    Raises:
        OptionError: naming the option and its limit.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    good = number and math.isfinite(value)  # type: ignore[arg-type]
    if not good or (at_least is not None and value < at_least):  # type: ignore[operator]
        limit = "" if at_least is None else f" from {at_least:g}"
        raise OptionError(f"{name}={value!r}. Allowed: finite numbers{limit}. Give one of these.")
