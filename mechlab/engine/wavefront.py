"""The wavefront: rows join the batch at the block where they start to differ from their base run.

1. Base runs left the residual entering each block, the other arguments of each block, and (for
   attention models) the keys and values of every position.
2. Block by block, rows that start here join the live batch with copies of the base residual; the
   model's own block runs once for all of them. With `first > 0` only the positions from `first` on
   are in the batch: earlier ones are untouched, so the base run's keys and values stand in.
3. The residuals at the read positions go through the model's own head.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from mechlab.engine.forward import BaseRuns
from mechlab.engine.rows import PlannedRow
from mechlab.hooks import Placement, apply_writes, attach, compile_edits

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["blocks_replaced", "head_logits", "wave_residuals"]


def wave_residuals(
    model: "Model", runs: BaseRuns, rows: Sequence[PlannedRow], first: int
) -> Tensor:
    """Run rows from the layer and position where each starts.

    Args:
        model: the model.
        runs: base runs of the pass.
        rows: rows sorted by start layer, all of them at or after padded position `first`.
        first: padded position from which on the rows are run.

    Returns:
        Residual entering the head at each row's read position, `[row, d_model]`.
    """
    device = runs.residuals.device
    local = [runs.kept.local[row.base] for row in rows]
    base_of = torch.tensor(local, device=device)
    placement = Placement(
        [runs.tokens.starts[i] for i in local],
        [runs.tokens.prompts[i] for i in local],
        runs.tokens.width,
        model.d_model,
        first,
    )
    edits = compile_edits([row.steps for row in rows], placement, runs.kept, device=device)
    entry_edits = {place: edits.pop(place) for place in list(edits) if place[0] == "resid_pre"}
    live = runs.residuals.new_empty(0)
    joined = 0
    with attach(model, edits) as attached:
        for layer in range(rows[0].layer, model.n_layers + 1):
            joining = sum(row.layer == layer for row in rows[joined:])
            if joining:
                bases = base_of[joined : joined + joining]
                entering = runs.kept.values["resid_pre", layer][:, first:].index_select(0, bases)
                live = torch.cat([live, entering]) if joined else entering
                joined += joining
            if ("resid_pre", layer) in entry_edits:
                live = apply_writes(live, entry_edits["resid_pre", layer])
            if layer < model.n_layers:
                live = _run_block(model, runs, layer, live, base_of[:joined], first)
        attached.require_all_fired(model.name)
    reads = torch.tensor([runs.tokens.reads[i] - first for i in local], device=device)
    return live[torch.arange(len(rows), device=device), reads]


def _run_block(
    model: "Model", runs: BaseRuns, layer: int, live: Tensor, base_of: Tensor, first: int
) -> Tensor:
    """Run one block of the model on the live batch, `[row, pos, d_model]`."""
    args, kwargs = runs.arguments[layer]
    n_bases, width = runs.tokens.tokens.shape

    def fit(value: Any) -> Any:
        if isinstance(value, Cache):
            return _PrefixCache(runs.cache, base_of, first)
        if isinstance(value, tuple):
            return tuple(fit(part) for part in value)
        if not isinstance(value, Tensor):
            return value
        return _fit_tensor(value, base_of, first, n_bases, width)

    output = model.bridge.blocks[layer](
        live, *map(fit, args), **{name: fit(value) for name, value in kwargs.items()}
    )
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result


def _fit_tensor(value: Tensor, base_of: Tensor, first: int, n_bases: int, width: int) -> Tensor:
    """Give a block argument of the base batch the rows and positions of the live batch."""
    if value.ndim == 4 and value.shape[-2] == width:  # mask [base or 1, 1, query, key]
        value = value[..., first:, :]
    elif value.ndim == 4 and value.shape[-2] == 1 and first:
        pass  # a mask that is the same for every query
    elif value.ndim in (2, 3) and value.shape[1] == width:  # positions, rotary tables
        value = value[:, first:]
    elif value.ndim == 1 and value.shape[0] == width:
        return value[first:]
    if n_bases > 1 and value.shape[0] == n_bases:
        return value.index_select(0, base_of)
    return value


class _PrefixCache(DynamicCache):
    """A cache that answers every update with the base runs' keys and values before `first`."""

    def __init__(self, base: DynamicCache | None, base_of: Tensor, first: int) -> None:
        super().__init__()
        self._base = base
        self._base_of = base_of
        self._first = first

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return keys and values of all positions; nothing is stored."""
        if not self._first:
            return key_states, value_states
        assert self._base is not None
        layer = self._base.layers[layer_idx]
        return self._extend(layer.keys, key_states), self._extend(layer.values, value_states)

    def _extend(self, base: Tensor | None, new: Tensor) -> Tensor:
        assert base is not None
        full = base.index_select(0, self._base_of)
        full[:, :, self._first :] = new
        return full

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of positions before the live ones."""
        return self._first


@contextmanager
def blocks_replaced(model: "Model", forwards: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """Let block l run `forwards[l]` instead of itself, through the instance dictionary.

    A plain assignment would be forwarded to the wrapped Hugging Face module and stay there.
    """
    blocks = list(model.bridge.blocks)
    try:
        for block, function in zip(blocks, forwards, strict=True):
            block.__dict__["forward"] = function
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


def head_logits(model: "Model", residuals: Tensor, *, at_once: int = 512) -> Tensor:
    """Run the model's own head (final norm, unembedding, soft-caps) on residuals.

    The blocks are replaced by the identity and the last one by the residuals, then the model is
    called on one dummy token per row: whatever its head does is done.

    Args:
        model: the model.
        residuals: what enters the head, `[row, d_model]`.
        at_once: rows per call, so that a large vocabulary fits.

    Returns:
        Logits `[row, vocab]`.
    """
    parts = []
    for chunk in residuals.split(at_once):
        same = [lambda hidden, *args, **kwargs: hidden] * (model.n_layers - 1)
        hand_over = chunk[:, None, :]
        last = [lambda hidden, *args, _out=hand_over, **kwargs: _out]
        dummy = torch.zeros(len(chunk), 1, dtype=torch.long, device=residuals.device)
        with blocks_replaced(model, [*same, *last]):
            parts.append(model.bridge(dummy, use_cache=False)[:, -1])
    return torch.cat(parts)
