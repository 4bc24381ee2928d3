"""What the engine is asked for: base runs and rows, their geometry, and what is refused.

A *base* is one prompt run once, perhaps with noise. A *row* is one counterfactual: a base and the
interventions that change it. Every row is checked before any forward pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from mechlab.errors import OptionError, SiteError
from mechlab.hooks import (
    SITES,
    AddNoise,
    Block,
    Freeze,
    Insert,
    Intervention,
    Patch,
    Site,
    live_sites,
    source_of,
)

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Base", "PlannedRow", "Readings", "Row", "check_rows"]


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
        layer: first block that has to run whole (`n_layers` when only the head is left; -1 when
            the embedding changes and the whole model has to run).
        pos: first touched position of the unpadded prompt.
        inside: interventions of the block before `layer`, which then is run at `pos` alone and
            from the heads' outputs on; they are not among `steps`.
    """

    index: int
    base: int
    raw: tuple[Intervention, ...]
    steps: tuple[Intervention, ...]
    layer: int
    pos: int
    inside: tuple[Intervention, ...] = ()


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


def start_layer(intervention: Intervention) -> int:
    """Return the block at which an intervention first acts, -1 for the embedding."""
    layers = [
        -1 if site.layer is None else site.layer for site in sites_of(as_entries(intervention))
    ]
    return min(layers)


def cannot_reach(intervention: Intervention, n_layers: int, read: int) -> bool:
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
    model: "Model",
    bases: Sequence[Base],
    rows: Sequence[Row],
    lengths: Sequence[int],
    banks: Mapping[str, Tensor],
) -> None:
    """Check every row against the model and the prompts, before any forward pass.

    Args:
        model: the model; when it was verified, only its verified sites are allowed.
        bases: base runs of the call.
        rows: rows of the call.
        lengths: number of tokens of each base's prompt.
        banks: values for `Insert`, by name.

    Raises:
        SiteError: a site that is missing, dead or unverified, or a layer, head or position out of
            range; all problems of the call in one message.
        OptionError: a base, source or bank index out of range, a bank of the wrong shape, or a
            base that reads another run.
    """
    checker = _Checker(model, lengths, banks)
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
    seen: set[tuple[int, int]] = set()  # sweeps hand in the same tuple for many base runs
    for row in rows:
        if not 0 <= row.base < len(bases):
            raise OptionError(f"row {row.label!r} names base {row.base}; there are {len(bases)}.")
        if (key := (id(row.interventions), lengths[row.base])) not in seen:
            seen.add(key)
            for step in row.interventions:
                checker.check(step, lengths[row.base])
    checker.report()


class _Checker:
    """Collects what is wrong with interventions; each distinct one is looked at once."""

    def __init__(self, model: "Model", lengths: Sequence[int], banks: Mapping[str, Tensor]) -> None:
        self.model = model
        self.lengths = lengths
        self.banks = banks
        self.live = set(live_sites(model))
        self.problems: dict[str, None] = {}
        self._seen: set[tuple[Intervention, int]] = set()

    def check(self, step: Intervention, length: int) -> None:
        if (step, length) in self._seen:
            return
        self._seen.add((step, length))
        if (source := source_of(step)) is not None:
            self._check_source(step, source, length)
        if isinstance(step, Insert):
            self._check_bank(step, length)
        for site in sites_of(step):
            self._check_site(site)
        first, last = positions_of(step)
        if max(first, last or 0) >= length:
            self.problems[
                f"position {max(first, last or 0)} lies outside a prompt of {length} tokens"
            ] = None
        if isinstance(step, Block) and max(step.heads or (0,)) >= (self.model.n_heads or 0):
            self.problems[
                f"head {max(step.heads or (0,))} of a Block: heads go from 0 to "
                f"{(self.model.n_heads or 0) - 1}"
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

    def _check_bank(self, step: Insert, length: int) -> None:
        if step.bank not in self.banks:
            known = ", ".join(map(repr, self.banks)) or "none"
            raise OptionError(
                f"{step} names a bank that the call does not have. Banks: {known}. Hand its "
                "values in as banks={name: tensor}."
            )
        bank = self.banks[step.bank]
        kind, model = SITES[step.site.name], self.model
        heads = model.n_kv_heads if step.site.name in ("k", "v") else model.n_heads
        tail: tuple[int | None, ...] = (heads, model.d_head)
        if kind.axes == "bpd":
            tail = (model.d_model,)
        tail = tail if step.site.head is None else tail[1:]
        needed = length if step.site.pos is None else step.site.pos + 1
        fits = bank.ndim == 2 + len(tail) and tuple(bank.shape[2:]) == tail
        if not (fits and 0 <= step.index < len(bank) and bank.shape[1] >= needed):
            raise OptionError(
                f"{step}: bank {step.bank!r} is {list(bank.shape)}. Needed: [more than "
                f"{step.index}, at least {needed}, {', '.join(map(str, tail))}] for this site and "
                "prompt."
            )

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
