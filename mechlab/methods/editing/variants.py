"""The same value written by another closed form, without optimising it again."""

import json
import time
from typing import TYPE_CHECKING

import torch

from mechlab.engine import check_choice
from mechlab.errors import OptionError
from mechlab.methods.editing.edits import Edit, unedited_fingerprint
from mechlab.methods.editing.meeting import meeting
from mechlab.methods.editing.modules import projection
from mechlab.methods.editing.moments import KeyStatistics
from mechlab.methods.editing.rank_one import (
    VARIANTS,
    Variant,
    check_statistics,
    collect,
)
from mechlab.methods.editing.recording import Efficacy, measured

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["as_variant"]

_NEEDED = ("key_mean", "key_bare", "value_before", "value", "division_factor")
_CURVES = ("loss", "nll", "kl", "decay", "probability", "delta_norm", "steps", "stopped")


def as_variant(
    model: "Model", edit: Edit, variant: Variant, *, key_statistics: KeyStatistics
) -> Edit:
    """Return another variant of a rank-one edit: the same value v*, another key that meets it.

        edit = ml.rank_one_edit(model, request, layer=2, key_statistics=keys)  # R-ROME
        rome = ml.as_variant(model, edit, "rome", key_statistics=keys)

    ROME, R-ROME and p-ROME (Gupta et al. 2024) differ in their keys alone, so that a comparison
    needs one optimisation, and compares nothing else.

    Args:
        model: the model that the edit was made on, with the same edits in force.
        edit: what `rank_one_edit` returned.
        variant: as there.
        key_statistics: of this model, layer and projection; others than the edit's are allowed.

    Returns:
        The `Edit` that `rank_one_edit` returns for the variant, to rounding.

    Raises:
        OptionError: another kind of edit, another model, an unknown variant, or statistics that
            cannot be used.
    """
    started = time.time()
    collect(
        (
            lambda: check_choice("variant", variant, VARIANTS),
            lambda: _check(model, edit),
            lambda: check_statistics(model, key_statistics, edit.layers, edit.deltas[0].site),
        ),
        [],
    )
    held, layer = edit.details, edit.layers[0]
    options = {**json.loads(held.attrs["options"]), "variant": variant}
    with model.lock:
        place = projection(model, layer, edit.deltas[0].site)
        mean, bare, value = (
            torch.tensor(held[name].values[0], device=place.weight.device)
            for name in ("key_mean", "key_bare", "value")
        )
        delta, about = meeting(place, mean, bare, value, key_statistics.moment(layer), variant)
        other = Edit((delta,), edit.requests, edit.fingerprint, model.edits)
        before = Efficacy(held.probability_new_before.values, held.probability_true_before.values)
        kept = (*_NEEDED[:-1], *_CURVES)
        return measured(
            model, other, before,
            {name: (held[name].dims, held[name].values, held[name].attrs) for name in kept}
            | about,
            method="rank_one_edit",
            options={**options, "key_statistics": key_statistics.digest},
            contexts=tuple(held.context.values.tolist()), seed=held.attrs.get("seed"),
            started=started,
        )  # fmt: skip


def _check(model: "Model", edit: object) -> None:
    if not isinstance(edit, Edit) or any(name not in edit.details for name in _NEEDED):
        raise OptionError(
            f"edit is {edit!r:.80}. Allowed: what rank_one_edit returned, with its details. Make "
            "such an edit first."
        )
    if edit.fingerprint != unedited_fingerprint(model) or edit.made_on != model.edits:
        raise OptionError(
            f"the edit was made on another model than {model.name} as it is now. Allowed: the same "
            "weights with the same edits in force. Make the edit anew."
        )
