"""The only place that puts hooks on a model.

`compile_edits` turns the interventions of many rows into a few indexed writes per site and layer;
`attach` hangs those on the bridge for the length of a `with` block and counts how often each fired.
Hooks return new tensors, as an in-place write after a caching hook would rewrite the cache; the one
exception is `resid_mid` (see `SiteKind.in_place`), and captures copy what they keep.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from mechlab.errors import SiteError
from mechlab.hooks.interventions import (
    Ablate,
    AddNoise,
    Block,
    Insert,
    Intervention,
    Patch,
    Scale,
    Steer,
    single_sites,
)
from mechlab.hooks.sites import SITES, hook_name

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = [
    "Attached",
    "Edits",
    "Kept",
    "Place",
    "Placement",
    "apply_writes",
    "attach",
    "capture",
    "compile_edits",
    "noise",
]

Place = tuple[str, int | None]
"""Site name and layer."""


@dataclass
class Kept:
    """What base runs left behind for rows to start from and read.

    Attributes:
        bases: which base runs of the call are kept here, in the order of the tensors' first axis.
        starts: first padded position of each of them that is a real token.
        values: place -> `[base, pos, ...]` in padded coordinates.
        banks: values that came with the call, `[index, pos, ...]` in unpadded coordinates.
    """

    bases: tuple[int, ...]
    starts: tuple[int, ...]
    values: dict[Place, Tensor] = field(default_factory=dict)
    banks: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Index the bases once; sweeps look them up for every row."""
        self.local = {base: place for place, base in enumerate(self.bases)}


@dataclass(frozen=True)
class Placement:
    """Where the rows of one batch sit.

    Attributes:
        starts: padded position of each row's first real token.
        prompts: text of each row's prompt; the noise of `AddNoise` depends on it.
        width: number of padded positions.
        d_model: width of the residual stream, for noise.
        first: padded position of the first column that is really in the batch (suffix runs).
    """

    starts: Sequence[int]
    prompts: Sequence[str]
    width: int
    d_model: int
    first: int = 0


@dataclass
class _Write:
    """One indexed write into a site's tensor: `tensor[index] = f(tensor[index], values)`."""

    kind: Literal["set", "add", "mul"]
    index: tuple[Any, ...]
    values: Tensor | float

    def __call__(self, out: Tensor) -> None:
        values = self.values
        if isinstance(values, Tensor):
            values = values.to(dtype=out.dtype, device=out.device)
        if self.kind == "set":
            out[self.index] = values
        elif self.kind == "add":
            out[self.index] = out[self.index] + values
        else:
            out[self.index] = out[self.index] * values


Write = Callable[[Tensor], None]
"""Changes a site's tensor in place; it is handed a copy."""

Edits = dict[Place, list[Write]]
"""For each place the writes to make there, in order."""


@dataclass
class Attached:
    """Fired counters of the hooks in force, one per place."""

    fired: dict[Place, int]

    def require_all_fired(self, model_name: str) -> None:
        """Refuse a run in which a planned hook never fired.

        Raises:
            SiteError: naming every place whose hook stayed silent.
        """
        if silent := [place for place, count in self.fired.items() if count == 0]:
            named = ", ".join(hook_name(*place) for place in silent)
            raise SiteError(
                f"hooks that never fired on {model_name}: {named}. The numbers would be those of "
                "an untouched run. `mechlab models check` shows the sites that work on this model."
            )


@contextmanager
def attach(
    model: "Model", edits: Edits, captures: Mapping[Place, Callable[[Tensor], None]] | None = None
) -> Iterator[Attached]:
    """Hang edits (and read-only captures, which see the edited value) on the bridge.

    Args:
        model: the model; left exactly as found, also after an exception.
        edits: writes per place, from `compile_edits`.
        captures: place -> function called with the site's tensor.

    Yields:
        The counters of how often each place fired.
    """
    captures = captures or {}
    attached = Attached({place: 0 for place in (*edits, *captures)})

    def hook_for(place: Place) -> Callable[..., Tensor | None]:
        writes, read = edits.get(place, []), captures.get(place)

        def hook(tensor: Tensor, hook: Any) -> Tensor | None:
            attached.fired[place] += 1
            out = apply_writes(tensor, writes) if writes else None
            if out is not None and SITES[place[0]].in_place:
                out = tensor.copy_(out)
            if read is not None:
                read(tensor if out is None else out)
            return out

        return hook

    hooks = [(hook_name(*place), hook_for(place)) for place in attached.fired]
    with ExitStack() as stack:
        if hooks:
            stack.enter_context(model.bridge.hooks(fwd_hooks=hooks))
        yield attached


def capture(kept: Kept, place: Place) -> Callable[[Tensor], None]:
    """Return a reader that keeps a copy of the site's tensor under `place`."""

    def read(tensor: Tensor) -> None:
        kept.values[place] = tensor.detach().clone()

    return read


def apply_writes(tensor: Tensor, writes: Sequence[Write]) -> Tensor:
    """Return a copy of `tensor` with the writes made."""
    out = tensor.clone()
    for write in writes:
        write(out)
    return out


# --- from interventions to writes -----------------------------------------------------------------


@dataclass
class _Cells:
    """The cells that interventions of one kind touch at one place, gathered row by row."""

    rows: list[int] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    source_positions: list[int] = field(default_factory=list)
    payload: list[Tensor | float] = field(default_factory=list)


def compile_edits(
    interventions_per_row: Sequence[Sequence[Intervention]],
    placement: Placement,
    kept: Kept | None = None,
    *,
    device: torch.device | str = "cpu",
) -> Edits:
    """Turn the interventions of a batch into indexed writes per place.

    Args:
        interventions_per_row: for each row of the batch what it changes, in order; at one place a
            later intervention wins over an earlier one.
        placement: where the rows sit.
        kept: activations of base runs, for interventions that read a source.
        device: where the writes will happen.

    Returns:
        Writes per place; at most one per kind of intervention and order of arrival.
    """
    gathered: dict[tuple[Place, int, str, bool], _Cells] = defaultdict(_Cells)
    for row, interventions in enumerate(interventions_per_row):
        arrivals: dict[Place, int] = defaultdict(int)
        for step in (one for given in interventions for one in single_sites(given)):
            place = (step.site.name, step.site.layer)
            order = arrivals[place]
            arrivals[place] += 1
            headed = (step.heads if isinstance(step, Block) else step.site.head) is not None
            cells = gathered[place, order, _kind(step), headed]
            _gather(cells, step, row, placement, kept)
    edits: Edits = {}
    for (place, _, kind, headed), cells in sorted(gathered.items(), key=lambda item: item[0][1]):
        edits.setdefault(place, []).append(
            _write(place, kind, headed, cells, placement, kept, device)
        )
    return edits


def _kind(step: Any) -> str:
    """Return which sort of write an intervention is; cells of one sort are written together."""
    if isinstance(step, Patch) or (isinstance(step, Ablate) and step.kind == "resample"):
        return "set from source"
    if isinstance(step, Insert):
        return f"bank {step.bank}"
    if isinstance(step, Ablate):
        return "set zero" if step.kind == "zero" else "set payload"
    if isinstance(step, Block):
        return "mask" if step.mode == "mask" else "mul edges"
    return "mul" if isinstance(step, Scale) else "add"


def _gather(cells: _Cells, step: Any, row: int, placement: Placement, kept: Kept | None) -> None:
    """Append the cells that one intervention of one row touches."""
    start = placement.starts[row]
    if isinstance(step, Block):
        _gather_edges(cells, step, row, start, placement)
        return
    if isinstance(step, AddNoise):
        positions: Sequence[int] = range(start + step.first, start + step.last + 1)
        unit = noise(
            step.seed, placement.prompts[row], step.draw, len(positions), placement.d_model
        )
        cells.payload += list(unit * step.std)
    else:
        pos = step.site.pos
        positions = range(start, placement.width) if pos is None else (start + pos,)
    source = getattr(step, "source", None)
    if source is not None:
        assert kept is not None  # plans with sources always come with kept runs
        local = kept.local[source]
        shift = kept.starts[local] - start
        if getattr(step, "source_pos", None) is not None:
            shift = kept.starts[local] + step.source_pos - positions[0]
        cells.sources += [local] * len(positions)
        cells.source_positions += [p + shift for p in positions]
    if isinstance(step, Insert):
        cells.sources += [step.index] * len(positions)
        cells.source_positions += [p - start for p in positions]
    if isinstance(step, Scale):
        cells.payload += [step.alpha] * len(positions)
    if isinstance(step, Steer):
        cells.payload += [torch.from_numpy(step.vector.values.copy()) * step.scale] * len(positions)
    if isinstance(step, Ablate) and step.reference is not None:
        cells.payload += [torch.from_numpy(step.reference.values.copy())] * len(positions)
    cells.rows += [row] * len(positions)
    cells.positions += positions
    if step.site.head is not None:
        cells.heads += [step.site.head] * len(positions)


def _gather_edges(cells: _Cells, step: Block, row: int, start: int, placement: Placement) -> None:
    for head in step.heads if step.heads is not None else (-1,):
        for query in step.queries:
            for key in (key for key in step.keys if key <= query):
                cells.rows.append(row)
                cells.heads.append(head)
                cells.positions.append(start + query)
                cells.keys.append(start + key)


def _write(
    place: Place,
    kind: str,
    headed: bool,
    cells: _Cells,
    placement: Placement,
    kept: Kept | None,
    device: torch.device | str,
) -> _Write:
    """Build the indexed write for gathered cells."""

    def on_device(numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=device)

    axes = SITES[place[0]].axes
    rows = on_device(cells.rows)
    positions = on_device(cells.positions) - placement.first
    heads = on_device(cells.heads) if headed else None
    if kind in ("mask", "mul edges"):
        return _edge_write(kind, rows, heads, positions, on_device(cells.keys))
    index = _index(axes, rows, heads, positions)
    if kind == "set from source":
        assert kept is not None
        source = _index(axes, on_device(cells.sources), heads, on_device(cells.source_positions))
        values = kept.values[place][source]
        if axes == "bhqk":  # keys are padded on the left as well, perhaps wider than here
            values = values[..., -placement.width :]
        return _Write("set", index, values)
    if kind.startswith("bank "):
        assert kept is not None
        bank = kept.banks[kind.removeprefix("bank ")]
        entries = torch.tensor(cells.sources), torch.tensor(cells.source_positions)
        return _Write("set", index, bank[tuple(part.to(bank.device) for part in entries)])
    if kind == "set zero":
        return _Write("set", index, 0.0)
    if kind == "mul":
        factors = torch.tensor(cells.payload, dtype=torch.float64, device=device)
        trailing = {"bpd": 1, "bphd": 2, "bhqk": 2}[axes] - (1 if headed else 0)
        return _Write("mul", index, factors.reshape(-1, *[1] * trailing))
    payload = torch.stack([torch.as_tensor(value) for value in cells.payload]).to(device)
    if axes == "bphd" and not headed and payload.ndim == 2:
        payload = payload[:, None, :]  # one [d_head] vector for every head
    return _Write("set" if kind == "set payload" else "add", index, payload)


def _index(axes: str, rows: Tensor, heads: Tensor | None, positions: Tensor) -> tuple[Any, ...]:
    if axes == "bhqk":
        return (rows, slice(None) if heads is None else heads, positions)
    return (rows, positions) if heads is None else (rows, positions, heads)


def _edge_write(
    kind: str, rows: Tensor, heads: Tensor | None, queries: Tensor, keys: Tensor
) -> _Write:
    index = (rows, slice(None) if heads is None else heads, queries, keys)
    if kind == "mask":
        return _Write("set", index, float("-inf"))
    return _Write("set", index, 0.0)


# --- noise ----------------------------------------------------------------------------------------


def noise(seed: int, prompt: str, draw: int, n_positions: int, d_model: int) -> Tensor:
    """Return standard normal noise that depends only on (seed, prompt, draw).

    Returns:
        float32 `[pos, d_model]` on the CPU, so that every device adds the same numbers.
    """
    digest = hashlib.sha256(f"{seed}\x1f{prompt}\x1f{draw}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(n_positions, d_model, generator=generator)
