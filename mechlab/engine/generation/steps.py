"""One decoding step of many rows: attention of one query each, read and reduced on the spot."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mechlab.engine.generation.masks import Factors

__all__ = ["Prefixes", "Steps"]

ROOM = 32
"""Steps for which keys and values find room at first; doubled when it runs out."""


@dataclass(frozen=True)
class Prefixes:
    """Keys and values of the prompts of one batch, each up to its last token but one.

    Attributes:
        keys: per layer `[prefix, kv_head, pos, d_head]`.
        values: as `keys`.
        lengths: `[prefix]`, tokens of each; what lies behind is never seen.
    """

    keys: dict[int, Tensor]
    values: dict[int, Tensor]
    lengths: Tensor

    def select(self, which: Sequence[int]) -> "Prefixes":
        """Return some of the prefixes; layer by layer, so that little is held twice."""
        index = torch.tensor(which, device=self.lengths.device)
        for kept in (self.keys, self.values):
            for layer in kept:
                kept[layer] = kept[layer][index]
        return Prefixes(self.keys, self.values, self.lengths[index])


@dataclass
class Steps:
    """The rows of a batch and what they have generated so far.

    Rows of one prefix read its keys and values together; each has its own only for the tokens that
    it was given since.

    Attributes:
        prefixes: the prompts.
        owner: `[row]`, each row's prefix.
        factors: masked heads per row.
        watch: `[row, watched]` positions whose attention is summed, and 1.0 or 0.0 (filler) for
            each; `None` when no sum is wanted.
        attention: whether attention is read at all.
        done: tokens run so far.
    """

    prefixes: Prefixes
    owner: Tensor
    factors: Factors
    watch: tuple[Tensor, Tensor] | None = None
    attention: bool = False
    done: int = 0
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    attended: dict[int, Tensor] = field(default_factory=dict)
    mass: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Lay the rows out as `[prefix, member]`, so that one product reads a prefix once."""
        n_prefixes = len(self.prefixes.lengths)
        members = [0] * n_prefixes
        places = []
        for prefix in self.owner.tolist():
            places.append((prefix, members[prefix]))
            members[prefix] += 1
        self.members = max(members)
        slots = [prefix * self.members + member for prefix, member in places]
        identity = slots == list(range(n_prefixes * self.members))
        self._slots = None if identity else torch.tensor(slots, device=self.owner.device)
        self.lengths = self.prefixes.lengths[self.owner]
        self._width = int(self.prefixes.lengths.max())
        ragged = bool((self.prefixes.lengths != self._width).any())
        at = torch.arange(self._width, device=self.owner.device)
        self._hidden = (at >= self.lengths[:, None])[:, None, None] if ragged else None

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
        if self._width:
            before = self._prefix_scores(query, self.prefixes.keys[layer][:, :, : self._width])
            scores = torch.cat([before, scores], dim=-1)
        exact = torch.promote_types(scores.dtype, torch.float32)
        weights = (scores * scaling).softmax(
            -1, dtype=exact
        )  # [row, kv_head, member head, position]
        if self.attention:
            self._read(layer, weights.reshape(n_rows, n_heads, -1))
        weights = weights.to(value.dtype)
        out = torch.matmul(weights[..., self._width :], own_values)
        if self._width:
            values = self.prefixes.values[layer][:, :, : self._width]
            out = out + self._prefix_outputs(weights[..., : self._width], values)
        return self.factors.on_outputs(layer, out.reshape(n_rows, n_heads, 1, -1))

    def keep(self, rows: Sequence[int]) -> "Steps":
        """Return these rows alone; prefixes that no row reads are let go when they are many."""
        index = torch.tensor(rows, device=self.owner.device)
        owner = self.owner[index].tolist()
        used = sorted(set(owner))
        prefixes = self.prefixes
        if 2 * len(used) <= len(prefixes.lengths):
            prefixes = prefixes.select(used)
            owner = [used.index(prefix) for prefix in owner]
        masks = [self.factors.masks[row] for row in rows]
        return Steps(
            prefixes,
            torch.tensor(owner, device=index.device),
            self.factors.of(masks),
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
            more = torch.empty_like(buffers[layer])
            buffers[layer] = torch.cat([buffers[layer], more], dim=2)
        buffers[layer][:, :, self.done] = new[:, :, 0]
        return buffers[layer][:, :, : self.done + 1]

    def _prefix_scores(self, query: Tensor, keys: Tensor) -> Tensor:
        scores = torch.matmul(self._by_prefix(query), keys.transpose(-1, -2))
        scores = self._by_row(scores, query.shape[2])
        return scores if self._hidden is None else scores.masked_fill(self._hidden, -torch.inf)

    def _prefix_outputs(self, weights: Tensor, values: Tensor) -> Tensor:
        return self._by_row(torch.matmul(self._by_prefix(weights), values), weights.shape[2])

    def _by_prefix(self, rows: Tensor) -> Tensor:
        """From `[row, kv_head, group, x]` to `[prefix, kv_head, member * group, x]`."""
        n_slots = len(self.prefixes.lengths) * self.members
        if self._slots is not None:
            filled = rows.new_zeros(n_slots, *rows.shape[1:])
            filled[self._slots] = rows
            rows = filled
        split = rows.reshape(-1, self.members, *rows.shape[1:]).transpose(1, 2)
        return split.reshape(split.shape[0], split.shape[1], -1, split.shape[-1])

    def _by_row(self, found: Tensor, group: int) -> Tensor:
        """From `[prefix, kv_head, member * group, x]` back to `[row, kv_head, group, x]`."""
        n_prefixes, n_kv, _, width = found.shape
        split = found.reshape(n_prefixes, n_kv, self.members, group, width).transpose(1, 2)
        rows = split.reshape(n_prefixes * self.members, n_kv, group, width)
        return rows if self._slots is None else rows[self._slots]

    def _read(self, layer: int, weights: Tensor) -> None:
        """Reduce `[row, head, position]` to the most attended position and the watched mass."""
        best = weights.argmax(-1)  # columns from `_width` on are the tokens since the prefix
        since = best - self._width
        best = torch.where(since >= 0, self.lengths[:, None] + since, best)
        self.attended[layer] = best.to(torch.int32)
        if self.watch is not None:
            positions, real = self.watch
            column = positions + (self._width - self.lengths[:, None]) * (
                positions >= self.lengths[:, None]
            )
            column = column[:, None].expand(-1, weights.shape[1], -1)
            self.mass[layer] = (weights.gather(-1, column) * real[:, None]).sum(-1).float()
