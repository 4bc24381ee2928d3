"""The paths of one call: one per way of masking the prompt, few at a time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from mechlab.engine.batching import free_bytes
from mechlab.engine.generation.batches import Prefix, token_bytes
from mechlab.engine.generation.masks import HeadMask
from mechlab.engine.generation.path import Path
from mechlab.engine.generation.prefixes import Part, parts_of
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

    def parts(self, wanted: Sequence[Prefix]) -> list[Part]:
        """Return keys and values of what rows continue.

        Those of a single prefix are read where they lie, of several they are copied.

        Args:
            wanted: per row, its prefix.
        """
        classes = {mask: at for at, mask in enumerate(dict.fromkeys(mask for _, mask in wanted))}
        rows: dict[Prefix, list[int]] = {}
        for row, prefix in enumerate(wanted):
            rows.setdefault(prefix, []).append(row)
        different = sorted(rows, key=lambda prefix: (classes[prefix[1]], prefix[0]))
        if len(different) == 1:
            path = self._reached(different[0])
            return [_part(path.keys, path.values, different, rows)]
        groups = parts_of([len(tokens) for tokens, _ in different])
        together = [[different[index] for index in group] for group in groups]
        copies = [_Copies(prefixes) for prefixes in together]
        home = {index: part for part, group in enumerate(groups) for index in group}
        for index, prefix in enumerate(different):  # in this order, whatever part each belongs to
            copies[home[index]].add(prefix, self._reached(prefix))
        return [
            _part(copied.keys, copied.values, prefixes, rows)
            for copied, prefixes in zip(copies, together, strict=True)
        ]

    def _reached(self, prefix: Prefix) -> Path:
        path = self.path(prefix[1])
        path.reach(prefix[0])
        return path


class _Copies:
    """Keys and values of several prefixes side by side."""

    def __init__(self, prefixes: Sequence[Prefix]) -> None:
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self._places = {prefix: place for place, prefix in enumerate(prefixes)}
        self._width = max(len(tokens) for tokens, _ in prefixes)

    def add(self, prefix: Prefix, path: Path) -> None:
        """Copy a path; behind its end stand zeros, as weights of 0 meet them."""
        place, length = self._places[prefix], len(prefix[0])
        for source, target in ((path.keys, self.keys), (path.values, self.values)):
            for layer, kept in source.items():
                if layer not in target:
                    shape = (len(self._places), kept.shape[1], self._width, kept.shape[3])
                    target[layer] = kept.new_zeros(shape)
                target[layer][place, :, :length] = kept[0, :, :length]


def _part(
    keys: dict[int, Tensor],
    values: dict[int, Tensor],
    prefixes: Sequence[Prefix],
    rows: dict[Prefix, list[int]],
) -> Part:
    return Part(
        keys,
        values,
        [len(tokens) for tokens, _ in prefixes],
        [row for prefix in prefixes for row in rows[prefix]],
        [place for place, prefix in enumerate(prefixes) for _ in rows[prefix]],
    )
