"""Placing rows: which block and position each starts at, and which need no run of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mechlab.engine.inside import starts_inside
from mechlab.engine.rows import (
    Base,
    PlannedRow,
    Row,
    as_entries,
    cannot_reach,
    positions_of,
    sites_of,
    start_layer,
)
from mechlab.hooks import Intervention, Patch, Place, single_sites, source_of

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["places_to_keep", "plan_rows"]


def plan_rows(
    model: "Model",
    bases: Sequence[Base],
    rows: Sequence[Row],
    tokens: Sequence[Sequence[int]],
    *,
    skip: bool = True,
    inside: bool = False,
) -> tuple[list[PlannedRow], np.ndarray]:
    """Place the rows and find those that need no run of their own.

    Args:
        model: the model.
        bases: base runs of the call.
        rows: rows of the call, already checked.
        tokens: unpadded token ids of each base's prompt.
        skip: whether rows that equal another row or their base are left out.
        inside: whether rows may resume inside a block.

    Returns:
        The rows to run, and for every row of the call where its reading comes from: `index >= 0`
        is the row that runs for it, `-1 - base` its base run, whose reading it equals exactly.
    """
    planner = _Planner(model.n_layers, bases, tokens, skip, inside)
    origin = np.empty(len(rows), dtype=np.int64)
    first_of: dict[tuple[int, int], int] = {}
    planned: list[PlannedRow] = []
    for index, row in enumerate(rows):
        steps = planner.distinct(row.interventions)
        twin = first_of.setdefault((row.base, id(steps)), index) if skip else index
        if twin != index:
            origin[index] = origin[twin]
            continue
        placed = planner.place(row.base, steps)
        runs = bool(placed.steps or placed.inside)
        origin[index] = index if runs else -1 - row.base
        if runs:
            raw = bases[row.base].interventions + steps
            planned.append(
                PlannedRow(
                    index, row.base, raw, placed.steps, placed.layer, placed.pos, placed.inside
                )
            )
    return planned, origin


@dataclass(frozen=True, slots=True)
class _Placed:
    """What `PlannedRow` says of a row, the same for every base run of one kind."""

    steps: tuple[Intervention, ...]
    layer: int
    pos: int
    inside: tuple[Intervention, ...]


class _Planner:
    """Places rows, looking once at rows that must start alike.

    Sweeps hand in the same interventions for many base runs of one kind; hashing and comparing
    them row by row took a fifth of a trace on a small model.
    """

    def __init__(
        self,
        n_layers: int,
        bases: Sequence[Base],
        tokens: Sequence[Sequence[int]],
        skip: bool,
        inside: bool,
    ) -> None:
        self.n_layers = n_layers
        self.bases = bases
        self.skip = skip
        self.inside = inside
        self.shared = _SharedPrefixes(bases, tokens)
        self.reads = [
            len(ids) - 1 if base.read_pos is None else base.read_pos
            for base, ids in zip(bases, tokens, strict=True)
        ]
        self.changed = [
            any(site.layer is not None for step in base.interventions for site in sites_of(step))
            for base in bases
        ]
        self._by_id: dict[int, tuple[Intervention, ...]] = {}
        self._by_content: dict[tuple[Intervention, ...], tuple[Intervention, ...]] = {}
        self._sources: dict[int, tuple[int, ...]] = {}
        self._placed: dict[tuple[object, ...], _Placed] = {}

    def distinct(self, steps: tuple[Intervention, ...]) -> tuple[Intervention, ...]:
        """Return one and the same tuple for equal content; the caller keeps `steps` alive."""
        if id(steps) not in self._by_id:
            self._by_id[id(steps)] = self._by_content.setdefault(steps, steps)
        return self._by_id[id(steps)]

    def place(self, base: int, steps: tuple[Intervention, ...]) -> _Placed:
        """Return where a row starts, from a memory of rows that must start alike."""
        if id(steps) not in self._sources:
            found = (source_of(step) for step in steps)
            self._sources[id(steps)] = tuple(source for source in found if source is not None)
        sources = self._sources[id(steps)]
        prefixes = tuple(self.shared.length(base, source) for source in sources)
        key = (id(steps), self.reads[base], self.changed[base], prefixes)
        if key not in self._placed:
            self._placed[key] = self._place(base, steps, sources)
        return self._placed[key]

    def _place(self, base: int, steps: tuple[Intervention, ...], sources: Sequence[int]) -> _Placed:
        read = self.reads[base]
        live = self._live_steps(base, steps) if self.skip else steps
        layer = min((start_layer(step) for step in live), default=self.n_layers)
        # A run that is itself changed beyond the embedding is taken whole: its changes have to be
        # made again in its rows, and its resid_post need not be the next block's resid_pre.
        if any(self.changed[run] for run in (base, *sources)):
            layer = -1
        steps = tuple(as_entries(step) for step in sorted(live, key=_is_before_entry))
        pos = min((positions_of(step)[0] for step in live), default=read)
        early = tuple(step for step in steps if start_layer(step) == layer)
        if self.inside and 0 <= layer < self.n_layers and starts_inside(early, pos):
            later = tuple(step for step in steps if start_layer(step) != layer)
            return _Placed(later, layer + 1, pos, early)
        return _Placed(steps, layer, pos, ())

    def _live_steps(self, base: int, steps: Sequence[Intervention]) -> tuple[Intervention, ...]:
        """Return the steps that can change a row's reading, in order.

        Left out are steps that cannot reach the read position, and patches that would write what
        already stands there: their source is the same run up to that position, and no step that
        matters comes before them (at an earlier or equal layer and position).
        """
        reaching = [
            step
            for given in steps
            for step in single_sites(given)
            if not cannot_reach(step, self.n_layers, self.reads[base])
        ]
        idle = {i for i, step in enumerate(reaching) if self.shared.reads_own_value(step, base)}
        if not idle:
            return tuple(reaching)
        starts = [start_layer(step) for step in reaching]
        spans = [positions_of(step) for step in reaching]
        for i in sorted(idle, key=lambda i: (starts[i], spans[i][0])):
            end = spans[i][1]
            for j in range(len(reaching)):
                left_of_end = end is None or spans[j][0] <= end
                if j != i and j not in idle and starts[j] <= starts[i] and left_of_end:
                    idle.discard(i)
                    break
        return tuple(step for i, step in enumerate(reaching) if i not in idle)


def _is_before_entry(step: Intervention) -> bool:
    """Sort key: writes to `resid_post` come before those to the next block's `resid_pre`."""
    return any(site.name != "resid_post" for site in sites_of(step))


class _SharedPrefixes:
    """How far two base runs of one call are the same run: up to here a patch changes nothing."""

    def __init__(self, bases: Sequence[Base], tokens: Sequence[Sequence[int]]) -> None:
        self.bases = bases
        self.tokens = tokens
        self._known: dict[tuple[int, int], int] = {}

    def length(self, a: int, b: int) -> int:
        """Return the number of first positions on which the runs of bases `a` and `b` agree."""
        key = (a, b) if a < b else (b, a)
        if key not in self._known:
            same = 0
            for x, y in zip(self.tokens[a], self.tokens[b], strict=False):
                if x != y:
                    break
                same += 1
            differ = self.bases[a].interventions != self.bases[b].interventions
            steps = self.bases[a].interventions + self.bases[b].interventions if differ else ()
            self._known[key] = min([same, *(positions_of(step)[0] for step in steps)])
        return self._known[key]

    def reads_own_value(self, step: Intervention, base: int) -> bool:
        """Whether a patch reads what stands there as long as nothing else changed it."""
        if not isinstance(step, Patch) or step.source_pos is not None:
            return False
        same = self.length(base, step.source)
        if step.site.pos is None:  # the whole prompt: the two runs have to be one and the same
            return same == len(self.tokens[base]) == len(self.tokens[step.source])
        return step.site.pos < same


def places_to_keep(rows: Sequence[PlannedRow], *, raw: bool) -> dict[Place, None]:
    """Return the places whose values rows read from base runs.

    Args:
        rows: planned rows.
        raw: whether places are named as the caller gave them (packed and plain runs) or with
            `resid_post` as the next block's `resid_pre` (wavefront).
    """
    places: dict[Place, None] = {}
    for row in rows:
        for step in row.raw if raw else (*row.inside, *row.steps):
            if source_of(step) is not None:
                for site in sites_of(step):
                    places[site.name, site.layer] = None
        if row.inside and not raw:
            places["z", row.layer - 1] = places["resid_pre", row.layer - 1] = None
    return places
