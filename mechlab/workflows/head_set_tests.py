"""How the effect of a chosen set of heads stands among those of random ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from mechlab.methods.induction.intervals import intervals
from mechlab.workflows.head_draws import ControlledSet

__all__ = ["HARM", "against_random", "summary"]

Array = np.ndarray[Any, Any]
HARM = {
    "icl_score": 1,
    "copy_loss": 1,
    "first_copy_loss": 1,
    "recall_next": -1,
    "recall_next_share": -1,
}
"""What is measured, and which sign of its change means that memory is lost."""
_TIE = 1e-12
"""Effects closer than this are the same effect."""


def summary(
    table: xr.Dataset, sets: Sequence[ControlledSet], groups: Sequence[str], **interval: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return means and effects over prompts or texts, and how groups stand among random sets.

    Args:
        table: every outcome of `HARM`, `[prompt or text, ablation, head_set]`.
        sets: all sets of heads but the intact model, which comes first in `table`.
        groups: which lists are not independent of one another.
        interval: confidence, resamples and seed of the bootstrap.

    Returns:
        Variables `[outcome, ablation, head_set]`, and the status of the intervals.
    """
    columns: dict[str, list[Array]] = {}
    status = {"interval_status": "ok", "icl_interval_status": "no texts"}
    for name, sign in HARM.items():
        on_texts = "text" in table[name].dims
        array = table[name].rename(text="prompt") if on_texts else table[name]
        array = array.transpose("prompt", "ablation", "head_set")
        clusters = list(map(str, range(array.sizes["prompt"]))) if on_texts else groups
        change = array - array.isel(head_set=0)
        bounds, told = intervals({"effect": change}, clusters, **interval)
        if bool(array.notnull().any()):
            status["icl_interval_status" if on_texts else "interval_status"] = told
        effect = change.mean("prompt").values
        found = {
            "mean": array.mean("prompt").values,
            "effect": effect,
            "effect_low": bounds["effect_low"][1],
            "effect_high": bounds["effect_high"][1],
            **against_random(effect * sign, sets, sign),
        }
        for column, values in found.items():
            columns.setdefault(column, []).append(values)
    cell = ("outcome", "ablation", "head_set")
    return {name: (cell, np.stack(values)) for name, values in columns.items()}, status


def against_random(harm: Array, sets: Sequence[ControlledSet], sign: int) -> dict[str, Array]:
    """Return mean and range of the effects of random sets, and the rank of each group among them.

    Args:
        harm: effects `[ablation, head_set]`, turned so that more is worse; the first set is the
            intact model.
        sets: every other set; each group stands before its controls.
        sign: what the effects were multiplied with.

    Returns:
        `random_mean`, `random_low`, `random_high` (of the effects as they were) and `p_value`,
        `[ablation, head_set]`, NaN for the intact model, for controls and for groups without any.
        A group whose random heads come from other layers has no `p_value` either.
    """
    found = {
        name: np.full(harm.shape, np.nan)
        for name in ("random_mean", "random_low", "random_high", "p_value")
    }
    group = -1
    members: dict[int, list[int]] = {}
    for column, one in enumerate(sets, start=1):
        if not one.control_of:
            group = column
            members[group] = []
        else:
            members[group].append(column)
    for column, controls in members.items():
        if not controls:
            continue
        random, own = harm[:, controls], harm[:, column]
        found["random_mean"][:, column] = random.mean(axis=1) * sign
        ends = np.sort(np.stack([random.min(axis=1), random.max(axis=1)]) * sign, axis=0)
        found["random_low"][:, column], found["random_high"][:, column] = ends
        if any(sets[control - 1].layer_distance for control in controls):
            continue
        as_bad = (random >= own[:, None] - _TIE).sum(axis=1)
        p_value = (1 + as_bad) / (1 + len(controls))
        found["p_value"][:, column] = np.where(np.isnan(own), np.nan, p_value)
    return found
