"""What every edit records about itself: efficacy before and after, and provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from mechlab.canonical import digest
from mechlab.engine import verify
from mechlab.errors import OptionError
from mechlab.methods.editing.continuing import start, unchanged
from mechlab.methods.editing.edits import Edit
from mechlab.methods.editing.modules import projection
from mechlab.methods.editing.rows import prompt_rows
from mechlab.methods.editing.values import row_losses
from mechlab.prompts import EditRequest
from mechlab.results import new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["MODES", "Efficacy", "efficacy", "measured", "runs_plain"]

MODES = ("auto", "wavefront", "plain")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Efficacy:
    """Probability of each request's objects after its bare prompt.

    It is the geometric mean over an object's tokens, exp(-mean NLL).

    Attributes:
        new: of the new object, `[edit]`.
        true: of the old one, NaN where none was given, `[edit]`.
    """

    new: Array
    true: Array


@dataclass(frozen=True)
class _Asked:
    """Requests, as results name the prompts they come from."""

    requests: tuple[EditRequest, ...]

    @property
    def digest(self) -> str:
        """Sha256 of the requests in order."""
        return digest([request.to_json() for request in self.requests])


def efficacy(model: "Model", requests: Sequence[EditRequest]) -> Efficacy:
    """Measure what the model now gives after the bare prompts."""
    true = np.full(len(requests), np.nan)
    known = [i for i, request in enumerate(requests) if request.target_true]
    if known:
        old = [replace(requests[i], target=requests[i].target_true, target_true="") for i in known]
        true[known] = _probabilities(model, old)
    return Efficacy(_probabilities(model, requests), true)


def _probabilities(model: "Model", requests: Sequence[EditRequest]) -> Array:
    found = []
    for batch in start(model, prompt_rows(model, requests, ("",)), model.n_layers):
        with torch.no_grad(), model.lock:
            found.append(torch.exp(-row_losses(batch, batch.continued(unchanged)).nll))
    values: Array = torch.cat(found).cpu().double().numpy()
    return values


def runs_plain(model: "Model", mode: str) -> bool:
    """Return whether everything is to be run anew at each step of an optimisation.

    Raises:
        OptionError: for an unknown mode.
    """
    if mode not in MODES:
        raise OptionError(
            f"mode={mode!r}. Allowed: {', '.join(map(repr, MODES))}. 'plain' runs the whole model "
            "at each step, for comparison. Choose one of these."
        )
    return mode == "plain" or (mode == "auto" and not verify(model).engine_agrees)


def measured(
    model: "Model",
    edit: Edit,
    before: Efficacy,
    data: Mapping[str, Any],
    *,
    method: str,
    options: Mapping[str, object],
    contexts: Sequence[str],
    seed: int | None,
    started: float,
) -> Edit:
    """Put the edit in force once, measure its efficacy after the cast, and record everything.

    Args:
        model: the model it was made on.
        edit: the changes.
        before: efficacy before.
        data: what the method has to tell, variables as xarray takes them.
        method: name of the method.
        options: those that decided the numbers.
        contexts: texts put before the prompts.
        seed: of the drawing.
        started: as `time.time()` gave it.
    """
    with edit.applied(model, on_top=True):
        after = efficacy(model, edit.requests)
    chance = {"units": "probability"}
    found: dict[str, Any] = {
        "probability_new_before": ("edit", before.new, chance),
        "probability_new": ("edit", after.new, chance),
        "probability_true_before": ("edit", before.true, chance),
        "probability_true": ("edit", after.true, chance),
        "norm": ("delta", np.array([delta.norm for delta in edit.deltas])),
        "weight_norm": ("delta", np.array([_weight_norm(model, d) for d in edit.deltas])),
    }
    coords = {
        "edit": np.array([f"{i}: {r.label}" for i, r in enumerate(edit.requests)]),
        "context": np.array([*contexts], dtype=str),
    }
    details: xr.Dataset = new_result(
        {**data, **found},
        coords,
        method=method,
        version=1,
        model=model,
        prompts=_Asked(edit.requests),
        options=options,
        seed=seed,
        started=started,
    )
    return replace(edit, details=details)


def _weight_norm(model: "Model", delta: Any) -> float:
    return float(projection(model, delta.layer, delta.site).weight.double().norm())
