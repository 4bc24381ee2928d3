"""What every result looks like: registered axes, plain labels, provenance in flat attributes.

A cell that was not computed or does not exist is NaN, never 0. Attributes are text or numbers only,
so that a result reads the same from Python, zarr, JSON and a web page.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mechlab.axes import AXES
from mechlab.canonical import canonical_json
from mechlab.errors import OptionError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["PROVENANCE", "WORK", "check_result", "library_versions", "new_result", "plain_labels"]

PROVENANCE = (
    "method",
    "method_version",
    "model_fingerprint",
    "prompts_digest",
    "options",
    "seed",
    "versions",
    "started",
    "wall_seconds",
    "checks",
)
"""Attributes that every result carries."""

WORK = ("wall_seconds",)
"""Attributes that say how much work was done: they add up over prompts, and two runs of the same
thing may differ in them, for a resumed run does less."""

_LIBRARIES = ("mechlab", "numpy", "torch", "transformer-lens", "transformers", "xarray", "zarr")


class _Model(Protocol):
    @property
    def fingerprint(self) -> str: ...
    @property
    def provenance(self) -> Mapping[str, str | int | float | bool | None]: ...


class _Prompts(Protocol):
    @property
    def digest(self) -> str: ...


def new_result(
    data_vars: Mapping[str, Any],
    coords: Mapping[str, Any] | None = None,
    *,
    method: str,
    version: int,
    model: _Model,
    prompts: _Prompts,
    options: Mapping[str, object],
    seed: int | None,
    started: float,
    checks: Mapping[str, object] | None = None,
) -> xr.Dataset:
    """Build a result: the arrays, and where they come from.

    The model's own provenance (name, device, dtype, …) is written with `model_` before each name.
    Where prompts belong to groups, the coordinate `group` along `prompt` names them as
    `prompts.groups` does, for `cluster="group"` of `ml.statistics`. Facts and pairs stand whole in
    the coordinate `prompt_record`, as JSON, so that a stored result can be run again from itself.

    Args:
        data_vars: variables as xarray takes them; units belong into each variable's own attributes.
        coords: coordinates as xarray takes them; text of any kind becomes fixed-width text.
        method: the function's name.
        version: its version.
        model: anything with `fingerprint` and `provenance`.
        prompts: anything with `digest`; those of the axis `prompt`, if they have `groups`.
        options: the options that decided the numbers, as bound; kept as canonical JSON.
        seed: the seed, or `None` when nothing is drawn at random.
        started: when the computation started, as `time.time()` gave it.
        checks: outcome of the checks that the numbers rest on, kept as canonical JSON.

    Raises:
        OptionError: when the result breaks a rule of `check_result`.
    """
    import xarray as xr

    about = {
        "method": method,
        "method_version": version,
        "model_fingerprint": model.fingerprint,
        "prompts_digest": prompts.digest,
        "options": canonical_json(options),
        "seed": "none" if seed is None else int(seed),
        "versions": canonical_json(library_versions()),
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="milliseconds"),
        "wall_seconds": round(max(0.0, time.time() - started), 3),
        "checks": canonical_json(checks or {}),
    }
    about |= {f"model_{name}": _flat(value) for name, value in model.provenance.items()}
    result = xr.Dataset(data_vars, coords, attrs=about)
    result = result.assign_coords({**_grouped(result, prompts), **_asked(result, prompts)})
    result = plain_labels(result)
    check_result(result)
    return result


def _grouped(result: xr.Dataset, prompts: object) -> dict[str, Any]:
    """Return the coordinate `group`, if any prompt belongs to one."""
    groups, labels = (tuple(getattr(prompts, name, ())) for name in ("groups", "labels"))
    if groups == labels or result.sizes.get("prompt") != len(groups):
        return {}
    return {"group": ("prompt", list(groups))}


def _asked(result: xr.Dataset, prompts: Any) -> dict[str, Any]:
    """Return the coordinate `prompt_record` of facts and pairs, whole: each as canonical JSON."""
    kept = getattr(prompts, "kind", "") in ("fact", "pair")
    if not kept or result.sizes.get("prompt") != len(prompts):
        return {}
    return {"prompt_record": ("prompt", [canonical_json(prompt.to_json()) for prompt in prompts])}


def check_result(dataset: xr.Dataset) -> None:
    """Refuse what could not be stored, compared or understood later.

    Raises:
        OptionError: listing at once unregistered dimensions, arrays of Python objects, attributes
            that are not flat text or numbers, and missing provenance.
    """
    problems = [f"dimension {dim!r} is not registered" for dim in dataset.dims if dim not in AXES]
    problems += [
        f"{name!r} holds Python objects"
        for name, variable in dataset.variables.items()
        if variable.dtype.hasobject or variable.dtype.kind in "TV"
    ]
    problems += [
        f"attribute {name!r} is missing" for name in PROVENANCE if name not in dataset.attrs
    ]
    problems += list(_unflat_attributes(dataset))
    if problems:
        raise OptionError(
            f"this is not a mechlab result: {'; '.join(problems)}. "
            "Allowed: dimensions from mechlab.axes.AXES, arrays of numbers, truth values or text, "
            "attributes that are text or finite numbers, and all provenance. "
            "Build results with mechlab.results.new_result."
        )


def plain_labels(dataset: xr.Dataset) -> xr.Dataset:
    """Return `dataset` with all text as fixed-width numpy text of the smallest width.

    Python objects that are not text are left as they are, for `check_result` to name.
    """
    texts = {name: v for name, v in dataset.variables.items() if _is_text(v)}
    fixed = {name: v.copy(data=_fixed_width(v)) for name, v in texts.items()}
    return dataset.assign_coords({n: v for n, v in fixed.items() if n in dataset.coords}).assign(
        {n: v for n, v in fixed.items() if n in dataset.data_vars}
    )


@cache
def library_versions() -> Mapping[str, str]:
    """Return the versions of Python and of the libraries that decide numbers, as installed."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source folder, or a viewer without torch
            continue
    return found


def _unflat_attributes(dataset: xr.Dataset) -> list[str]:
    places: list[tuple[Hashable, Mapping[Any, Any]]] = [("the result", dataset.attrs)]
    places += [(repr(name), variable.attrs) for name, variable in dataset.variables.items()]
    return [
        f"attribute {name!r} of {place} is {type(value).__name__} {value!r:.40}"
        for place, attributes in places
        for name, value in attributes.items()
        if not _is_flat(value)
    ]


def _is_flat(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _flat(value: str | int | float | bool | None) -> str | int | float:
    return "none" if value is None else value


def _is_text(variable: xr.Variable) -> bool:
    if variable.dtype.kind in "UT":
        return True
    return variable.dtype.kind == "O" and all(isinstance(x, str) for x in np.ravel(variable.values))


def _fixed_width(variable: xr.Variable) -> np.ndarray[Any, Any]:
    values = np.asarray(variable.values)
    width = max((len(text) for text in values.ravel().tolist()), default=0)
    return values.astype(f"<U{max(1, width)}")
