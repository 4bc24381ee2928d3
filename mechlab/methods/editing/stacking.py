"""Edits that stay in force one upon another, with one copy of each weight that they touch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mechlab.engine import verify
from mechlab.methods.editing.edits import Edit
from mechlab.methods.editing.modules import Projection, projection
from mechlab.methods.editing.writing import add_change, check_shapes

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["EditStack", "stacked"]


class EditStack:
    """The edits of one `stacked` block; nesting `Edit.applied` would copy a weight for each."""

    def __init__(self, model: "Model") -> None:
        """Begin with the model as it is."""
        self._model = model
        self._kept: dict[int, tuple[Projection, Tensor]] = {}

    @torch.no_grad()
    def add(self, edit: Edit) -> None:
        """Put one more edit in force, on top of the others.

        Raises:
            ModelError: an edit that was not made on this model as it is now, or weights that would
                not be finite; the edits before it stay in force then.
        """
        model = self._model
        edit._check(model, True)
        places = [projection(model, delta.layer, delta.site) for delta in edit.deltas]
        check_shapes(model, places, edit.deltas)
        now = [_stored(place).clone() for place in places]
        for place, weight in zip(places, now, strict=True):
            self._kept.setdefault(id(place.module), (place, weight))
        try:
            for place, delta in zip(places, edit.deltas, strict=True):
                add_change(model, place, delta)
        except BaseException:
            for place, weight in zip(places, now, strict=True):
                _stored(place).copy_(weight)
            raise
        model.edits = (*model.edits, edit.digest)

    @property
    def norm(self) -> float:
        """Frobenius norm of what all edits together changed, as the weights hold it now."""
        changes = [(_stored(place).double() - old.double()).norm() for place, old in self._held]
        return float(torch.stack(changes).norm()) if changes else 0.0

    @property
    def weight_norm(self) -> float:
        """Frobenius norm of the touched weights before the edits; 0 when there are none."""
        norms = [old.double().norm() for _, old in self._held]
        return float(torch.stack(norms).norm()) if norms else 0.0

    @property
    def _held(self) -> list[tuple[Projection, Tensor]]:
        return list(self._kept.values())


@contextmanager
def stacked(model: "Model") -> Iterator[EditStack]:
    """Let edits pile up for the length of a `with` block, each made on the model as it is by then.

        with stacked(model) as stack:
            for request in requests:
                stack.add(rank_one_edit(model, request, layer=3, key_statistics=statistics))

    The model's lock is held. On leaving, also by an exception, the weights get back the bytes they
    had and the list of edits in force is what it was.
    """
    with model.lock:
        if not model.edits:
            verify(model)  # its witness is the model as it was loaded
        _ = model.fingerprint  # hashes the weights once, before anything is written
        before, stack = model.edits, EditStack(model)
        try:
            yield stack
        finally:
            model.edits = before
            with torch.no_grad():
                for place, original in stack._held:
                    weight = _stored(place).copy_(original)
                    assert torch.equal(weight.view(torch.uint8), original.view(torch.uint8))


def _stored(place: Projection) -> Tensor:
    """Return the whole parameter, of which a site may be a part."""
    weight: Any = place.module.weight.data
    held: Tensor = weight
    return held
