"""Canonical JSON: one spelling for one value, so that digests and store keys never drift.

UTF-8, sorted keys, no spaces, floats by `repr`, no NaN. Besides JSON's own values it takes tuples,
numpy scalars, arrays (by digest of dtype, shape and bytes), module-level functions (by name and
version), values with a `to_json` method, and frozen dataclasses. Everything else is refused.
"""

import dataclasses
import hashlib
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from types import FunctionType

import numpy as np

__all__ = ["canonical_json", "digest", "plain"]


def canonical_json(value: object) -> str:
    """Return the one JSON spelling of `value`.

    Raises:
        TypeError: when `value` holds something without a canonical form; the message says what.
    """
    return json.dumps(
        plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: object) -> str:
    """Return the sha256 of `canonical_json(value)` as 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()


def plain(value: object) -> object:
    """Return `value` as JSON scalars, lists and dicts.

    Raises:
        TypeError: when `value` holds something without a canonical form; the message says what.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return _mapping(value)
    if to_json := getattr(type(value), "to_json", None):
        return {"type": type(value).__name__, "value": plain(to_json(value))}
    return _plain(value)


@singledispatch
def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _frozen(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} {value!r:.80} has no canonical form")


@_plain.register
def _(value: float) -> float:
    if not math.isfinite(value):
        raise TypeError(f"the number {value!r} has no JSON form")
    return value


@_plain.register
def _(value: np.generic) -> object:
    return plain(value.item())


@_plain.register
def _(value: np.ndarray) -> object:
    if value.dtype.hasobject:
        raise TypeError(f"an array of dtype {value.dtype} has no bytes to digest")
    head = f"{value.dtype.str}{value.shape}".encode()
    return {"array": hashlib.sha256(head + np.ascontiguousarray(value).tobytes()).hexdigest()}


@_plain.register
def _(value: FunctionType) -> object:
    if "<" in value.__qualname__:  # <lambda> or <locals>: no other process can find it by name
        raise TypeError(f"the function {value.__qualname__} cannot be found again by its name")
    return {"function": f"{value.__module__}:{value.__qualname__}", "version": _version(value)}


def _version(function: Callable[..., object]) -> object:
    if (version := getattr(function, "version", None)) is not None:
        return plain(version)
    try:  # without a declared version an edit of the text must change the key
        return hashlib.sha256(inspect.getsource(function).encode("utf-8")).hexdigest()[:12]
    except OSError as err:
        raise TypeError(
            f"the function {function.__qualname__} has neither a `version` nor readable source"
        ) from err


def _mapping(value: Mapping[object, object]) -> dict[str, object]:
    if strange := [key for key in value if not isinstance(key, str)]:
        raise TypeError(f"the mapping has keys that are not text: {strange!r:.80}")
    return {str(key): plain(item) for key, item in value.items()}


def _frozen(value: object) -> dict[str, object]:
    if not type(value).__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise TypeError(f"{type(value).__name__} can change after it was keyed (not frozen)")
    fields = dataclasses.fields(value)  # type: ignore[arg-type]
    held = {field.name: plain(getattr(value, field.name)) for field in fields}
    return {"type": type(value).__name__, "value": held}
