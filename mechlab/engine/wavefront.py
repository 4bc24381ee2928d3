"""The wavefront: rows join the batch at the block where they start to differ from their base run.

1. Base runs left the residual entering each block, the other arguments of each block, and (for
   attention models) the keys and values of every position.
2. Block by block, rows that start here join the live batch with copies of the base residual; the
   model's own block runs once for all of them. With `first > 0` only the positions from `first` on
   are in the batch: earlier ones are untouched, so the base run's keys and values stand in.
3. In the last block only the read position matters: the others give their keys and values and go
   no further.
4. The residuals at the read positions go through the model's own head.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from mechlab.engine.forward import BaseRuns
from mechlab.engine.inside import states_after_block
from mechlab.engine.rows import PlannedRow
from mechlab.hooks import Placement, attach, compile_edits

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["LiveBlock", "Work", "blocks_replaced", "head_logits", "wave_residuals"]


@dataclass
class Work:
    """What was really run.

    Attributes:
        token_layers: token positions times blocks.
        keys_only: token positions that only gave keys and values to the last block.
    """

    token_layers: int = 0
    keys_only: int = 0

    def add(self, rows: int, positions: int, *, shortened: bool = False) -> None:
        """Count one block run on `rows` rows of `positions` positions."""
        self.token_layers += rows * (1 if shortened else positions)
        self.keys_only += rows * (positions - 1) if shortened else 0


def wave_residuals(
    model: "Model", runs: BaseRuns, rows: Sequence[PlannedRow], first: int
) -> tuple[Tensor, "Work"]:
    """Run rows from the layer and position where each starts.

    Args:
        model: the model.
        runs: base runs of the pass.
        rows: rows sorted by start layer, all of them at or after padded position `first`.
        first: padded position from which on the rows are run.

    Returns:
        Residual entering the head at each row's read position, `[row, d_model]`, and the work.
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
    joined, joining_at = 0, Counter(row.layer for row in rows)
    shortened = _shortened_block(model, runs, {layer for _, layer in edits}, local)
    begun = _rows_begun(model, runs, rows, first)  # before the hooks of the wave are in force
    work = Work(sum(len(part.places) for part in begun.values()))
    with attach(model, edits) as attached:
        for layer in range(rows[0].layer, model.n_layers + 1):
            if joining := joining_at[layer]:
                bases = base_of[joined : joined + joining]
                entering = runs.kept.values["resid_pre", layer][:, first:].index_select(0, bases)
                if layer in begun:
                    entering[begun[layer].places, begun[layer].positions] = begun[layer].states
                live = torch.cat([live, entering]) if joined else entering
                joined += joining
            for write in entry_edits.get(("resid_pre", layer), ()):
                write(live)  # in place: what a block returns belongs to nobody else
            if layer < model.n_layers:
                span = range(first, runs.tokens.width)
                block = LiveBlock(model, runs, layer, base_of[:joined])
                live = block.finish(live, span) if layer == shortened else block.run(live, span)
                work.add(joined, len(span), shortened=layer == shortened)
        attached.require_all_fired(model.name)
    reads = torch.tensor([runs.tokens.reads[i] - first for i in local], device=device)
    return live[torch.arange(len(rows), device=device), reads], work


@dataclass(frozen=True)
class _Begun:
    """Rows that have started inside the block before they join.

    Attributes:
        places: their places among the rows that join with them.
        positions: column of the batch that they changed.
        states: what they brought out of that block there, `[row, d_model]`.
    """

    places: list[int]
    positions: list[int]
    states: Tensor


def _rows_begun(
    model: "Model", runs: BaseRuns, rows: Sequence[PlannedRow], first: int
) -> dict[int, _Begun]:
    """Run what starts inside a block; return it by the layer at which the rows join."""
    found: dict[int, _Begun] = {}
    for layer in dict.fromkeys(row.layer for row in rows if row.inside):
        joining = [row for row in rows if row.layer == layer]
        places = [place for place, row in enumerate(joining) if row.inside]
        some = [joining[place] for place in places]
        at = [runs.tokens.starts[runs.kept.local[row.base]] + row.pos - first for row in some]
        found[layer] = _Begun(places, at, states_after_block(model, runs, some, layer - 1))
    return found


def _shortened_block(
    model: "Model", runs: BaseRuns, edited: set[int | None], local: Sequence[int]
) -> int | None:
    """Return the last block when only its last position has to be run, else `None`."""
    last = model.n_layers - 1
    at_the_end = all(runs.tokens.reads[i] == runs.tokens.width - 1 for i in local)
    return last if runs.cache is not None and at_the_end and last not in edited else None


@dataclass(frozen=True)
class LiveBlock:
    """One block of the model, about to run on the live batch.

    Attributes:
        runs: base runs, whose other block arguments and keys and values serve the rows.
        base_of: base run of each live row, as a place in `runs`.
    """

    model: "Model"
    runs: BaseRuns
    layer: int
    base_of: Tensor

    def run(self, live: Tensor, span: range, cache: "_PrefixCache | None" = None) -> Tensor:
        """Run the block on positions `span` of every row, `[row, pos, d_model]`."""
        args, kwargs = self.runs.arguments[self.layer]
        if cache is None:
            cache = _PrefixCache(self.runs.cache, self.base_of, span)
        output = self.model.bridge.blocks[self.layer](
            live,
            *(self._fit(value, span, cache) for value in args),
            **{name: self._fit(value, span, cache) for name, value in kwargs.items()},
        )
        result: Tensor = output[0] if isinstance(output, tuple) else output
        return result

    def finish(self, live: Tensor, span: range) -> Tensor:
        """Run the block for the last position alone; the others give keys and values only.

        Returns:
            `live` with its last position replaced; the others keep their old, unread values.
        """
        if len(span) == 1:
            return self.run(live, span)
        giving = range(span.start, span.stop - 1)
        keys = _KeysOnly(self.runs.cache, self.base_of, giving)
        with self._without_queries(), suppress(_KeysKnown):
            self.run(live[:, :-1], giving, keys)
        reading = range(span.stop - 1, span.stop)
        cache = _PrefixCache(None, self.base_of, reading, keys.known)
        live[:, -1:] = self.run(live[:, -1:], reading, cache)
        return live

    @contextmanager
    def _without_queries(self) -> Iterator[None]:
        """Leave out the queries, where they have a product of their own: nothing reads them."""
        component = getattr(self.model.bridge.blocks[self.layer].attn, "q", None)
        product = None if component is None else component.original_component
        if component is None or not isinstance(product, torch.nn.Linear):
            yield
            return
        width = product.out_features
        component.__dict__["forward"] = lambda x, **_: x.new_zeros(*x.shape[:-1], width)
        try:
            yield
        finally:
            component.__dict__.pop("forward", None)

    def _fit(self, value: Any, span: range, cache: "_PrefixCache") -> Any:
        if isinstance(value, Cache):
            return cache
        if isinstance(value, tuple):
            return tuple(self._fit(part, span, cache) for part in value)
        return self._fit_tensor(value, span) if isinstance(value, Tensor) else value

    def _fit_tensor(self, value: Tensor, span: range) -> Tensor:
        """Give a block argument of the base batch the rows and positions of the live batch."""
        n_bases, width = self.runs.tokens.tokens.shape
        positions = slice(span.start, span.stop)
        if value.ndim == 4 and value.shape[-2] == width:  # mask [base or 1, 1, query, key]
            value = value[..., positions, :]
        elif value.ndim in (2, 3) and value.shape[1] == width:  # positions, rotary tables
            value = value[:, positions]
        elif value.ndim == 1 and value.shape[0] == width:
            return value[positions]
        if n_bases > 1 and value.shape[0] == n_bases:
            return value.index_select(0, self.base_of)
        return value


class _PrefixCache(DynamicCache):
    """A cache that answers an update with keys and values up to the live span, and stores nothing.

    Those of the live span come from the update; the earlier ones from the base runs, or from
    `known` where they were worked out for these very rows.
    """

    def __init__(
        self,
        base: DynamicCache | None,
        base_of: Tensor,
        span: range,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self._base = base
        self._base_of = base_of
        self._span = span
        self._known = known

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return keys and values up to the end of the span, `[row, kv_head, pos, d_head]`."""
        if self._span.start == 0:
            return key_states, value_states
        keys, values = self._known or self._of_base(layer_idx)
        return torch.cat([keys, key_states], 2), torch.cat([values, value_states], 2)

    def _of_base(self, layer: int) -> tuple[Tensor, Tensor]:
        assert self._base is not None
        kept, before = self._base.layers[layer], slice(self._span.start)
        assert kept.keys is not None and kept.values is not None
        keys, values = kept.keys[:, :, before], kept.values[:, :, before]
        return keys.index_select(0, self._base_of), values.index_select(0, self._base_of)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of positions before the live ones."""
        return self._span.start


class _KeysKnown(Exception):  # noqa: N818 - a signal, not an error
    """Ends a block's run once it has handed over its keys and values."""


class _KeysOnly(_PrefixCache):
    """Keeps what a block hands over as `known` and ends its run there."""

    known: tuple[Tensor, Tensor]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep keys and values up to the end of the span, then stop.

        Raises:
            _KeysKnown: always; the rest of the block would be thrown away.
        """
        self.known = super().update(key_states, value_states, layer_idx)
        raise _KeysKnown


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
    for chunk in residuals.contiguous().split(at_once):
        same = [lambda hidden, *args, **kwargs: hidden] * (model.n_layers - 1)
        hand_over = chunk[:, None, :]
        last = [lambda hidden, *args, _out=hand_over, **kwargs: _out]
        dummy = torch.zeros(len(chunk), 1, dtype=torch.long, device=residuals.device)
        with blocks_replaced(model, [*same, *last]):
            parts.append(model.bridge(dummy, use_cache=False)[:, -1])
    return parts[0] if len(parts) == 1 else torch.cat(parts)
