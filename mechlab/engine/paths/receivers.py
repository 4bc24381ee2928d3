"""Receivers: what a changed residual makes of the inputs of heads and MLPs, all else held.

The queries, keys or values of a head matter through its output `z` alone, and the input of an MLP
through its output: so a receiver is known by what it writes, and the rest of its block needs no
second run. Both come from the model's own block, which is stopped as soon as they are known.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from mechlab.engine.paths.streams import Cells, PairRuns, run_cells
from mechlab.engine.wavefront import LiveBlock
from mechlab.hooks import Edits, Place, attach

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = [
    "COMPONENTS",
    "Live",
    "Norms",
    "attention_inputs",
    "frozen_norms",
    "mlp_outputs",
    "norm_scales",
]

Norms = Literal["recompute", "frozen"]

COMPONENTS = {"q": ("q",), "k": ("k",), "v": ("v",), "pattern": ("q", "k"), "z": ("q", "k", "v")}
"""Which inputs of a head a receiver's site stands for."""


@dataclass(frozen=True)
class Live:
    """Inputs of one block's heads that see the changed residual; the others are held.

    Attributes:
        layer: block index.
        inputs: `q`, `k`, `v`, each with the heads that see it (`kv_head` for `k` and `v`), `None`
            for all.
        pos: the one position at which they see it; `None` for all.
    """

    layer: int
    inputs: tuple[tuple[str, tuple[int, ...] | None], ...]
    pos: int | None = None


class _Known(Exception):  # noqa: N818 - a signal, not an error
    """Ends a block's run once it has shown what was wanted."""


def attention_inputs(
    cells: Cells, live: Live, change: Tensor, ln: Norms, *, raw: bool = False
) -> tuple[list[int], dict[str, Tensor]]:
    """Return what the changed residual makes of one block's heads.

    Args:
        cells: the rows; only those that start before the block are run.
        live: which inputs see the change.
        change: change of the residual entering the block, `[cell, d_model]`.
        ln: whether the block's norm is recomputed on the changed residual.
        raw: return the live inputs themselves instead of `z`.

    Returns:
        The rows run (indices into `cells.rows`), and `{"z": [row, pos, head, d_head]}`, or the
        live inputs by name, `[row, pos, head, d_head]`.
    """
    pairs, layer = cells.pairs, live.layer
    n_rows = cells.rows_joined(layer - 1)
    base_of = torch.tensor([row.pair for row in cells.rows[:n_rows]], device=cells.pos.device)
    entering = pairs.original("resid_pre", layer)
    state = entering.index_select(0, base_of)
    count = cells.joined(layer - 1)
    seen = slice(0, count)
    moved = change[:count] if live.pos is None else change * (cells.pos[seen] == live.pos)[:, None]
    where = cells.row[seen], cells.pos[seen]
    state[where] = (state[where].float() + moved).to(state.dtype)
    norm = [f"blocks.{layer}.ln1.hook_scale"]
    scales: dict[str, Tensor] = {}
    if ln == "frozen":
        every = torch.arange(pairs.n, device=state.device)
        scales = norm_scales(
            pairs.model, norm, lambda: _run_attention(pairs, live, entering, every, {}, {})
        )
        scales = {name: scale.index_select(0, base_of) for name, scale in scales.items()}
    names = [name for name, _ in live.inputs] if raw else ["z"]
    found: dict[str, Tensor] = {}
    held = {name: _hold(pairs, live, name, base_of) for name in ("q", "k", "v")}
    with frozen_norms(pairs.model, scales):
        _run_attention(pairs, live, state, base_of, held, {n: _keep(found, n) for n in names})
    return list(range(n_rows)), found


def _hold(pairs: PairRuns, live: Live, name: str, base_of: Tensor) -> Callable[[Tensor], None]:
    """Return a write of the original run's values into an input, its live heads left out."""
    heads = dict(live.inputs).get(name, ())

    def write(out: Tensor) -> None:
        if heads is None:
            return
        kept = out[:, :, list(heads)].clone()
        out.copy_(pairs.original(name, live.layer).index_select(0, base_of))
        out[:, :, list(heads)] = kept

    return write


def _run_attention(
    pairs: PairRuns,
    live: Live,
    state: Tensor,
    base_of: Tensor,
    held: Mapping[str, Callable[[Tensor], None]],
    keep: Mapping[str, Callable[[Tensor], None]],
) -> None:
    """Run a block up to the heads' outputs on whole rows, `[row, pos, d_model]`."""
    layer = live.layer
    edits = cast(Edits, {(name, layer): [write] for name, write in held.items()})
    captures: dict[Place, Callable[[Tensor], None]] = {
        (name, layer): read for name, read in keep.items() if name != "z"
    }

    def stop(z: Tensor) -> None:
        if "z" in keep:
            keep["z"](z)
        raise _Known

    block = LiveBlock(pairs.model, pairs.runs, layer, base_of)
    with attach(pairs.model, edits, {**captures, ("z", layer): stop}) as attached:
        try:
            block.run(state, range(pairs.width))
        except _Known:
            pass
        attached.require_all_fired(pairs.model.name)


def mlp_outputs(cells: Cells, layer: int, change: Tensor, ln: Norms) -> Tensor:
    """Return the output of one block's MLP on the changed residual, `[cell, d_model]`.

    Args:
        cells: the rows; run are the cells of those that start in this block or before.
        layer: block index.
        change: change of the residual entering the block, for those that start before it.
        ln: whether the norm before the MLP is recomputed on the changed residual.
    """
    pairs = cells.pairs
    count = cells.joined(layer)
    state = cells.original("resid_pre", layer, slice(0, count)).clone()
    before = state.clone()
    state[: len(change)] = (state[: len(change)].float() + change).to(state.dtype)
    found: dict[str, Tensor] = {}

    def run(states: Tensor, z: Tensor, read: Callable[[Tensor], None]) -> None:
        def stop(output: Tensor) -> None:
            read(output)
            raise _Known

        try:
            run_cells(pairs, layer, states, z, captures={("mlp_out", layer): stop})
        except _Known:
            pass

    norms = [f"blocks.{layer}.{norm}.hook_scale" for norm in ("ln1", "ln2")]
    scales: dict[str, Tensor] = {}
    if ln == "frozen":
        held = cells.original("z", layer, slice(0, count))
        scales = norm_scales(pairs.model, norms, lambda: run(before, held, lambda output: None))
    with frozen_norms(pairs.model, scales):
        run(state, cells.z(layer, count), _keep(found, "mlp_out"))
    return found["mlp_out"][:, 0]


def _keep(found: dict[str, Tensor], name: str) -> Callable[[Tensor], None]:
    def read(tensor: Tensor) -> None:
        found[name] = tensor.detach().clone()

    return read


# --- norms ----------------------------------------------------------------------------------------


def norm_scales(
    model: "Model", names: Sequence[str], run: Callable[[], object]
) -> dict[str, Tensor]:
    """Return the scales that the named norms divide by in a run."""
    found: dict[str, Tensor] = {}

    def read(tensor: Tensor, hook: Any) -> None:
        found[hook.name] = tensor.detach().clone()

    there = [name for name in names if name in model.bridge.hook_dict]
    with model.bridge.hooks(fwd_hooks=[(name, read) for name in there]):
        run()
    return found


@contextmanager
def frozen_norms(model: "Model", scales: Mapping[str, Tensor]) -> Iterator[None]:
    """Let norms divide by given scales; their means are still taken off, which is linear.

    Scales are not sites, so these hooks are hung here and not by `attach`.
    """
    if not scales:
        yield
        return

    def divide_by(scale: Tensor) -> Callable[..., Tensor]:
        return lambda tensor, hook: scale

    with (
        warnings.catch_warnings()
    ):  # TransformerLens says that the norm is no longer the native one
        warnings.filterwarnings("ignore", message="A forward hook edited hook_scale")
        with model.bridge.hooks(fwd_hooks=[(name, divide_by(s)) for name, s in scales.items()]):
            yield
