"""What the engine is asked for: base runs, rows, and the plan that places them.

A *base* is one prompt run once, perhaps with noise. A *row* is one counterfactual: a base and the
interventions that change it. Planning checks every row before any forward pass, works out where
each row starts, and finds the rows whose reading is known without running them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mechlab.errors import OptionError, SiteError
from mechlab.hooks import (
    SITES,
    AddNoise,
    Block,
    Freeze,
    Intervention,
    Patch,
    Place,
    Site,
    live_sites,
    single_sites,
    source_of,
)

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Base", "PlannedRow", "Readings", "Row", "check_rows", "plan_rows"]


@dataclass(frozen=True, slots=True)
class Base:
    """One prompt, run once.

    Attributes:
        prompt: the text.
        interventions: changes that hold in this run and in every row built on it; only those that
            read no other run (noise, zero or mean ablation, steering, scaling, blocked edges).
        label: for messages.
        read_pos: position of the unpadded prompt whose logits are read; default the last token.
    """

    prompt: str
    interventions: tuple[Intervention, ...] = ()
    label: str = ""
    read_pos: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One counterfactual run: base `base` of the same call with `interventions` made.

    Attributes:
        base: index into the bases of the call.
        interventions: what to change; applied in order, a later one wins at the same place.
        label: for messages.
    """

    base: int
    interventions: tuple[Intervention, ...]
    label: str = ""


@dataclass(frozen=True)
class Readings:
    """What a call of the engine measured.

    Attributes:
        bases: metric per base run, `[base]` (or `[base, vocab]` when logits were asked for).
        rows: metric per row, `[row]` (or `[row, vocab]`).
        mode: `wavefront`, `packed` or `plain`.
        executed: rows that were really run; the others were equal to another row or to their base.
        token_layers: token positions times blocks that were computed for rows.
        keys_only: token positions that only gave keys and values to the last block.
    """

    bases: np.ndarray
    rows: np.ndarray
    mode: str
    executed: int
    token_layers: int
    keys_only: int


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row with its place in the sweep.

    Attributes:
        index: position in the caller's list.
        base: index of its base run.
        raw: the interventions as given, the base's first.
        steps: the row's own interventions with every `resid_post` written as the next block's
            `resid_pre`, which is the same tensor, in the order in which the hooks would fire.
        layer: first block that has to run (`n_layers` when only the head is left; -1 when the
            embedding changes and the whole model has to run).
        pos: first touched position of the unpadded prompt.
    """

    index: int
    base: int
    raw: tuple[Intervention, ...]
    steps: tuple[Intervention, ...]
    layer: int
    pos: int


# --- geometry of interventions --------------------------------------------------------------------


@lru_cache(maxsize=65536)
def sites_of(intervention: Intervention) -> tuple[Site, ...]:
    """Return the sites an intervention writes to."""
    return intervention.sites if isinstance(intervention, Freeze) else (intervention.site,)


@lru_cache(maxsize=65536)
def positions_of(intervention: Intervention) -> tuple[int, int | None]:
    """Return the first and last touched position; `None` as last means all positions."""
    if isinstance(intervention, AddNoise):
        return intervention.first, intervention.last
    if isinstance(intervention, Block):
        return min(intervention.queries), max(intervention.queries)
    touched = [site.pos for site in sites_of(intervention)]
    if any(pos is None for pos in touched):
        return 0, None
    known = [pos for pos in touched if pos is not None]
    return min(known), max(known)


@lru_cache(maxsize=65536)
def as_entries(intervention: Intervention) -> Intervention:
    """Return the intervention with `resid_post[l]` written as `resid_pre[l + 1]`."""
    if isinstance(intervention, Freeze):
        return replace(intervention, sites=tuple(_entry(site) for site in intervention.sites))
    if isinstance(intervention, Block) or intervention.site.name != "resid_post":
        return intervention
    return replace(intervention, site=_entry(intervention.site))


def _entry(site: Site) -> Site:
    if site.name != "resid_post":
        return site
    assert site.layer is not None
    return replace(site, name="resid_pre", layer=site.layer + 1)


def _start_layer(intervention: Intervention) -> int:
    layers = [
        -1 if site.layer is None else site.layer for site in sites_of(as_entries(intervention))
    ]
    return min(layers)


def _cannot_reach(intervention: Intervention, n_layers: int, read: int) -> bool:
    """Whether an intervention cannot change the logits at `read` in a causal model."""
    first, last = positions_of(intervention)
    if first > read:
        return True
    if last is None or first <= read <= last:
        return False
    sites = sites_of(intervention)
    return all(SITES[site.name].is_write and site.layer == n_layers - 1 for site in sites)


# --- checking -------------------------------------------------------------------------------------


def check_rows(
    model: "Model", bases: Sequence[Base], rows: Sequence[Row], lengths: Sequence[int]
) -> None:
    """Check every row against the model and the prompts, before any forward pass.

    Args:
        model: the model; when it was verified, only its verified sites are allowed.
        bases: base runs of the call.
        rows: rows of the call.
        lengths: number of tokens of each base's prompt.

    Raises:
        SiteError: a site that is missing, dead or unverified, or a layer, head or position out of
            range; all problems of the call in one message.
        OptionError: a base or source index out of range, or a base that reads another run.
    """
    checker = _Checker(model, lengths)
    for number, base in enumerate(bases):
        read = lengths[number] - 1 if base.read_pos is None else base.read_pos
        if not 0 <= read < lengths[number]:
            raise OptionError(
                f"base {number}: read_pos={base.read_pos} is not in its {lengths[number]} tokens. "
                f"Allowed: 0 to {lengths[number] - 1}, or None for the last."
            )
        for step in base.interventions:
            if source_of(step) is not None:
                raise OptionError(
                    f"base {number} ({base.label}) reads run {source_of(step)}. A base run stands "
                    "alone; make this change in a row."
                )
            checker.check(step, lengths[number])
    for row in rows:
        if not 0 <= row.base < len(bases):
            raise OptionError(f"row {row.label!r} names base {row.base}; there are {len(bases)}.")
        for step in row.interventions:
            checker.check(step, lengths[row.base])
    checker.report()


class _Checker:
    """Collects what is wrong with interventions; each distinct one is looked at once."""

    def __init__(self, model: "Model", lengths: Sequence[int]) -> None:
        self.model = model
        self.lengths = lengths
        self.live = set(live_sites(model))
        self.problems: dict[str, None] = {}
        self._seen: set[tuple[Intervention, int]] = set()

    def check(self, step: Intervention, length: int) -> None:
        if (step, length) in self._seen:
            return
        self._seen.add((step, length))
        if (source := source_of(step)) is not None:
            self._check_source(step, source, length)
        for site in sites_of(step):
            self._check_site(site)
        first, last = positions_of(step)
        if max(first, last or 0) >= length:
            self.problems[
                f"position {max(first, last or 0)} lies outside a prompt of {length} tokens"
            ] = None
        if isinstance(step, Block) and max(step.keys) >= length:
            self.problems[f"key {max(step.keys)} lies outside a prompt of {length} tokens"] = None

    def _check_source(self, step: Intervention, source: int, length: int) -> None:
        if not 0 <= source < len(self.lengths):
            raise OptionError(
                f"{step} reads run {source}; the call has {len(self.lengths)} base runs."
            )
        if (there := self.lengths[source]) == length:
            return
        for site in sites_of(step):
            read = step.source_pos if isinstance(step, Patch) else None
            read = site.pos if read is None else read
            if read is None or SITES[site.name].axes == "bhqk":
                self.problems[
                    f"a whole-prompt patch of {site.name!r} from {there} tokens into one of "
                    f"{length}: lengths must agree, or positions be given"
                ] = None
            elif read >= there:
                self.problems[f"position {read} lies outside a source of {there} tokens"] = None

    def _check_site(self, site: Site) -> None:
        model, name = self.model, site.name
        if name not in self.live:
            self.problems[f"site {name!r} does not exist on {model.name}"] = None
        elif model.checks is not None and not model.checks.usable(name):
            self.problems[f"site {name!r} is not verified: {model.checks.reason(name)}"] = None
        if site.layer is not None and site.layer >= model.n_layers:
            self.problems[
                f"layer {site.layer} of {name!r}: layers go from 0 to {model.n_layers - 1}"
            ] = None
        n_heads = (model.n_kv_heads if name in ("k", "v") else model.n_heads) or 0
        if site.head is not None and site.head >= n_heads:
            axis = "kv_head" if name in ("k", "v") else "head"
            self.problems[f"{axis} {site.head} of {name!r}: {axis}s go from 0 to {n_heads - 1}"] = (
                None
            )

    def report(self) -> None:
        if self.problems:
            listed = "\n  ".join(self.problems)
            usable = ", ".join(sorted(self.live))
            raise SiteError(
                f"{len(self.problems)} problem(s) with sites on {self.model.name}:\n  {listed}\n"
                f"  Sites on this model: {usable}\n  See model.sites or `mechlab models check`."
            )


# --- planning -------------------------------------------------------------------------------------


def plan_rows(
    model: "Model",
    bases: Sequence[Base],
    rows: Sequence[Row],
    tokens: Sequence[Sequence[int]],
    *,
    skip: bool = True,
) -> tuple[list[PlannedRow], np.ndarray]:
    """Place the rows and find those that need no run of their own.

    Args:
        model: the model.
        bases: base runs of the call.
        rows: rows of the call, already checked.
        tokens: unpadded token ids of each base's prompt.
        skip: whether rows that equal another row or their base are left out.

    Returns:
        The rows to run, and for every row of the call where its reading comes from: `index >= 0`
        is the row that runs for it, `-1 - base` its base run, whose reading it equals exactly.
    """
    origin = np.empty(len(rows), dtype=np.int64)
    first_of: dict[tuple[int, tuple[Intervention, ...]], int] = {}
    shared = _SharedPrefixes(bases, tokens)
    planned: list[PlannedRow] = []
    for index, row in enumerate(rows):
        twin = first_of.setdefault((row.base, row.interventions), index) if skip else index
        if twin != index:
            origin[index] = origin[twin]
            continue
        base = bases[row.base]
        read = len(tokens[row.base]) - 1 if base.read_pos is None else base.read_pos
        live = _live_steps(row, model.n_layers, read, shared) if skip else row.interventions
        if not live:
            origin[index] = -1 - row.base
            continue
        origin[index] = index
        planned.append(
            PlannedRow(
                index=index,
                base=row.base,
                raw=base.interventions + row.interventions,
                steps=tuple(as_entries(step) for step in sorted(live, key=_is_before_entry)),
                layer=_first_block(row, bases, live, model.n_layers),
                pos=min((positions_of(step)[0] for step in live), default=read),
            )
        )
    return planned, origin


def _is_before_entry(step: Intervention) -> bool:
    """Sort key: writes to `resid_post` come before those to the next block's `resid_pre`."""
    return any(site.name != "resid_post" for site in sites_of(step))


def _first_block(
    row: Row, bases: Sequence[Base], live: Sequence[Intervention], n_layers: int
) -> int:
    """Return the first block a row has to run, -1 for the whole model from the embedding on.

    A run that is itself changed beyond the embedding is taken whole: its changes have to be made
    again in its rows, and its `resid_post` need not be the next block's `resid_pre`.
    """
    involved = {row.base, *(source for s in live if (source := source_of(s)) is not None)}
    changed = (site for i in involved for s in bases[i].interventions for site in sites_of(s))
    if any(site.layer is not None for site in changed):
        return -1
    return min((_start_layer(step) for step in live), default=n_layers)


def _live_steps(
    row: Row, n_layers: int, read: int, shared: "_SharedPrefixes"
) -> tuple[Intervention, ...]:
    """Return the steps of a row that can change its reading, in order.

    Left out are steps that cannot reach the read position, and patches that would write what
    already stands there: their source is the same run up to that position, and no step that
    matters comes before them (at an earlier or equal layer and position).
    """
    reaching = [
        step
        for given in row.interventions
        for step in single_sites(given)
        if not _cannot_reach(step, n_layers, read)
    ]
    idle = {i for i, step in enumerate(reaching) if shared.reads_own_value(step, row.base)}
    if not idle:
        return tuple(reaching)
    extent = [(_start_layer(step), positions_of(step)[0]) for step in reaching]
    for i in sorted(idle, key=lambda i: extent[i]):
        layer, pos = extent[i]
        before = (extent[j] for j in range(len(reaching)) if j != i and j not in idle)
        if any(other_layer <= layer and other_pos <= pos for other_layer, other_pos in before):
            idle.discard(i)
    return tuple(step for i, step in enumerate(reaching) if i not in idle)


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
        if not isinstance(step, Patch) or step.source_pos is not None or step.site.pos is None:
            return False
        return step.site.pos < self.length(base, step.source)


def places_to_keep(rows: Sequence[PlannedRow], *, raw: bool) -> dict[Place, None]:
    """Return the places whose values rows read from base runs.

    Args:
        rows: planned rows.
        raw: whether places are named as the caller gave them (packed and plain runs) or with
            `resid_post` as the next block's `resid_pre` (wavefront).
    """
    places: dict[Place, None] = {}
    for row in rows:
        for step in row.raw if raw else row.steps:
            if source_of(step) is not None:
                for site in sites_of(step):
                    places[site.name, site.layer] = None
    return places
