"""Keys and values that the rows of a batch have from their prompts, read once per prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Part", "parts_of"]

ALIKE, AND_MORE = 1.2, 32
"""Prompts share a tensor up to so many times the shortest one's length, and so many tokens more:
what pads shorter ones is computed for nothing."""


def parts_of(lengths: Sequence[int]) -> list[list[int]]:
    """Return which prefixes share a tensor: those of similar length, by index in their order."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    parts: list[list[int]] = []
    for index in order:
        if not parts or lengths[index] > ALIKE * lengths[parts[-1][0]] + AND_MORE:
            parts.append([])
        parts[-1].append(index)
    return [sorted(part) for part in parts]


@dataclass
class Part:
    """Prompts of similar length, each up to its last token but one, and the rows that go on there.

    Attributes:
        keys: per layer `[prefix, kv_head, pos, d_head]`.
        values: as `keys`.
        lengths: tokens of each prefix; what lies behind is never seen.
        rows: rows of the batch that belong here.
        owners: the prefix of each of these rows.
    """

    keys: dict[int, Tensor]
    values: dict[int, Tensor]
    lengths: list[int]
    rows: list[int]
    owners: list[int]

    def __post_init__(self) -> None:
        """Lay the rows out as `[prefix, member]`, so that one product reads a prefix once."""
        device = next((kept.device for kept in self.keys.values()), torch.device("cpu"))
        members = [0] * len(self.lengths)
        slots = []
        for owner in self.owners:
            slots.append((owner, members[owner]))
            members[owner] += 1
        self.members = max(members)
        flat = [owner * self.members + member for owner, member in slots]
        exact = flat == list(range(len(self.lengths) * self.members))
        self._slots = None if exact else torch.tensor(flat, device=device)
        self.width = max(self.lengths)
        of_rows = torch.tensor([self.lengths[owner] for owner in self.owners], device=device)
        at = torch.arange(self.width, device=device)
        ragged = min(self.lengths) < self.width
        self._hidden = (at >= of_rows[:, None])[:, None, None] if ragged else None

    def scores(self, layer: int, query: Tensor) -> Tensor:
        """Return products with the keys, -inf behind the end of a prefix.

        Args:
            layer: the layer.
            query: `[row, kv_head, group, d_head]` of this part's rows.

        Returns:
            `[row, kv_head, group, pos]`.
        """
        keys = self.keys[layer][:, :, : self.width]
        found = torch.matmul(self._by_prefix(query), keys.transpose(-1, -2))
        found = self._by_row(found, query.shape[2])
        return found if self._hidden is None else found.masked_fill(self._hidden, -torch.inf)

    def outputs(self, layer: int, weights: Tensor) -> Tensor:
        """Return `[row, kv_head, group, d_head]`, the values summed with weights."""
        values = self.values[layer][:, :, : self.width]
        return self._by_row(torch.matmul(self._by_prefix(weights), values), weights.shape[2])

    def keep(self, rows: Sequence[int]) -> "Part | None":
        """Return the part for some rows of the batch, which are numbered anew, or `None`.

        Prefixes that no row continues are let go when they are at least half of all.
        """
        place = {row: new for new, row in enumerate(rows)}
        left = [
            (place[row], owner)
            for row, owner in zip(self.rows, self.owners, strict=True)
            if row in place
        ]
        if not left:
            return None
        used = sorted({owner for _, owner in left})
        if 2 * len(used) > len(self.lengths):
            used = list(range(len(self.lengths)))
        else:
            for kept in (self.keys, self.values):
                for layer in kept:  # layer by layer, so that little is held twice
                    kept[layer] = kept[layer][used]
        return Part(
            self.keys,
            self.values,
            [self.lengths[owner] for owner in used],
            [row for row, _ in left],
            [used.index(owner) for _, owner in left],
        )

    def _by_prefix(self, rows: Tensor) -> Tensor:
        """From `[row, kv_head, group, x]` to `[prefix, kv_head, member * group, x]`."""
        if self._slots is not None:
            filled = rows.new_zeros(len(self.lengths) * self.members, *rows.shape[1:])
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
