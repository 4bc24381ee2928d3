"""`over_checkpoints`: one method over a model's training checkpoints, side by side."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from mechlab.canonical import digest
from mechlab.errors import OptionError
from mechlab.models import load_model
from mechlab.organisms import checkpoints as shipped_checkpoints
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import PromptSet
from mechlab.results import WORK, check_result, method_of

__all__ = ["over_checkpoints"]


def over_checkpoints(
    function: Callable[..., xr.Dataset],
    name: str,
    prompts: PromptSet[Any] | Sequence[Any] | None = None,
    *,
    checkpoints: Sequence[int] | None = None,
    device: str = "auto",
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32",
    progress: ProgressCallback | None = None,
    **options: Any,
) -> xr.Dataset:
    """Run a method on a model at several training steps.

    One checkpoint is in memory at a time. Prompts that are made without a model
    (`ml.prompts.repeated_tokens`) are the same at every step.

    Args:
        function: a method that takes a model and prompts, such as `ml.induction_scores`.
        name: a shipped model with checkpoints, or a hub model with revisions `step<number>`.
        prompts: what the method reads; `None` for one that reads weights alone.
        checkpoints: training steps, each once; by default all that a shipped model has.
        device: as for `ml.load_model`.
        dtype: as for `ml.load_model`.
        progress: called after each checkpoint; may raise `Cancelled`.
        options: of the method.

    Returns:
        The method's Dataset with `checkpoint` as first axis of every variable; steps ascend.
        Coordinates that differ between steps get the axis too. `fingerprint[checkpoint]` is that of
        each model; the attribute `model_fingerprint` is a digest of all of them.

    Raises:
        OptionError: steps named twice, or none; a function that is no method; and what the method
            raises.
        ModelError: a model or step that is not there.
        Cancelled: when `progress` asked to stop.
    """
    method_of(function)
    steps = _steps(name, checkpoints)
    parts = []
    for index, step in enumerate(steps):
        model = load_model(name, checkpoint=step, device=device, dtype=dtype)
        parts.append(function(model, prompts, **options))
        if progress is not None:
            progress(Progress(index + 1, len(steps), "checkpoints"))
    return _stacked(parts, steps)


def _steps(name: str, checkpoints: Sequence[int] | None) -> list[int]:
    given = shipped_checkpoints(name) if checkpoints is None else checkpoints
    steps = [_whole(step) for step in given]
    if not steps or len(set(steps)) < len(steps):
        raise OptionError(
            f"checkpoints={checkpoints!r:.80} of {name!r}. Allowed: training steps, each once, at "
            "least one; leave them out for all that a shipped model has. Correct them."
        )
    return sorted(steps)


def _whole(step: object) -> int:
    if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 0:
        raise OptionError(
            f"checkpoints hold {step!r:.40}. Allowed: training steps, whole numbers from 0. "
            "Correct it."
        )
    return int(step)


def _stacked(parts: Sequence[xr.Dataset], steps: Sequence[int]) -> xr.Dataset:
    """Return results side by side; attributes in which they differ become one text of all."""
    same = [str(n) for n in parts[0].coords if all(n in p.coords for p in parts)]
    apart = [
        n for n in same
        if n not in parts[0].dims and not all(p[n].equals(parts[0][n]) for p in parts)
    ]  # fmt: skip
    joined = xr.concat(
        [part.reset_coords(apart) for part in parts],
        xr.Variable("checkpoint", np.array(steps), {"units": "training steps"}),
        data_vars="all",
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="override",
    ).set_coords(apart)
    fingerprints = [str(part.attrs["model_fingerprint"]) for part in parts]
    attributes = dict(parts[0].attrs)
    for name in attributes:
        values = [part.attrs.get(name) for part in parts]
        if any(value != values[0] for value in values):
            attributes[name] = json.dumps(values)
    for name in WORK:
        attributes[name] = round(sum(float(part.attrs[name]) for part in parts), 3)
    attributes["model_fingerprint"] = digest(fingerprints)
    attributes["started"] = parts[0].attrs["started"]
    joined.attrs = attributes
    joined = joined.assign_coords(fingerprint=("checkpoint", fingerprints))
    check_result(joined)
    return joined
