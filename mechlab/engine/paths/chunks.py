"""Some senders on one group of prompts: from their writes to the metric."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np
from torch import Tensor

from mechlab.engine.batching import Batch, with_back_off
from mechlab.engine.paths.arrivals import Arrival, Job, TailRow, cut_rows, site_values
from mechlab.engine.paths.edges import edge_exists
from mechlab.engine.paths.plan import EdgeList, Ledger
from mechlab.engine.paths.streams import Cells, DirectStream, LiveStream, PairRuns, StreamRow
from mechlab.engine.paths.tails import ReadOut
from mechlab.engine.rows import Base, Row
from mechlab.engine.run import run
from mechlab.hooks import Insert, Intervention, Site

__all__ = ["Chunk"]


class Chunk:
    """Rows of senders on one group of prompts."""

    def __init__(
        self,
        ledger: Ledger,
        group: Sequence[int],
        pairs: PairRuns,
        read_out: ReadOut,
        rows: Sequence[StreamRow],
    ) -> None:
        """Spell the rows out into cells."""
        self.ledger, self.plan, self.group = ledger, ledger.plan, list(group)
        self.pairs, self.read_out = pairs, read_out
        self.cells = Cells(pairs, rows)

    def run(self) -> None:
        """Carry the changes to every receiver and read what comes of them."""
        plan = self.plan
        stream = (LiveStream if plan.freeze == "heads" else DirectStream)(self.cells)
        joint = _Joint(self) if plan.joint else None
        for layer, change in stream:
            for job in (job for job in plan.jobs if job.live.layer == layer):
                self._arrive(job, change)
            if joint is not None:
                joint.collect(layer, change)
            if layer == plan.last_layer:
                break
        if plan.final:
            self._read_final(change)
        if joint is not None:
            joint.run()

    def edges(self, rows: Sequence[StreamRow], receivers: Sequence[int]) -> EdgeList:
        """Return the edges of rows and receivers."""
        numbers = [
            (self.group[row.pair], row.label, receiver)
            for row, receiver in zip(rows, receivers, strict=True)
        ]
        return np.array(numbers, dtype=np.int64).reshape(-1, 3)

    def _read_final(self, change: Tensor) -> None:
        cells = self.cells
        at_end = (cells.pos == self.pairs.width - 1).nonzero().squeeze(1)
        pair = cells.pair[at_end]
        before = self.pairs.runs.residuals[pair]
        after = (before.float() + change[at_end]).to(before.dtype)
        values = self.read_out.rows(after, pair, final=True)
        rows = [cells.rows[row] for row in cells.row[at_end].tolist()]
        for column in self.plan.final:
            self.ledger.store(self.edges(rows, [column] * len(rows)), values)

    def _arrive(self, job: Job, change: Tensor) -> None:
        layer, plan = job.live.layer, self.plan
        if self.cells.rows_joined(layer if job.is_mlp else layer - 1) == 0:
            return
        arrival = Arrival(self.cells, job, change, plan.ln)
        rows = arrival.tail_rows(plan.edges[self.group])
        for batch in cut_rows(plan.model, rows, self.pairs.width, plan.max_batch):
            owners = [self.cells.rows[row.row] for row in batch]
            edges = self.edges(owners, [job.receivers[row.receiver] for row in batch])
            self.ledger.kept(edges, partial(self._tail, arrival, batch))

    def _tail(self, arrival: Arrival, batch: Sequence[TailRow]) -> np.ndarray:
        def execute(part: Batch) -> np.ndarray:
            residuals, pair = arrival.residuals(cast(Sequence[TailRow], part.rows))
            return self.read_out.rows(residuals, pair)

        whole = Batch(cast(Any, tuple(batch)), 0)
        return with_back_off(execute, whole, lambda a, b: np.concatenate([a, b]))


class _Joint:
    """Receivers that are set together in several blocks: inserted values, run by `engine.run`."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk, self.plan = chunk, chunk.plan
        self.banks: dict[str, Tensor] = {}
        self.sites: dict[int, list[tuple[Site, str]]] = {i: [] for i in chunk.plan.joint}

    def collect(self, layer: int, change: Tensor) -> None:
        """Keep what the receivers in one block are set to."""
        for index in self.plan.joint:
            node = self.plan.receivers[index]
            for site, values in site_values(self.chunk.cells, node, layer, change, self.plan.ln):
                bank = f"{index} {site}"
                self.banks[bank] = values
                self.sites[index].append((site, bank))

    def run(self) -> None:
        """Run the rows."""
        plan, chunk = self.plan, self.chunk
        rows: list[Row] = []
        owners: list[StreamRow] = []
        columns: list[int] = []
        for index in self.sites:
            for number, row in enumerate(chunk.cells.rows):
                steps = self._steps(index, number, row)
                if steps and plan.edges[chunk.group[row.pair], row.label, index]:
                    rows.append(Row(row.pair, tuple(steps)))
                    owners.append(row)
                    columns.append(index)
        if not rows:
            return
        chunk.ledger.kept(
            chunk.edges(owners, columns),
            lambda: (
                run(
                    plan.model,
                    [Base(plan.prompts[i].original) for i in chunk.group],
                    rows,
                    read=plan.read,
                    answers=[plan.prompts[i].answers for i in chunk.group],
                    banks=self.banks,
                    max_batch=plan.max_batch,
                ).rows
            ),
        )

    def _steps(self, index: int, number: int, row: StreamRow) -> list[Intervention]:
        """Return what sets the receivers of one node that the row's change can reach.

        Every position is set, also where the sender wrote nothing: an earlier receiver of the node
        would otherwise move a later one there.
        """
        parallel = bool(self.plan.model.parallel_blocks)
        return [
            Insert(site, bank, number)
            for site, bank in self.sites[index]
            if number < len(self.banks[bank])
            and any(edge_exists(sender, site, parallel=parallel) for sender, _ in row.writes)
        ]
