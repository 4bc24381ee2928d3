"""Changes written into a model's weights for a while, and the very bytes put back afterwards."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mechlab.errors import ModelError
from mechlab.methods.editing.deltas import Delta, DenseDelta
from mechlab.methods.editing.modules import Projection, projection

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["add_change", "check_shapes", "written"]


@contextmanager
def written(model: "Model", deltas: Sequence[Delta | DenseDelta], name: str) -> Iterator[None]:
    """Add changes to the weights, name them in `model.edits`, and put the bytes back at the end.

    Raises:
        ModelError: when a change has another shape than its weight, or the sum is not finite.
    """
    with model.lock, torch.no_grad():
        places = [projection(model, delta.layer, delta.site) for delta in deltas]
        check_shapes(model, places, deltas)
        _ = model.fingerprint
        kept: Mapping[int, tuple[Projection, Tensor]] = {
            id(p.module): (p, p.module.weight.data.clone())  # type: ignore[operator]
            for p in places
        }
        before = model.edits
        try:
            for place, delta in zip(places, deltas, strict=True):
                add_change(model, place, delta)
            model.edits = (*before, name)
            yield
        finally:
            model.edits = before
            for place, original in kept.values():
                weight: Any = place.module.weight.data
                weight.copy_(original)
                assert torch.equal(weight.view(torch.uint8), original.view(torch.uint8))


def check_shapes(
    model: "Model", places: Sequence[Projection], deltas: Sequence[Delta | DenseDelta]
) -> None:
    """Refuse changes of another shape than their weights.

    Raises:
        ModelError: naming them all.
    """
    wrong = [
        f"layer {delta.layer} {delta.site}: {delta.shape} for {tuple(place.weight.shape)}"
        for place, delta in zip(places, deltas, strict=True)
        if delta.shape != tuple(place.weight.shape)
    ]
    if wrong:
        raise ModelError(
            f"changes do not fit the weights of {model.name} (d_out, d_in): {'; '.join(wrong)}.\n"
            "  Allowed: changes of the weight's own shape.\n  Make the edit on this model."
        )


def add_change(model: "Model", place: Projection, delta: Delta | DenseDelta) -> None:
    """Add one change to its weight, in float32 or wider, and cast last.

    Raises:
        ModelError: when the sum is not finite in the weight's precision; it is as before then.
    """
    weight = place.weight
    wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
    total = (weight.to(wide) + delta.change(wide).to(weight.device)).to(weight.dtype)
    if not torch.isfinite(total).all():
        raise ModelError(
            f"the edit makes weights of layer {delta.layer} infinite in "
            f"{str(weight.dtype).removeprefix('torch.')} (norm of the change {delta.norm:.3g}).\n"
            "  Allowed: changes that fit the precision of the weights.\n"
            "  Load the model in bfloat16 or float32, or use variant='r-rome'."
        )
    weight.copy_(total)
