"""One decoding step of many rows: attention of one query each, read and reduced on the spot."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechlab.engine.generation.masks import Factors
from mechlab.engine.generation.prefixes import Part

__all__ = ["Steps"]

ROOM = 32
"""Steps for which keys and values find room at first; doubled when it runs out."""


@dataclass
class Steps:
    """The rows of a batch and what they have generated so far; a `twin.Reader`.

    Rows of one prompt read its keys and values together; each has its own only for the tokens that
    it was given since.

    Attributes:
        parts: the prompts before their last token, and whose they are.
        factors: masked heads per row.
        watch: `[row, watched]` positions whose attention is summed, and 1.0 or 0.0 (filler) for
            each; `None` when no sum is wanted.
        attention: whether attention is read at all.
        done: tokens run so far.
        attended: per layer `[row, head]`, position most attended by the last query.
        mass: per layer `[row, head]`, attention of the last query on the watched positions.
    """

    parts: list[Part]
    factors: Factors
    watch: tuple[Tensor, Tensor] | None = None
    attention: bool = False
    done: int = 0
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    attended: dict[int, Tensor] = field(default_factory=dict)
    mass: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find each row's length, and the parts' rows as an index."""
        device = self.factors.device
        lengths = [0] * len(self.factors.masks)
        for part in self.parts:
            for row, owner in zip(part.rows, part.owners, strict=True):
                lengths[row] = part.lengths[owner]
        self.lengths = torch.tensor(lengths, device=device)
        self._width = max((part.width for part in self.parts), default=0)  # of rows that left, too
        whole = list(range(len(lengths)))
        self._rows = [
            slice(None) if part.rows == whole else torch.tensor(part.rows, device=device)
            for part in self.parts
        ]

    @property
    def positions(self) -> Tensor:
        """`[row, 1]`, where the token that runs now stands in its sequence."""
        return (self.lengths + self.done)[:, None]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Attend with one query per row; see `twin.Reader`."""
        n_rows, n_heads, _, d_head = query.shape
        n_kv = key.shape[1]
        own_keys = self._extended(self.keys, layer, key)
        own_values = self._extended(self.values, layer, value)
        query = self.factors.on_queries(layer, query)
        query = query.reshape(n_rows, n_kv, n_heads // n_kv, d_head)
        scores = torch.matmul(query, own_keys.transpose(-1, -2))
        scores = self._with_prefixes(layer, query, scores)
        exact = torch.promote_types(scores.dtype, torch.float32)
        weights = (scores * scaling).softmax(-1, dtype=exact)  # [row, kv_head, group, position]
        if self.attention:
            self._read(layer, weights.reshape(n_rows, n_heads, -1))
        weights = weights.to(value.dtype)
        out = torch.matmul(weights[..., self._width :], own_values)
        for part, rows in zip(self.parts, self._rows, strict=True):
            if part.width:
                out[rows] += part.outputs(layer, weights[rows][..., : part.width])
        return self.factors.on_outputs(layer, out.reshape(n_rows, n_heads, 1, -1))

    def keep(self, rows: Sequence[int]) -> "Steps":
        """Return these rows alone."""
        index = torch.tensor(rows, device=self.lengths.device)
        parts = [part.keep(rows) for part in self.parts]
        return Steps(
            [part for part in parts if part is not None],
            self.factors.of([self.factors.masks[row] for row in rows]),
            None if self.watch is None else (self.watch[0][index], self.watch[1][index]),
            self.attention,
            self.done,
            {layer: kept[index] for layer, kept in self.keys.items()},
            {layer: kept[index] for layer, kept in self.values.items()},
        )

    def _extended(self, buffers: dict[int, Tensor], layer: int, new: Tensor) -> Tensor:
        """Write the new token's keys or values; return those of all tokens since the prefix."""
        rows, heads, _, width = new.shape
        if layer not in buffers:
            buffers[layer] = new.new_empty(rows, heads, ROOM, width)
        elif buffers[layer].shape[2] == self.done:
            buffers[layer] = torch.cat([buffers[layer], torch.empty_like(buffers[layer])], dim=2)
        buffers[layer][:, :, self.done] = new[:, :, 0]
        return buffers[layer][:, :, : self.done + 1]

    def _with_prefixes(self, layer: int, query: Tensor, own: Tensor) -> Tensor:
        """Return scores with those of the prompts in front, `_width` columns wide for all rows."""
        if not self._width:
            return own
        if isinstance(self._rows[0], slice):
            return torch.cat([self.parts[0].scores(layer, query), own], dim=-1)
        found = own.new_full((*own.shape[:3], self._width + own.shape[3]), -torch.inf)
        found[..., self._width :] = own
        for part, rows in zip(self.parts, self._rows, strict=True):
            if part.width:
                found[rows, ..., : part.width] = part.scores(layer, query[rows])
        return found

    def _read(self, layer: int, weights: Tensor) -> None:
        """Reduce `[row, head, position]` to the most attended position and the watched mass."""
        best = weights.argmax(-1)  # columns from `_width` on are the tokens since the prefix
        since = best - self._width
        best = torch.where(since >= 0, self.lengths[:, None] + since, best)
        self.attended[layer] = best.to(torch.int32)
        if self.watch is not None:
            positions, real = self.watch
            late = positions >= self.lengths[:, None]
            columns = positions + (self._width - self.lengths[:, None]) * late
            columns = columns[:, None].expand(-1, weights.shape[1], -1)
            self.mass[layer] = (weights.gather(-1, columns) * real[:, None]).sum(-1).float()
