"""One call of path patching: what is asked for, and what is known so far."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from mechlab.engine.paths.arrivals import Job, jobs_of
from mechlab.engine.paths.edges import Node, edges_of
from mechlab.engine.paths.receivers import Norms
from mechlab.hooks import Intervention, Place
from mechlab.metrics import Metric
from mechlab.progress import Journal, Progress

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Freeze", "Ledger", "PathPlan", "PathPrompt", "Report"]

Freeze = Literal["heads", "heads+mlps"]

EdgeList = np.ndarray
"""Edges as int64 `[edge, 3]`: prompt, sender, receiver."""

Report = Callable[[Progress, np.ndarray, np.ndarray, np.ndarray], None]
"""Takes the progress, and original, new and patched metric so far (NaN: not known yet)."""


@dataclass(frozen=True)
class PathPrompt:
    """One pair of prompts of equal length.

    Attributes:
        original: the run that is changed and read.
        new: the run that the senders' values come from.
        answers: token ids that the metric reads.
        positions: where senders are overwritten; `None` for everywhere.
        changes: interventions of the new run (noise, ablation); none that read another run.
    """

    original: str
    new: str
    answers: tuple[int, ...]
    positions: tuple[int, ...] | None = None
    changes: tuple[Intervention, ...] = ()


@dataclass(frozen=True, eq=False)
class PathPlan:
    """What is asked for; see `run_paths`.

    Attributes:
        lengths: tokens per prompt.
        differs: first position at which the two runs of each prompt can differ.
        jobs: receivers in one block each.
        joint: receivers that are set together in several blocks or at several positions.
        final: receivers that are the final residual.
        edges: which edges exist, `[prompt, sender, receiver]`.
    """

    model: "Model"
    prompts: Sequence[PathPrompt]
    senders: Sequence[Node]
    receivers: Sequence[Node]
    freeze: Freeze
    ln: Norms
    read: str | Metric
    max_batch: int | None
    lengths: Sequence[int]
    differs: Sequence[int]
    jobs: list[Job] = field(init=False)
    joint: list[int] = field(init=False)
    final: list[int] = field(init=False)
    edges: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Sort the receivers by how they are worked out, and find the edges that exist."""
        jobs, joint = jobs_of(self.model, self.receivers)
        final = [index for index, node in enumerate(self.receivers) if not node]
        edges = edges_of(
            self.senders,
            self.receivers,
            [prompt.positions for prompt in self.prompts],
            self.lengths,
            parallel=bool(self.model.parallel_blocks),
        )
        for name, value in (("jobs", jobs), ("joint", joint), ("final", final), ("edges", edges)):
            object.__setattr__(self, name, value)

    @property
    def last_layer(self) -> int:
        """Block before which everything is known, `n_layers` for the head."""
        if self.final:
            return self.model.n_layers
        return max(site.layer or 0 for node in self.receivers for site in node)

    def places(self) -> list[Place]:
        """Return what is kept of the base runs besides residuals and head outputs."""
        places: dict[Place, None] = {}
        for site in (site for node in self.senders for site in node):
            if site.name in ("z", "attn_out") and self.freeze == "heads+mlps":
                places["attn_out", site.layer] = None
            if site.name == "mlp_out":
                places["mlp_out", site.layer] = None
        for site in (site for node in self.receivers for site in node):
            if site.name == "mlp_out":
                places["mlp_out", site.layer] = None
            else:
                places.update({(name, site.layer): None for name in ("q", "k", "v")})
        return list(places)

    def positions_read(self, prompt: int) -> set[int]:
        """Return positions that some receiver reads and at which the two runs can differ."""
        length, differs = self.lengths[prompt], self.differs[prompt]
        read = {site.pos for node in self.receivers for site in node}
        read |= {length - 1} if self.final else set()
        wanted = range(length) if None in read else [pos for pos in read if pos is not None]
        return {pos for pos in wanted if pos >= differs}


class Ledger:
    """What is known so far; reports it, and keeps finished batches in the journal.

    Attributes:
        original, new: metric of the two runs, `[prompt]`.
        patched: metric after one path was patched, `[prompt, sender, receiver]`; NaN where the edge
            does not exist.
        known: whether `patched` is final, of the same axes.
        rows: rows of the last pass that were run.
    """

    def __init__(self, plan: PathPlan, report: Report | None, journal: Journal | None) -> None:
        """Know nothing yet."""
        self.plan, self._report, self._journal = plan, report, journal
        self.original = np.full(len(plan.prompts), np.nan, np.float32)
        self.new = self.original.copy()
        self.patched = np.full(plan.edges.shape, np.nan, np.float32)
        self.known = np.zeros_like(plan.edges)
        self.rows = 0

    def begin(self, group: Sequence[int], original: np.ndarray, new: np.ndarray) -> None:
        """Take the metric of the base runs; edges whose sender does not differ keep it."""
        self.original[group], self.new[group] = original, new
        self.patched[group] = np.where(self.plan.edges[group], original[:, None, None], np.nan)

    def finish(self, group: Sequence[int]) -> None:
        """Note that all edges of some prompts are known."""
        self.known[group] = self.plan.edges[group]
        self.tell()

    def store(self, cells: EdgeList, values: np.ndarray) -> None:
        """Take the values of some edges; those that do not exist are left out."""
        at = tuple(cells.T)
        there = self.plan.edges[at]
        kept = tuple(cells[there].T)
        self.patched[kept] = values[there]
        self.known[kept] = True

    def kept(self, cells: EdgeList, run: Callable[[], np.ndarray]) -> None:
        """Store the values of a batch of rows, from the journal where it has them."""
        key = hashlib.sha256(np.ascontiguousarray(cells).tobytes()).hexdigest()[:32]
        values = None if self._journal is None else self._journal.get(key)
        if values is None:
            values = run()
            if self._journal is not None:
                self._journal.put(key, values)
        self.store(cells, values)
        self.rows += len(cells)
        self.tell()

    def tell(self) -> None:
        """Report what is known."""
        if self._report is not None:
            step = Progress(int(self.known.sum()), int(self.plan.edges.sum()), "edges")
            seen = np.where(self.known, self.patched, np.nan)
            self._report(step, self.original.copy(), self.new.copy(), seen)
