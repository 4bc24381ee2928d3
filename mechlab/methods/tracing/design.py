"""The cells of a trace: which states are restored in which corrupted runs, and where results go."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.engine import Base, Row, default_window, window_layers
from mechlab.errors import OptionError, SiteError
from mechlab.hooks import Freeze, Intervention, Patch, Site, live_sites
from mechlab.methods.tracing.options import is_whole
from mechlab.prompts import Fact, PromptSet, role_of_positions

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Design", "FactCells", "lay_out"]

TRACED_SITES = ("resid_pre", "resid_mid", "resid_post", "mlp_out", "attn_out", "mixer_out")
WINDOWED_SITES = ("mlp_out", "attn_out", "mixer_out")
SEVERED_SITE = {"mlp": "mlp_out", "attn": "attn_out", "mixer": "mixer_out"}


@dataclass(frozen=True)
class Design:
    """What is restored, the same for every fact.

    Attributes:
        sites: names of the states.
        layers: centre layers.
        n_layers: blocks of the model.
        window: layers restored together at windowed sites.
        positions: `all`, `subject` or `last_subject`.
        sever: site held at its corrupted values at the restored token, or `None`.
    """

    sites: tuple[str, ...]
    layers: tuple[int, ...]
    n_layers: int
    window: int
    positions: str
    sever: str | None

    @classmethod
    def make(
        cls,
        model: "Model",
        sites: Sequence[str],
        layers: Sequence[int] | None,
        window: int | None,
        positions: str,
        sever: str,
    ) -> "Design":
        """Check the options against the model, before any forward pass.

        Raises:
            OptionError: an option outside its range or choices.
            SiteError: a site that cannot be traced or that the model lacks; a layer out of range.
        """
        for name, value in (("sites", sites), ("layers", [] if layers is None else layers)):
            if not isinstance(value, Iterable):
                raise OptionError(f"{name}={value!r}. Allowed: a list. Put it in brackets.")
        sites = (sites,) if isinstance(sites, str) else tuple(sites)
        layers = tuple(range(model.n_layers)) if layers is None else tuple(layers)
        severed = None if sever == "none" else SEVERED_SITE.get(str(sever), "")
        if severed == "":
            raise OptionError(f"sever={sever!r}. Allowed: none, {', '.join(SEVERED_SITE)}.")
        if positions not in ("all", "subject", "last_subject"):
            raise OptionError(f"positions={positions!r}. Allowed: all, subject, last_subject.")
        if window is not None and not is_whole(window, at_least=1):
            raise OptionError(
                f"window={window!r} layers. Allowed: 1 or more. "
                "Leave it out for a fifth of the layers."
            )
        _check_sites(model, sites, severed)
        _check_layers(model, layers)
        window = default_window(model.n_layers) if window is None else int(window)
        layers = tuple(int(layer) for layer in layers)
        return cls(sites, layers, model.n_layers, window, positions, severed)

    def layers_restored(self, site: str, layer: int) -> range:
        """Return the layers restored together for the cell at `layer`."""
        window = self.window if site in WINDOWED_SITES else 1
        return window_layers(layer, window, self.n_layers)

    @property
    def needed_sites(self) -> tuple[str, ...]:
        """Sites that must be proven on the model."""
        return tuple(dict.fromkeys([*self.sites, *([self.sever] if self.sever else [])]))


def _check_sites(model: "Model", sites: tuple[str, ...], severed: str | None) -> None:
    live = set(live_sites(model))
    allowed = [name for name in TRACED_SITES if name in live]
    wrong = [name for name in sites if name not in allowed]
    if wrong or not sites or len(set(sites)) != len(sites):
        received = ", ".join(map(repr, sites)) or "none"
        raise SiteError(
            f"sites that cannot be traced on {model.name} ({model.family}): "
            f"{', '.join(map(repr, wrong)) or 'none given, or one given twice'}.\n"
            f"  Received: {received}\n  Sites to trace on this model: {', '.join(allowed)}\n"
            "  Choose among these."
        )
    if severed is not None and severed not in live:
        raise SiteError(
            f"sever: {model.name} ({model.family}) has no {severed!r}. "
            f"Sites on this model: {', '.join(allowed)}. Use sever='mixer' on recurrent models."
        )


def _check_layers(model: "Model", layers: tuple[int, ...]) -> None:
    last = model.n_layers - 1
    wrong = [layer for layer in layers if not is_whole(layer) or not 0 <= layer <= last]
    if wrong or not layers or len(set(layers)) != len(layers):
        raise SiteError(
            f"layers {wrong or list(layers)} of {model.name}: layers go from 0 to {last}, each "
            "named once. Leave layers out to trace all of them."
        )


@dataclass(frozen=True)
class FactCells:
    """The rows of one fact, in the order site, layer, position, sample.

    Attributes:
        fact: index of the fact in the prompt set.
        clean: index of its clean base run.
        corrupted: indices of its corrupted base runs.
        positions: traced positions of the clean prompt.
        first_row: index of the fact's first row.
        runs: for each traced position whether it exists in each corrupted run, `[pos, sample]`.
    """

    fact: int
    clean: int
    corrupted: tuple[int, ...]
    positions: tuple[int, ...]
    first_row: int
    runs: np.ndarray


@dataclass
class Layout:
    """All base runs and rows of a trace, and which cells they fill."""

    bases: list[Base] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    facts: list[FactCells] = field(default_factory=list)
    fact_of_base: list[int] = field(default_factory=list)


def lay_out(
    design: Design,
    facts: PromptSet[Any],
    traced: Sequence[int],
    spans: Sequence[tuple[int, int]],
    lengths: Sequence[int],
    corrupt: Callable[[Fact, tuple[int, int]], list[tuple[Base, tuple[int, int]]]],
) -> Layout:
    """Make the base runs and rows of the facts that are traced.

    Args:
        design: what is restored.
        facts: all facts.
        traced: indices of those that are traced.
        spans: first and last subject position per fact.
        lengths: tokens per prompt.
        corrupt: gives the corrupted base runs of a fact, of which the subject's span is known, each
            with its own subject's span.
    """
    layout = Layout()
    for index in traced:
        first, last = spans[index]
        clean = len(layout.bases)
        corrupted = corrupt(facts[index], spans[index])
        layout.bases += [Base(facts[index].prompt, (), "clean"), *(base for base, _ in corrupted)]
        layout.fact_of_base += [index] * (1 + len(corrupted))
        positions = {
            "all": range(lengths[index]),
            "subject": range(first, last + 1),
            "last_subject": range(last, last + 1),
        }[design.positions]
        there = [[_aligned(pos, first, last, *span) for _, span in corrupted] for pos in positions]
        layout.facts.append(
            FactCells(
                fact=index,
                clean=clean,
                corrupted=tuple(range(clean + 1, clean + 1 + len(corrupted))),
                positions=tuple(positions),
                first_row=len(layout.rows),
                runs=np.array([[pos is not None for pos in row] for row in there]),
            )
        )
        layout.rows += _rows(design, layout.facts[-1], there)
    return layout


def _aligned(pos: int, first: int, last: int, other_first: int, other_last: int) -> int | None:
    """Return the position in a corrupted run that corresponds to `pos` of the clean run.

    Before the subject the prompts agree from the left; from the subject's end on they agree from
    the right. A subject token that the shorter other subject lacks has no counterpart.
    """
    if pos < first:
        return pos
    other = pos - last + other_last
    return other if other >= other_first else None


def _rows(design: Design, cells: FactCells, there: list[list[int | None]]) -> list[Row]:
    rows = []
    for site in design.sites:
        for layer in design.layers:
            for pos, targets in zip(cells.positions, there, strict=True):
                made: dict[int, tuple[Intervention, ...]] = {}
                for run, target in zip(cells.corrupted, targets, strict=True):
                    if target is None:
                        continue
                    if target not in made:
                        made[target] = _restore(design, cells, site, layer, pos, target)
                    steps = made[target]
                    if design.sever is not None:
                        steps = (*steps, _sever(design, target, run))
                    rows.append(Row(run, steps))
    return rows


def _restore(
    design: Design, cells: FactCells, site: str, layer: int, pos: int, target: int
) -> tuple[Intervention, ...]:
    source_pos = None if target == pos else pos
    return tuple(
        Patch(Site(site, at, pos=target), cells.clean, source_pos)
        for at in design.layers_restored(site, layer)
    )


def _sever(design: Design, target: int, run: int) -> Freeze:
    """Hold the severed outputs of the restored token at the corrupted run's own values."""
    assert design.sever is not None
    return Freeze(
        tuple(Site(design.sever, layer, pos=target) for layer in range(design.n_layers)), run
    )


def arrange(
    design: Design, layout: Layout, n_facts: int, width: int, samples: int, values: np.ndarray
) -> np.ndarray:
    """Put row values into `[prompt, site, layer, pos, sample]`, NaN where nothing was run."""
    n_sites, n_layers = len(design.sites), len(design.layers)
    restored = np.full((n_facts, n_sites, n_layers, width, samples), np.nan, dtype=np.float32)
    for cells in layout.facts:
        shape = (n_sites, n_layers, *cells.runs.shape)
        block = np.full(shape, np.nan, dtype=np.float32)
        count = n_sites * n_layers * int(cells.runs.sum())
        block[:, :, cells.runs] = values[cells.first_row : cells.first_row + count].reshape(
            n_sites, n_layers, -1
        )
        restored[cells.fact][:, :, list(cells.positions)] = block
    return restored


def token_roles(length: int, span: tuple[int, int], width: int) -> list[str]:
    """Return the role of each position, padded with empty strings."""
    return [*role_of_positions(length, *span), *[""] * (width - length)]
