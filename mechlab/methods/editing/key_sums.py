"""Sums of k k^T over batches of text, with a journal on the way."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mechlab.methods.editing.key_runs import KeyRuns
from mechlab.progress import Journal

__all__ = ["KeySums", "Window", "add_products"]

Window = list[tuple[int, ...]]
"""Token ids of texts, unpadded."""

_BLOCK = 384
"""Columns of a moment that are worked out at once: only what is below their diagonal is needed."""


@dataclass
class KeySums:
    """Sums on the way, float64 `[d_in, d_in]` per projection; their upper triangle is not kept."""

    runs: KeyRuns
    dtype: str
    max_batch: int
    tokens: int = 0
    sums: list[Tensor] = field(default_factory=list)
    seen: Any = field(default_factory=hashlib.sha256)

    def __post_init__(self) -> None:
        """Begin with zeros."""
        self.sums = [
            torch.zeros(place.d_in, place.d_in, dtype=torch.float64, device=place.weight.device)
            for place in self.runs.places
        ]

    def skip_or_add(self, window: Window, journal: Journal | None, name: str) -> None:
        """Count a window, or take the sums of a run that got further from the journal."""
        for ids in window:
            self.seen.update(np.array([len(ids), *ids], dtype=np.int64).tobytes())
        key = f"{name} {self.seen.hexdigest()}"
        held = None if journal is None else journal.get(key)
        self.tokens += sum(map(len, window))
        if held is not None:
            for total, part in zip(self.sums, held, strict=True):
                total += torch.from_numpy(part.copy()).to(total.device)
            return
        before = [total.clone() for total in self.sums] if journal is not None else []
        for batch in _batches(window, self.max_batch):
            self.add(batch)
        if journal is not None:
            parts = [now - then for now, then in zip(self.sums, before, strict=True)]
            journal.put(key, np.stack([part.cpu().numpy() for part in parts]))

    def add(self, batch: Window) -> None:
        """Run rows side by side, padded on the right, and add the products of their keys.

        Padding stands after every real token, so whatever it holds changes none of them.
        """
        lengths = [len(ids) for ids in batch]
        width, device = max(lengths), self.sums[0].device
        tokens = torch.tensor([[*ids, *[ids[-1]] * (width - len(ids))] for ids in batch])
        real = torch.arange(width) < torch.tensor(lengths)[:, None]
        whole = min(lengths) == width
        self.runs.run(tokens.to(device), partial(self._read, None if whole else real.to(device)))

    def _read(self, real: Tensor | None, index: int, keys: Tensor) -> None:
        rows = keys.flatten(0, 1) if real is None else keys[real]
        add_products(self.sums[index], rows.to(getattr(torch, self.dtype)))

    def means(self) -> np.ndarray[Any, Any]:
        """Return C of each layer, float64 `[layer, d_in, d_in]`."""
        means = []
        for total in self.sums:
            lower = total.tril()
            means.append((lower + total.tril(-1).T) / self.tokens)
        found: np.ndarray[Any, Any] = torch.stack(means).cpu().numpy()
        return found


def add_products(total: Tensor, rows: Tensor) -> None:
    """Add the lower triangle of rows^T rows, `rows` of `[token, d_in]`, in blocks of columns.

    That is little more than half the work of the whole product. What stands above the diagonal of
    `total` afterwards has no meaning.
    """
    for begin in range(0, len(total), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        total[begin:, block] += rows[:, begin:].T @ rows[:, block]


def _batches(window: Window, max_batch: int) -> Iterator[Window]:
    """Yield rows of similar length, at most `max_batch` tokens with their padding."""
    batch: Window = []
    for ids in sorted(window, key=len):
        if batch and len(ids) * (len(batch) + 1) > max_batch:
            yield batch
            batch = []
        batch.append(ids)
    if batch:
        yield batch
