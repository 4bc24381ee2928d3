"""Checks of a trace's options that need no model."""

import math
from numbers import Integral, Real
from typing import Any

from mechlab.errors import OptionError

__all__ = ["check_choices", "check_numbers", "is_whole"]

_CHOICES: dict[str, tuple[Any, ...]] = {
    "corruption": ("gaussian", "interchange"),
    "score": ("top", "target"),
    "mode": ("auto", "wavefront", "packed", "plain"),
    "known_only": (True, False),
}


def check_numbers(
    *,
    samples: object,
    seed: object,
    max_batch: object,
    noise_scale: object,
    noise_std: object,
) -> None:
    """Refuse numbers of the wrong kind or size.

    Raises:
        OptionError: naming the first of them.
    """
    if not is_whole(samples, at_least=1):
        raise OptionError(
            f"samples={samples!r} corrupted runs. Allowed: whole numbers, 1 or more. "
            "The paper has 10."
        )
    if not is_whole(seed):
        raise OptionError(f"seed={seed!r}. Allowed: whole numbers. The default is 0.")
    if max_batch is not None and not is_whole(max_batch, at_least=1):
        raise OptionError(
            f"max_batch={max_batch!r} rows. Allowed: whole numbers from 1. "
            "Leave it out to let free memory decide."
        )
    for name, value in (("noise_scale", noise_scale), ("noise_std", noise_std)):
        if not (_is_size(value) or (name == "noise_std" and value is None)):
            raise OptionError(
                f"{name}={value!r}. Allowed: finite numbers from 0. The paper has noise_scale=3."
            )


def check_choices(**given: object) -> None:
    """Refuse a value that an option does not offer.

    Raises:
        OptionError: naming the option and its choices.
    """
    for name, value in given.items():
        if not any(value is allowed or value == allowed for allowed in _CHOICES[name]):
            choices = ", ".join(map(str, _CHOICES[name]))
            raise OptionError(f"{name}={value!r}. Allowed: {choices}. Choose one of these.")


def is_whole(value: object, at_least: int | None = None) -> bool:
    """Return whether a value is an integer of Python or numpy, no truth value, and large enough."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and (at_least is None or value >= at_least)  # type: ignore[operator]


def _is_size(value: object) -> bool:
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0  # type: ignore[arg-type,operator]
