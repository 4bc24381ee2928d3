"""Probes: zeros added to a site, whose gradient is the gradient with respect to the site."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from mechlab.hooks.attaching import Edits, Place, _Write

__all__ = ["Probe", "probes"]


class Probe(_Write):
    """Adds a leaf tensor to a site in a copy of its value, and keeps both.

    Attributes:
        offset: what is added, `None` for zeros; the gradient is taken there.
        value: the site's value before the addition, once it fired.
        added: the leaf that requires a gradient, once it fired.
    """

    def __init__(self, offset: Tensor | None = None) -> None:
        """Keep what will be added."""
        super().__init__("add", (), 0.0)
        self.offset = offset
        self.value: Tensor | None = None
        self.added: Tensor | None = None

    def __call__(self, out: Tensor) -> None:
        """Add the leaf in place."""
        offset = out.new_zeros(out.shape) if self.offset is None else self.offset.to(out)
        self.value = out.detach().clone()
        self.added = offset.detach().clone().requires_grad_()
        out += self.added


def probes(
    places: Sequence[Place], offsets: Mapping[Place, Tensor] | None = None
) -> tuple[Edits, dict[Place, Probe]]:
    """Return edits for `attach` and the probes in them, one per place."""
    found = {place: Probe((offsets or {}).get(place)) for place in places}
    return {place: [probe] for place, probe in found.items()}, found
