"""The change that makes a key meet its value, and how far the weight that is stored stays off."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mechlab.methods.editing.deltas import Delta
from mechlab.methods.editing.modules import Projection
from mechlab.methods.editing.solving import direction, rank_one_update

__all__ = ["meeting"]


def meeting(
    place: Projection, mean: Tensor, bare: Tensor, value: Tensor, moment: Tensor, variant: str
) -> tuple[Delta, dict[str, Any]]:
    """Return the change of one variant of ROME, and variables of (edit) on how well it is posed.

    Args:
        place: the projection.
        mean: key over the contexts, `[d_in]`.
        bare: key of the bare prompt, `[d_in]`.
        value: v*, `[d_out]`.
        moment: C, `[d_in, d_in]`.
        variant: which of the keys meets the value.
    """
    moment = moment.to(bare.device)
    towards = direction(moment, bare if variant == "p-rome" else mean)
    met = mean if variant == "r-rome" else bare
    left, right, factor = rank_one_update(met, value - place.value_of(met), towards)
    delta = Delta(place.layer, place.site, left[:, None], right[:, None])  # type: ignore[arg-type]
    away = _residuals(place, delta, value, {"residual": met, "residual_bare": bare})
    told: dict[str, Any] = {
        "division_factor": ("edit", [factor]),
        "cast_error": ("edit", [away["residual"] / float(value.norm())]),
    }
    unit = {"units": "activation"}
    return delta, told | {name: ("edit", [number], unit) for name, number in away.items()}


def _residuals(
    place: Projection, delta: Delta, value: Tensor, keys: Mapping[str, Tensor]
) -> dict[str, float]:
    """Return ||W'k + b - v*|| of each key, with W' in the model's precision."""
    wide = torch.float64 if place.weight.dtype == torch.float64 else torch.float32
    change = delta.change(wide).to(value.device)
    stored = (place.weight.to(wide) + change).to(place.weight.dtype).double()
    bias = 0.0 if place.bias is None else place.bias.double()
    return {name: float((stored @ key + bias - value).norm()) for name, key in keys.items()}
