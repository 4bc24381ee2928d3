"""The paths of one call: one per way of masking the prompt, few at a time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechlab.engine.batching import free_bytes
from mechlab.engine.generation.batches import Prefix, token_bytes
from mechlab.engine.generation.masks import HeadMask
from mechlab.engine.generation.path import Path
from mechlab.engine.generation.steps import Prefixes
from mechlab.engine.generation.twin import Twin

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Paths"]

MOST = 4
"""Paths kept when memory allows; prompts that are masked in more ways are computed anew."""


class Paths:
    """Keys and values that outlast a batch.

    Attributes:
        model: the model.
        twin: its twin.
        capacity: longest sequence.
        chunk: tokens that run at once.
    """

    def __init__(self, model: "Model", twin: Twin, *, capacity: int, chunk: int) -> None:
        """Hold nothing yet."""
        self.model = model
        self.twin = twin
        self.capacity = capacity
        self.chunk = chunk
        self._paths: dict[HeadMask | None, Path] = {}
        self._state: tuple[object, ...] = ()

    def refresh(self) -> None:
        """Take over the model's weights as they are now; forget what was computed with others."""
        state = (self.model.edits, *self.twin.link())
        if state != self._state:
            self._paths.clear()
        self._state = state

    def path(self, mask: HeadMask | None) -> Path:
        """Return the path on which `mask` holds everywhere, the longest unused one making room."""
        path = self._paths.pop(mask, None)
        if path is None:
            size = self.capacity * token_bytes(self.model)
            most = MOST if MOST * size < 0.2 * free_bytes(self.model.device) else 1
            while len(self._paths) >= most:
                del self._paths[next(iter(self._paths))]
            path = Path(self.model, self.twin, self.capacity, self.chunk, mask)
        self._paths[mask] = path
        return path

    def prefixes(self, wanted: Sequence[Prefix]) -> Prefixes:
        """Return the keys and values of some prefixes: of a single one where they lie, else copies.

        Args:
            wanted: different prefixes, sorted.
        """
        lengths = torch.tensor([len(tokens) for tokens, _ in wanted], device=self.model.device)
        if len(wanted) == 1:
            ((tokens, mask),) = wanted
            path = self.path(mask)
            path.reach(tokens)
            return Prefixes(dict(path.keys), dict(path.values), lengths)
        width = int(lengths.max())
        keys: dict[int, Tensor] = {}
        values: dict[int, Tensor] = {}
        for place, (tokens, mask) in enumerate(wanted):
            path = self.path(mask)
            path.reach(tokens)
            _copy(path.keys, keys, place, len(tokens), (len(wanted), width))
            _copy(path.values, values, place, len(tokens), (len(wanted), width))
        return Prefixes(keys, values, lengths)


def _copy(
    source: dict[int, Tensor],
    target: dict[int, Tensor],
    place: int,
    length: int,
    shape: tuple[int, int],
) -> None:
    """Copy one path into its place; what lies behind shorter ones stays zero, never read."""
    n_prefixes, width = shape
    for layer, kept in source.items():
        if layer not in target:
            target[layer] = kept.new_zeros(n_prefixes, kept.shape[1], width, kept.shape[3])
        target[layer][place, :, :length] = kept[0, :, :length]
