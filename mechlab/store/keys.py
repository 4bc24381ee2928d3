"""What a result is kept under: the sha256 of its method, model, prompts and options.

Options are bound to the function's signature, so that a default left out and a default written out
give the same key. Execution hints, which must not change the numbers, never enter it. The order of
a mapping does: it is the order of an axis of the result.
"""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from mechlab.canonical import digest, plain
from mechlab.errors import OptionError, StoreError
from mechlab.results import Method

__all__ = ["HINTS", "Request", "bind"]

HINTS = frozenset({"progress", "journal", "max_batch", "device", "mode", "suffix"})
"""Options that say how to compute, not what; they are handed on but never keyed."""


@dataclass(frozen=True)
class Request:
    """One call of a method on one model, apart from the prompts."""

    method: Method
    fingerprint: str
    """Of the model."""
    options: Mapping[str, object]
    """Bound options including defaults, without hints, as plain JSON values."""
    given: Mapping[str, Any]
    """Options as the caller gave them, hints included."""
    accepts: frozenset[str]
    """Names of the parameters that the function has."""
    orders: Mapping[str, list[str]]
    """Labels in the order given, of every option that is a mapping."""

    def key_of_set(self, prompts_digest: str) -> str:
        """Return the key (64 hex digits) of the result on a whole prompt set."""
        return digest(self.source("prompts", prompts_digest))

    def key_of_prompt(self, prompt_digest: str) -> str:
        """Return the key (64 hex digits) of the result on one prompt, whatever set it is in."""
        return digest(self.source("prompt", prompt_digest))

    def source(self, of: str, prompts_digest: str) -> dict[str, object]:
        """Return what the key is the digest of, in readable form."""
        source: dict[str, object] = {
            "method": self.method.name,
            "method_version": self.method.version,
            "model": self.fingerprint,
            "options": dict(self.options),
            of: prompts_digest,
        }
        return source | ({"orders": dict(self.orders)} if self.orders else {})


def bind(method: Method, model: Any, given: Mapping[str, Any]) -> Request:
    """Bind options to a method's signature and check that each can be keyed.

    Raises:
        OptionError: when the method has no such option, one that it needs is missing, or a number
            is not finite.
        StoreError: when the model has no fingerprint, or naming every option without a canonical
            form.
    """
    fingerprint = getattr(model, "fingerprint", None)
    if not isinstance(fingerprint, str):
        raise StoreError(
            f"{type(model).__name__} has no fingerprint to key results by.\n"
            "  Allowed: a Model from load_model or wrap_model.\n  Wrap the model first."
        )
    signature = inspect.signature(method.function)
    bound = _bound(signature, method.name, given)
    options = {name: value for name, value in bound.items() if name not in HINTS}
    keyed = _keyed(options, signature, method.name)
    orders = {n: [*map(str, value)] for n, value in options.items() if isinstance(value, Mapping)}
    return Request(method, fingerprint, keyed, dict(given), frozenset(signature.parameters), orders)


def _bound(signature: inspect.Signature, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        bound = signature.bind("model", "prompts", **given)
    except TypeError as err:
        known = [*signature.parameters][2:]
        raise OptionError(
            f"{name} cannot be called like this: {err}.\n"
            f"  Options: {', '.join(known) or 'none'}.\n  Correct the names."
        ) from err
    bound.apply_defaults()
    options: dict[str, Any] = {}
    for parameter in [*signature.parameters.values()][2:]:
        value = bound.arguments[parameter.name]
        options |= value if parameter.kind is parameter.VAR_KEYWORD else {parameter.name: value}
    return options


def _keyed(
    options: Mapping[str, Any], signature: inspect.Signature, name: str
) -> dict[str, object]:
    _refuse_endless(options, name)
    keyed: dict[str, object] = {}
    problems: list[str] = []
    for option, value in options.items():
        try:
            keyed[option] = plain(_as_declared(value, signature.parameters.get(option)))
        except TypeError as err:
            problems.append(f"  {option}: {err}")
    if problems:
        raise StoreError(
            f"{len(problems)} options of {name} cannot be part of a key:\n"
            + "\n".join(problems)
            + "\n  Allowed: JSON values, tuples, arrays, frozen values, functions of a module.\n"
            "  Use one of these, or call the method directly instead of through the store."
        )
    return keyed


def _refuse_endless(options: Mapping[str, Any], name: str) -> None:
    """Refuse numbers that no option takes, before they turn up as something that has no key."""
    endless = [
        f"{option}={value}"
        for option, value in options.items()
        if isinstance(value, Real) and not math.isfinite(value)
    ]
    if endless:
        raise OptionError(
            f"{', '.join(endless)} of {name}. Allowed: finite numbers. Correct what was given."
        )


def _as_declared(value: object, parameter: inspect.Parameter | None) -> object:
    """Return 3 as 3.0 where the default is a float, so that both have one key."""
    value = value.item() if isinstance(value, np.generic) else value
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and parameter is not None and isinstance(parameter.default, float):
        return float(value)  # type: ignore[arg-type]
    return value
