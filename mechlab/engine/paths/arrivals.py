"""Where changes arrive: receivers that can be worked out together, and the rows that follow.

A *job* is one partial run of one block for all rows at once: it tells what the change makes of the
inputs of some heads, or of one MLP. Each (row, receiver) of a job then becomes a row of the last
pass, which differs from its original run in one block at a few cells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from mechlab.engine.batching import rows_that_fit
from mechlab.engine.paths.edges import Node
from mechlab.engine.paths.receivers import COMPONENTS, Live, Norms, attention_inputs, mlp_outputs
from mechlab.engine.paths.streams import Cells, PairRuns
from mechlab.engine.paths.tails import TailCells, tail_residuals
from mechlab.hooks import Edits, Site

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Arrival", "Job", "TailRow", "cut_rows", "jobs_of"]


@dataclass(frozen=True)
class Job:
    """Receivers in one block that are worked out together.

    Attributes:
        live: inputs that see the change; none for the MLP.
        receivers: index of each receiver in the caller's list.
        heads: query heads whose outputs each of them changes, `[receiver][head]`.
    """

    live: Live
    receivers: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...] = ()

    @property
    def is_mlp(self) -> bool:
        """Whether the receiver is an MLP."""
        return not self.live.inputs

    @property
    def stays(self) -> bool:
        """Whether a change shows in its own position alone, as in queries and MLPs."""
        return all(name == "q" for name, _ in self.live.inputs)


def jobs_of(model: "Model", receivers: Sequence[Node]) -> tuple[list[Job], list[int]]:
    """Return the jobs of receivers, and the receivers that no job can serve.

    The latter are set in several blocks, or at several positions, at once.
    """
    shared: dict[tuple[Live, int], list[tuple[int, tuple[int, ...]]]] = {}
    jobs: list[Job] = []
    others: list[int] = []
    for index, node in enumerate(receivers):
        if not node:
            continue
        layers, places = {site.layer for site in node}, {site.pos for site in node}
        mlps = [site.name == "mlp_out" for site in node]
        if len(layers) > 1 or len(places) > 1 or (any(mlps) and len(node) > 1):
            others.append(index)
            continue
        layer, pos = cast(int, node[0].layer), node[0].pos
        if mlps[0]:
            jobs.append(Job(Live(layer, (), pos), (index,)))
            continue
        changed = _changed(model, node)
        alone = len(node) == 1 and node[0].head is not None
        # One head's output depends on its own inputs only, so all heads of a block can see the
        # change in one run, of which each receiver then takes its own head.
        inputs = (
            tuple((name, None) for name in COMPONENTS[node[0].name]) if alone else _inputs(node)
        )
        live = Live(layer, inputs, pos)
        if alone:
            shared.setdefault((live, len(changed)), []).append((index, changed))
        else:
            jobs.append(Job(live, (index,), (changed,)))
    for (live, _), members in shared.items():
        jobs.append(Job(live, tuple(i for i, _ in members), tuple(h for _, h in members)))
    return jobs, others


def _inputs(node: Node) -> tuple[tuple[str, tuple[int, ...] | None], ...]:
    heads: dict[str, set[int] | None] = {}
    for site in node:
        for name in COMPONENTS[site.name]:
            known = heads.setdefault(name, set())
            heads[name] = None if site.head is None or known is None else known | {site.head}
    return tuple((n, None if h is None else tuple(sorted(h))) for n, h in heads.items())


def _changed(model: "Model", node: Node) -> tuple[int, ...]:
    """Return the query heads that receivers in one block change."""
    n_heads = model.n_heads or 0
    per_group = n_heads // (model.n_kv_heads or n_heads)
    found: set[int] = set()
    for site in node:
        if site.head is None:
            found |= set(range(n_heads))
        elif site.name in ("k", "v"):
            found |= set(range(site.head * per_group, (site.head + 1) * per_group))
        else:
            found.add(site.head)
    return tuple(sorted(found))


@dataclass(frozen=True, slots=True)
class TailRow:
    """One row of the last pass.

    Attributes:
        row: index into the rows of the stream.
        receiver: place among the job's receivers.
        first: first changed position.
    """

    row: int
    receiver: int
    first: int


class Arrival:
    """A job, run on the rows of one chunk; its last pass can then be run in any batches."""

    def __init__(self, cells: Cells, job: Job, change: Tensor, ln: Norms) -> None:
        """Work out what the receivers of the job make of the change."""
        self.cells, self.job = cells, job
        self.pairs: PairRuns = cells.pairs
        layer = job.live.layer
        if job.is_mlp:
            self.rows = list(range(cells.rows_joined(layer)))
            self.found = mlp_outputs(cells, layer, change, ln)
        else:
            self.rows, found = attention_inputs(cells, job.live, change, ln)
            self.found = found["z"]
        self.positions = [self._changed_positions(row) for row in self.rows]

    def _changed_positions(self, row: int) -> tuple[int, ...]:
        """Return the positions of a row at which the receiver writes something new and read."""
        live, last = self.job.live, self.pairs.width - 1
        here = self.cells.rows[row].positions
        if live.pos is not None:
            here = (live.pos,) if live.pos in here else ()
        if here and not self.job.stays:
            here = tuple(range(here[0], last + 1))
        if live.layer == self.pairs.model.n_layers - 1:  # nothing later reads the other positions
            here = (last,) if last in here else ()
        return here

    def tail_rows(self, wanted: np.ndarray) -> list[TailRow]:
        """Return the rows of the last pass.

        Args:
            wanted: which edges exist, `[pair, sender, receiver]`.
        """
        labels = [(self.cells.rows[row].pair, self.cells.rows[row].label) for row in self.rows]
        found = []
        for row, (pair, label), here in zip(self.rows, labels, self.positions, strict=True):
            if here:
                asked = wanted[pair, label, list(self.job.receivers)]
                found += [TailRow(row, int(place), here[0]) for place in asked.nonzero()[0]]
        return found

    def residuals(self, batch: Sequence[TailRow]) -> tuple[Tensor, Tensor]:
        """Run rows of the last pass; return what enters the head, and the pair of each."""
        device = self.cells.pos.device
        here = [self.positions[row.row] for row in batch]
        pair = torch.tensor([self.cells.rows[row.row].pair for row in batch], device=device)
        of_row = np.repeat(np.arange(len(batch)), [len(p) for p in here])
        pos = torch.tensor([p for positions in here for p in positions], device=device)
        rows = torch.from_numpy(of_row).to(device)
        tail = TailCells(self.pairs, pair, rows, pos)
        layer = self.job.live.layer
        z = tail.original("z", layer).clone()
        edits: Edits = {}
        if self.job.is_mlp:
            edits = self._mlp_edit(batch, here)
        else:
            source = torch.tensor([row.row for row in batch], device=device)[rows][:, None]
            places = [row.receiver for row in batch]
            heads = torch.tensor(self.job.heads, device=device)[places][rows]  # [cell, head]
            cell = torch.arange(len(pos), device=device)[:, None]
            z[cell, heads] = self.found[source, pos[:, None], heads]
        first = min(row.first for row in batch)
        return tail_residuals(tail, layer, z, edits, first), pair

    def _mlp_edit(self, batch: Sequence[TailRow], here: Sequence[tuple[int, ...]]) -> Edits:
        cells = [
            int(self.cells.offsets[row.row]) + self.cells.rows[row.row].positions.index(pos)
            for row, positions in zip(batch, here, strict=True)
            for pos in positions
        ]
        values = self.found[torch.tensor(cells, device=self.found.device)]

        def overwrite(out: Tensor) -> None:
            out[:, 0] = values

        return cast(Edits, {("mlp_out", self.job.live.layer): [overwrite]})


def cut_rows(
    model: "Model", rows: Sequence[TailRow], width: int, max_batch: int | None
) -> Iterator[list[TailRow]]:
    """Cut rows into batches of similar first position, the latest first."""
    waiting = sorted(rows, key=lambda row: -row.first)
    while waiting:
        # Rows are sorted, so the last of a batch decides how wide all of it is.
        step = rows_that_fit(model, width - waiting[0].first, max_batch)
        step = min(
            step,
            rows_that_fit(model, width - waiting[min(step, len(waiting)) - 1].first, max_batch),
        )
        yield waiting[:step]
        waiting = waiting[step:]


def site_values(
    cells: Cells, node: Node, layer: int, change: Tensor, ln: Norms
) -> Iterator[tuple[Site, Tensor]]:
    """Yield what each receiver of a node in one block is set to, per row and position.

    Args:
        cells: the rows.
        node: receivers, of any blocks.
        layer: the block that the change is about to enter.
        change: change of the residual entering it, `[cell, d_model]`.
        ln: whether the norm before the receiver is recomputed.

    Yields:
        `q`, `k`, `v` or `mlp_out` sites and their values, `[row, pos, ...]`, for the rows that
        start early enough to reach them; those come first in `cells.rows`. Nothing for a receiver
        that no row reaches.
    """
    for site in (site for site in node if site.layer == layer):
        if cells.rows_joined(layer if site.name == "mlp_out" else layer - 1) == 0:
            continue
        if site.name == "mlp_out":
            output = mlp_outputs(cells, layer, change, ln)
            n_rows, count = cells.rows_joined(layer), len(output)
            pair = torch.tensor([row.pair for row in cells.rows[:n_rows]], device=output.device)
            values = cells.pairs.original("mlp_out", layer).index_select(0, pair)
            values[cells.row[:count], cells.pos[:count]] = output
            yield site, values
            continue
        names = COMPONENTS[site.name]
        live = Live(layer, tuple((name, None) for name in names), site.pos)
        _, found = attention_inputs(cells, live, change, ln, raw=True)
        for name in names:
            values = found[name] if site.head is None else found[name][:, :, site.head]
            yield Site(name, layer, site.head, site.pos), values
