"""The cells of a sweep over layers, heads and positions: what each writes, where it is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.axes import Head
from mechlab.engine.options import check_choice, require_heads, require_sites
from mechlab.engine.positions import Cell, Positions
from mechlab.errors import OptionError, SiteError
from mechlab.hooks import SITES, Site, known_kind
from mechlab.models import chosen_heads, chosen_layers, head_sets

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Grid", "Unit"]


@dataclass(frozen=True)
class Unit:
    """What one cell writes apart from positions, and where it is shown.

    Attributes:
        places: (layer, head) written together; head `None` for all of them.
        index: place in the axes of the grid.
    """

    places: tuple[tuple[int, int | None], ...]
    index: tuple[int, ...]


@dataclass(frozen=True)
class Grid:
    """One site, swept over layers, heads or sets of heads, and positions.

    Attributes:
        site: name of the site.
        axes: axis -> labels, in order, without `pos`.
        units: what is written per cell.
        positions: where.
    """

    site: str
    axes: dict[str, list[int] | list[str]]
    units: tuple[Unit, ...]
    positions: Positions

    @classmethod
    def make(
        cls,
        model: "Model",
        *,
        site: str,
        by: str,
        layers: Sequence[int] | None,
        heads: Any,
        positions: object,
    ) -> "Grid":
        """Check the options against the model.

        Args:
            model: the model.
            site: any site with a layer.
            by: `head` (`kv_head` for keys and values), `layer`, or `set`.
            layers: layers of the sweep; all by default.
            heads: heads of the sweep, for `head` and `kv_head`; or the sets, for `set`.
            positions: see `Positions.make`.

        Raises:
            OptionError, SiteError: options out of range, or that do not go together.
        """
        kind = known_kind(site)
        check_choice("by", by, ("head", "kv_head", "layer", "set"))
        if not kind.per_layer:
            per_layer = ", ".join(name for name, other in SITES.items() if other.per_layer)
            raise SiteError(f"site {site!r} has no layers. Allowed: {per_layer}. Use one of these.")
        _check_by(model, site, by, layers, heads)
        require_sites(model, [site])
        place = Positions.make(positions)
        if by == "layer":
            chosen = chosen_layers(model, layers)
            units = [Unit(((layer, None),), (i,)) for i, layer in enumerate(chosen)]
            return cls(site, {"layer": list(chosen)}, tuple(units), place)
        if by == "set":
            sets = head_sets(model, heads, together=True, kv=site in ("k", "v"))
            members = [tuple((h.layer, h.head) for h in group) for group in sets.values()]
            units = [Unit(group, (i,)) for i, group in enumerate(members)]
            return cls(site, {"head_set": list(sets)}, tuple(units), place)
        axes, units = _head_units(model, by, layers, heads)
        return cls(site, axes, tuple(units), place)

    @property
    def dims(self) -> tuple[str, ...]:
        """Axes of a result, `prompt` first."""
        return ("prompt", *self.axes, *(("pos",) if self.positions.each else ()))

    @property
    def layers(self) -> list[int]:
        """Layers that are written anywhere, sorted."""
        return sorted({layer for unit in self.units for layer, _ in unit.places})

    def sites(self, unit: Unit, cell: Cell, length: int) -> list[Site]:
        """Return the sites that a cell writes in a prompt of `length` tokens."""
        positions = [None] if cell is None else [pos % length for pos in cell]
        return [
            Site(self.site, layer, head, pos) for layer, head in unit.places for pos in positions
        ]

    def sources(self, unit: Unit, cell: Cell, length: int, prompt: int = 0) -> list[int | None]:
        """Return the position that each of `sites` corresponds to in a prompt of `length`."""
        positions = self.positions.sources(cell, length, prompt)
        return [pos for _ in unit.places for pos in positions]

    def within(self, *args: Any, **options: Any) -> "Grid":
        """Return the grid with positions found in prompts; see `Positions.within`."""
        return replace(self, positions=self.positions.within(*args, **options))

    def arrange(self, values: np.ndarray, lengths: Sequence[int], repeats: int = 1) -> np.ndarray:
        """Put values in the order prompt, unit, cell, repeat into the axes of the grid.

        Returns:
            float32 `[prompt, *axes, (pos,) repeat]`, NaN where nothing was run.
        """
        width = (max(lengths),) if self.positions.each else ()
        sizes = tuple(len(labels) for labels in self.axes.values())
        shape = (len(lengths), *sizes, *width, repeats)
        out = np.full(shape, np.nan, dtype=np.float32)
        at = 0
        for prompt, length in enumerate(lengths):
            n_cells = len(self.positions.cells(length, prompt))
            for unit in self.units:
                block = values[at : at + n_cells * repeats].reshape(n_cells, repeats)
                at += n_cells * repeats
                where = (prompt, *unit.index)
                if self.positions.each:
                    out[where][:length] = block
                else:
                    out[where] = block[0]
        return out

    def coordinates(self, tokens: Sequence[Sequence[str]]) -> Mapping[str, Any]:
        """Return the coordinates of the axes; with positions also the tokens of each prompt."""
        if not self.positions.each:
            return dict(self.axes)
        width = max(map(len, tokens))
        padded = [[*row, *[""] * (width - len(row))] for row in tokens]
        return {**self.axes, "pos": np.arange(width), "token": (("prompt", "pos"), padded)}


def _check_by(
    model: "Model", site: str, by: str, layers: Sequence[int] | None, heads: object
) -> None:
    is_kv = site in ("k", "v")
    if by != "layer" and not SITES[site].has_heads:
        raise SiteError(
            f"site {site!r} has no heads, so by={by!r} cannot be. Allowed: by='layer', or a site "
            f"with heads ({', '.join(n for n, kind in SITES.items() if kind.has_heads)})."
        )
    if by != "layer":
        require_heads(model)
    if (by == "kv_head" and not is_kv) or (by == "head" and is_kv):
        other = "kv_head" if is_kv else "head"
        raise OptionError(
            f"by={by!r} of site {site!r}: {model.name} has {model.n_heads} query heads and "
            f"{model.n_kv_heads} key and value heads per layer. Allowed: by={other!r} or 'layer'. "
            "A key or value head serves a whole group of query heads, and is counted on its own."
        )
    if by == "layer" and heads is not None:
        raise OptionError(f"heads={heads!r:.60} with by='layer'. Leave heads out, or change by.")
    if by == "set" and (heads is None or layers is not None):
        raise OptionError(
            "by='set' needs heads=[...] or {name: [...]} and no layers: the heads of a set are "
            f"changed together. Received heads={heads!r:.60}, layers={layers!r}."
        )
    if by in ("head", "kv_head") and heads is not None and layers is not None:
        raise OptionError("give heads or layers, not both: heads name their layers themselves.")


def _head_units(
    model: "Model", by: str, layers: Sequence[int] | None, heads: Any
) -> tuple[dict[str, list[int] | list[str]], list[Unit]]:
    count = (model.n_kv_heads if by == "kv_head" else model.n_heads) or 0
    if heads is None:
        chosen = chosen_layers(model, layers)
        wanted = [Head(layer, head) for layer in chosen for head in range(count)]
    else:
        wanted = list(chosen_heads(model, heads, kv=by == "kv_head"))
        chosen = tuple(sorted({head.layer for head in wanted}))
        if not wanted:
            raise OptionError("heads=[] names no head. Leave heads out for all of them.")
    row = {layer: i for i, layer in enumerate(chosen)}
    units = [Unit(((h.layer, h.head),), (row[h.layer], h.head)) for h in wanted]
    return {"layer": list(chosen), by: list(range(count))}, units
