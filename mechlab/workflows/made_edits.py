"""A rank-one edit with its numbers, as results and journals of workflows hold it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from mechlab.methods.editing import Delta, Edit
from mechlab.methods.editing.modules import Projection
from mechlab.prompts import EditRequest

__all__ = ["NUMBERS", "MadeEdit"]

NUMBERS = (
    "division_factor",
    "division_ratio",
    "norm",
    "relative_norm",
    "value_ratio",
    "probability_optimised",
    "steps",
    "probability_new",
    "probability_new_before",
    "residual",
    "residual_bare",
)
"""What is kept of every edit besides its factors; new ones go last, journals hold them in order."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class MadeEdit:
    """An edit and its numbers by name, those of `NUMBERS`."""

    edit: Edit
    numbers: Mapping[str, float]

    @classmethod
    def fresh(cls, edit: Edit) -> "MadeEdit":
        """Return an edit with its numbers, from its details."""
        details, (delta,) = edit.details, edit.deltas
        assert isinstance(delta, Delta)
        before, value = details.value_before.values[0], details.value.values[0]
        reached = details.probability.values[0]
        names = ("division_factor", "norm", "steps", "probability_new", "probability_new_before",
                 "residual", "residual_bare")  # fmt: skip
        numbers = {name: float(details[name][0]) for name in names}
        numbers |= {
            "division_ratio": numbers["division_factor"]
            / float(details.key_mean.values[0] @ delta.right[:, 0]),
            "relative_norm": float(details.norm[0] / details.weight_norm[0]),
            "value_ratio": float(np.linalg.norm(value - before) / np.linalg.norm(before)),
            "probability_optimised": float(reached[~np.isnan(reached)][-1]),
        }
        return cls(edit, numbers)

    @property
    def factors(self) -> tuple[Array, Array]:
        """Left `[d_out]` and right `[d_in]` of its one change."""
        (delta,) = self.edit.deltas
        assert isinstance(delta, Delta)
        return delta.left[:, 0], delta.right[:, 0]

    def packed(self) -> Array:
        """Return the edit as a journal keeps it."""
        left, right = self.factors
        return np.concatenate([[len(left), *(self.numbers[n] for n in NUMBERS)], left, right])

    @classmethod
    def unpacked(
        cls,
        held: Array,
        place: Projection,
        request: EditRequest,
        fingerprint: str,
        made_on: tuple[str, ...],
    ) -> "MadeEdit":
        """Return the edit that a journal kept; numbers that an older one lacks are NaN."""
        left, right = held[-place.d_in - place.d_out : -place.d_in], held[-place.d_in :]
        known = dict(zip(NUMBERS, map(float, held[1 : -place.d_in - place.d_out]), strict=False))
        delta = Delta(place.layer, place.site, left[:, None], right[:, None])  # type: ignore[arg-type]
        edit = Edit((delta,), (request,), fingerprint, made_on, xr.Dataset())
        return cls(edit, dict.fromkeys(NUMBERS, np.nan) | known)
