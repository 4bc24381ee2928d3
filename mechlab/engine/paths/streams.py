"""Streams: what a changed node brings to later blocks while every attention head stays as it was.

With the heads held at their values of the original run nothing moves between positions, so a stream
is a set of *cells*, one per row and touched position, and no attention is computed. There are two:

- `DirectStream`: MLPs are held as well. The change travels the residual unchanged, so what enters a
  block is the original residual plus the sum of the earlier changes: no forward at all.
- `LiveStream`: MLPs (and the norms before them) are live. Each block is the model's own, with its
  attention replaced by one that starts from the held head outputs `z`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from mechlab.engine.forward import BaseRuns
from mechlab.engine.inside import attention_replaced
from mechlab.engine.verify import TOLERANCE
from mechlab.errors import SiteError
from mechlab.hooks import Edits, Place, Site, attach

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Cells", "DirectStream", "LiveStream", "PairRuns", "StreamRow", "run_cells"]


@dataclass(frozen=True)
class PairRuns:
    """Both runs of some prompts, all of one length: `0..n-1` are changed, `n..2n-1` are read.

    Attributes:
        model: the model.
        runs: base runs of all `2 n` prompts, without padding.
        n: number of pairs.
    """

    model: "Model"
    runs: BaseRuns
    n: int

    @property
    def width(self) -> int:
        """Tokens of every prompt."""
        return self.runs.tokens.width

    def original(self, name: str, layer: int | None) -> Tensor:
        """Return a site's values in the runs that are changed, `[pair, pos, ...]`."""
        return self.runs.kept.values[name, layer][: self.n]

    def new(self, name: str, layer: int | None) -> Tensor:
        """Return a site's values in the runs that are read, `[pair, pos, ...]`."""
        return self.runs.kept.values[name, layer][self.n :]

    def change(self, name: str, layer: int | None) -> Tensor:
        """Return how much a site differs between the two runs, float32 `[pair, pos, ...]`."""
        return self.new(name, layer).float() - self.original(name, layer).float()

    def head_writes(self, layer: int) -> Tensor:
        """Return the change of each head's write to the residual, `[pair, pos, head, d_model]`.

        Raises:
            SiteError: when the heads' writes do not add up to the attention's write.
        """
        weight = self.model.bridge.blocks[layer].attn.W_O.float()  # [head, d_head, d_model]
        writes = torch.einsum("nphd,hdm->nphm", self.change("z", layer), weight)
        expected = self.change("attn_out", layer)
        gap = float((writes.sum(2) - expected).abs().max())
        size = max(1.0, float(self.original("attn_out", layer).abs().max()))
        if not gap <= TOLERANCE.get(self.model.dtype, 1e-5) * size:
            raise SiteError(
                f"heads of layer {layer} of {self.model.name} ({self.model.family}) have no "
                f"additive write: z times W_O differs from the attention's write by {gap:.1e}, as "
                "where a norm or a scale follows.\n  Allowed as senders of direct edges: nodes "
                "whose write is added to the residual as it is.\n  Use freeze='heads', which "
                "re-runs the model's own blocks."
            )
        return writes


@dataclass(frozen=True)
class StreamRow:
    """One sender on one pair: what is overwritten by its value in the other run.

    Attributes:
        pair: index of the pair.
        writes: sites (`z`, `attn_out`, `mlp_out`, `embed`) and the positions of each.
        label: index of the sender in the caller's list.
    """

    pair: int
    writes: tuple[tuple[Site, tuple[int, ...]], ...]
    label: int = 0

    @property
    def start(self) -> int:
        """Block that is the first to see or make the change; -1 when it enters the first block."""
        return min(-1 if site.layer is None else site.layer for site, _ in self.writes)

    @property
    def positions(self) -> tuple[int, ...]:
        """Touched positions, sorted."""
        return tuple(sorted({pos for _, positions in self.writes for pos in positions}))


@dataclass
class _Writes:
    """The cells that one block overwrites.

    Attributes:
        z_cells, z_heads: cell and head of every head output taken from the other run.
        whole: cells whose MLP output (before the first block: whose embedding) is.
    """

    z_cells: list[int] = field(default_factory=list)
    z_heads: list[int] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)


class Cells:
    """Rows spelled out into cells, sorted by the block at which they start."""

    def __init__(self, pairs: PairRuns, rows: Sequence[StreamRow]) -> None:
        """Sort the rows and list their cells and writes."""
        self.pairs = pairs
        self.rows = sorted(rows, key=lambda row: row.start)
        self.offsets = np.cumsum([0, *(len(row.positions) for row in self.rows)])
        self.writes: dict[int, _Writes] = defaultdict(_Writes)
        device = pairs.runs.residuals.device
        positions: list[int] = []
        owners: list[int] = []
        for number, row in enumerate(self.rows):
            here = row.positions
            cell_of = {pos: int(self.offsets[number]) + i for i, pos in enumerate(here)}
            positions += here
            owners += [number] * len(here)
            for site, touched in row.writes:
                self._add(site, [cell_of[pos] for pos in touched])
        of_pair = np.array([row.pair for row in self.rows], dtype=np.int64)
        self.row = torch.tensor(owners, dtype=torch.long, device=device)
        self.pos = torch.tensor(positions, dtype=torch.long, device=device)
        self.pair = torch.from_numpy(of_pair).to(device)[self.row]
        self._starts = np.array([row.start for row in self.rows], dtype=np.int64)

    def _add(self, site: Site, cells: list[int]) -> None:
        writes = self.writes[-1 if site.layer is None else site.layer]
        if site.name in ("embed", "mlp_out"):
            writes.whole += cells
            return
        heads = range(self.pairs.model.n_heads or 0) if site.head is None else (site.head,)
        for head in heads:
            writes.z_cells += cells
            writes.z_heads += [head] * len(cells)

    def rows_joined(self, layer: int) -> int:
        """Return how many rows start at block `layer` or before."""
        return int(np.searchsorted(self._starts, layer, side="right"))

    def joined(self, layer: int) -> int:
        """Return how many cells belong to rows that start at block `layer` or before."""
        return int(self.offsets[self.rows_joined(layer)])

    def original(self, name: str, layer: int, span: slice) -> Tensor:
        """Return the original run's values at some cells, `[cell, ...]`."""
        return self.pairs.original(name, layer)[self.pair[span], self.pos[span]]

    def z(self, layer: int, count: int) -> Tensor:
        """Return head outputs of the first cells, writes made, `[cell, head, d_head]`."""
        z = self.original("z", layer, slice(0, count)).clone()
        if layer in self.writes and self.writes[layer].z_cells:
            cells = torch.tensor(self.writes[layer].z_cells, device=z.device)
            heads = torch.tensor(self.writes[layer].z_heads, device=z.device)
            new = self.pairs.new("z", layer)
            z[cells, heads] = new[self.pair[cells], self.pos[cells], heads]
        return z


class DirectStream:
    """Heads and MLPs held: the sum of the earlier changes is added to the original residual."""

    def __init__(self, cells: Cells) -> None:
        """Start with no change anywhere."""
        self.cells = cells
        self.pairs = cells.pairs

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (layer, change entering block `layer` per joined cell), `n_layers` for the head.

        The change is float32 `[cell, d_model]` and covers the rows that start before that block.
        """
        cells, model = self.cells, self.pairs.model
        change = torch.zeros(0, model.d_model, device=self.pairs.runs.residuals.device)
        for layer in range(-1, model.n_layers):
            change = _grown(change, cells.joined(layer))
            writes = cells.writes.get(layer)
            if writes is not None and writes.z_cells:
                self._add_heads(change, layer, writes)
            if writes is not None and writes.whole:
                at = torch.tensor(writes.whole, device=change.device)
                place: Place = ("resid_pre", 0) if layer < 0 else ("mlp_out", layer)
                change[at] += self.pairs.change(*place)[cells.pair[at], cells.pos[at]]
            yield layer + 1, change

    def _add_heads(self, change: Tensor, layer: int, writes: _Writes) -> None:
        n_heads = self.pairs.model.n_heads or 1
        at, heads = (
            torch.tensor(n, device=change.device) for n in (writes.z_cells, writes.z_heads)
        )
        # Once each: a node may name a head twice, as part of its whole attention too.
        both = torch.unique(at * n_heads + heads)
        at, heads = both // n_heads, both % n_heads
        made = self.pairs.head_writes(layer)[self.cells.pair[at], self.cells.pos[at], heads]
        change.index_add_(0, at, made)


class LiveStream:
    """Heads held, MLPs live: the model's own blocks run on the cells alone."""

    def __init__(self, cells: Cells) -> None:
        """Start with no change anywhere."""
        self.cells = cells
        self.pairs = cells.pairs

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Yield what `DirectStream` yields."""
        cells, pairs = self.cells, self.pairs
        state = self._embedded()
        n_layers = pairs.model.n_layers
        for layer in range(n_layers):
            yield layer, state.float() - self._before(layer, len(state)).float()
            count = cells.joined(layer)
            state = torch.cat([state, self._before(layer, count, len(state))])
            state = run_cells(
                pairs, layer, state, cells.z(layer, count), self._mlp_edits(layer, count)
            )
        yield n_layers, state.float() - self._before(n_layers, len(state)).float()

    def _before(self, layer: int, count: int, skip: int = 0) -> Tensor:
        return self.cells.original("resid_pre", layer, slice(skip, count))

    def _embedded(self) -> Tensor:
        cells = self.cells
        state = self._before(0, cells.joined(-1)).clone()
        if -1 in cells.writes:
            at = torch.tensor(cells.writes[-1].whole, device=state.device)
            state[at] = self.pairs.new("resid_pre", 0)[cells.pair[at], cells.pos[at]]
        return state

    def _mlp_edits(self, layer: int, count: int) -> Edits:
        writes = self.cells.writes.get(layer)
        if writes is None or not writes.whole:
            return {}
        at = torch.tensor(writes.whole, device=self.cells.pos.device)
        new = self.pairs.new("mlp_out", layer)[self.cells.pair[at], self.cells.pos[at]]

        def overwrite(out: Tensor) -> None:
            out[at, 0] = new

        return cast(Edits, {("mlp_out", layer): [overwrite]})


def run_cells(
    pairs: PairRuns,
    layer: int,
    state: Tensor,
    z: Tensor,
    edits: Edits | None = None,
    captures: Mapping[Place, Any] | None = None,
) -> Tensor:
    """Run one block on cells, from given head outputs instead of its attention.

    Args:
        pairs: the runs whose block arguments are used.
        layer: block index.
        state: residual entering the block, `[cell, d_model]`.
        z: head outputs, `[cell, head, d_head]`.
        edits: further writes, with every cell as a row of one position.
        captures: places to read.

    Returns:
        Residual leaving the block, `[cell, d_model]`.
    """
    model = pairs.model
    attention = model.bridge.blocks[layer].attn
    flat = z.flatten(1)[:, None]

    def from_z(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        return attention.hook_out(attention.o(flat)), None

    args, kwargs = pairs.runs.arguments[layer]
    with attach(model, edits or {}, captures) as attached, attention_replaced(attention, from_z):
        output = model.bridge.blocks[layer](state[:, None], *args, **kwargs)
        attached.require_all_fired(model.name)
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result[:, 0]


def _grown(change: Tensor, count: int) -> Tensor:
    """Append rows of zeros up to `count`; the copy keeps what was yielded before as it was."""
    grown = change.new_zeros(count, change.shape[1])
    grown[: len(change)] = change
    return grown
