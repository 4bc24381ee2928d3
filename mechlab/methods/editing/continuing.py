"""Token rows run once up to the edited layer, then only what an added vector changes.

A vector added at the subject's last token changes no earlier position and no earlier layer. So the
rows are run once, without gradients; from then on only the blocks from the edited one on are run,
on the positions from the first such token on, with the first run's keys and values in the place of
what came before. `plain=True` runs everything each time: the reference, and the way on models on
which the engine was not proven equal to plain runs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mechlab.engine import verify
from mechlab.engine.activations import _groups
from mechlab.engine.forward import BaseRuns, Tokens, run_bases
from mechlab.engine.rows import Base
from mechlab.engine.wavefront import LiveBlock, head_logits
from mechlab.methods.editing.modules import Projection, reading_inputs, shifting_outputs
from mechlab.methods.editing.rows import TokenRow
from mechlab.models.tokens import pad_left

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Change", "Started", "at_entry", "at_projection", "start", "through_weight", "unchanged"]


@dataclass(frozen=True)
class Started:
    """Rows of one batch after their first run.

    Attributes:
        model: the model.
        rows: the rows.
        tokens: padded on the left.
        runs: what the first run left behind; `None` when everything is to be run each time.
        entry: block from which on they are continued.
        keys: inputs of the projection at the lookups, `[row, d_in]`, where one was given.
        states: residual entering block `entry` at the lookups, `[row, d_model]`.
        plain: whether `continued` runs everything anew.
    """

    model: "Model"
    rows: tuple[TokenRow, ...]
    tokens: Tokens
    runs: BaseRuns
    entry: int
    keys: Tensor | None
    states: Tensor
    plain: bool

    @property
    def owners(self) -> Tensor:
        """Index of the request of each row."""
        return torch.tensor([row.owner for row in self.rows], device=self.model.device)

    @property
    def lookups(self) -> Tensor:
        """Padded position of the subject's last token in each row."""
        at = [s + row.lookup for s, row in zip(self.tokens.starts, self.rows, strict=True)]
        return torch.tensor(at, device=self.model.device)

    @property
    def reads(self) -> tuple[Tensor, Tensor]:
        """Row and padded position of each prediction that counts, rows in order."""
        pairs = [
            (index, start + position)
            for index, (start, row) in enumerate(zip(self.tokens.starts, self.rows, strict=True))
            for position in row.reads
        ]
        found = torch.tensor(pairs, device=self.model.device)
        return found[:, 0], found[:, 1]

    def continued(self, change: "Change", *, everywhere: bool = False) -> Tensor:
        """Return the logits at the reads with a change made, `[read, vocab]`.

        Args:
            change: what to change, a context manager that takes the first position run.
            everywhere: whether the change may touch any position (else: the lookups only).
        """
        rows, positions = self.reads
        if self.plain:
            with change(self, 0):
                return _whole(self.model, self.tokens)[rows, positions]
        cut = self.runs.cache is not None and not everywhere
        first = int(self.lookups.min()) if cut else 0
        span = range(first, self.tokens.width)
        base_of = torch.arange(len(self.rows), device=self.model.device)
        live = self.runs.kept.values["resid_pre", self.entry][:, first:]
        with change(self, first) as enter:
            live = live if enter is None else enter(live)
            for layer in range(self.entry, self.model.n_layers):
                live = LiveBlock(self.model, self.runs, layer, base_of).run(live, span)
        return head_logits(self.model, live[rows, positions - first])


Change = Callable[[Started, int], Any]
"""`change(batch, first)`: a context in which the change is made; may yield a function that is
called with the residual entering the first block."""


def start(
    model: "Model",
    rows: Sequence[TokenRow],
    entry: int,
    *,
    reading: Projection | None = None,
    plain: bool = False,
    at_once: int = 128,
) -> list[Started]:
    """Run rows once, in batches, and keep what continuing them needs.

    Args:
        model: the model.
        rows: the rows.
        entry: block from which on they will be continued, `n_layers` for the head alone.
        reading: a projection whose inputs at the lookups are kept.
        plain: whether continuing shall run everything anew.
        at_once: rows per batch.
    """
    exact = verify(model).padding_exact
    groups = _groups([len(row.ids) for row in rows], at_once, mixed=exact)
    return [_start(model, [rows[i] for i in which], entry, reading, plain) for which in groups]


def _start(
    model: "Model",
    rows: Sequence[TokenRow],
    entry: int,
    reading: Projection | None,
    plain: bool,
) -> Started:
    tokens = padded(model, rows)
    seen: list[Tensor] = []
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(model.lock)
        if reading is not None:
            stack.enter_context(reading_inputs(reading.module, seen.append))
        runs = run_bases(
            model,
            [Base(text) for text in tokens.prompts],
            range(len(rows)),
            tokens,
            entries=(entry,),
            keep_cache=model.has_attention and not plain,
        )
    index = torch.arange(len(rows), device=model.device)
    at = torch.tensor(
        [s + row.lookup for s, row in zip(tokens.starts, rows, strict=True)], device=model.device
    )
    keys = seen[-1][index, at].detach() if seen else None
    states = runs.kept.values["resid_pre", entry][index, at]
    return Started(model, tuple(rows), tokens, runs, entry, keys, states, plain)


def padded(model: "Model", rows: Sequence[TokenRow]) -> Tokens:
    """Put rows side by side, padded on the left."""
    tokens, mask = pad_left([row.ids for row in rows], model._encoder.filler)
    width = int(tokens.shape[1])
    starts = tuple(width - len(row.ids) for row in rows)
    device = model.device
    names = tuple(f"row {index}" for index in range(len(rows)))
    return Tokens(tokens.to(device), mask.to(device), starts, names, (width - 1,) * len(rows))


def _whole(model: "Model", tokens: Tokens) -> Tensor:
    """Run the whole model and return all logits, `[row, pos, vocab]`."""
    options: dict[str, Any] = {"use_cache": False}
    if not bool(tokens.mask.all()):
        options["attention_mask"] = tokens.mask
        if model.has_attention:
            options["position_ids"] = (tokens.mask.cumsum(-1) - 1).clamp(min=0)
    logits: Tensor = model.bridge(tokens.tokens, **options)
    return logits


def at_projection(place: Projection, delta: Tensor) -> Change:
    """Return the change that adds `delta[owner]` to a projection's output at each lookup."""

    @contextmanager
    def change(batch: Started, first: int) -> Iterator[None]:
        index = torch.arange(len(batch.rows), device=delta.device)
        added = delta[batch.owners]

        def shift(_: Tensor, output: Tensor) -> Tensor:
            wide = added.new_zeros(len(added), output.shape[-1])
            wide[:, place.outputs] = added
            return _add_at(output, (index, batch.lookups - first), wide)

        with shifting_outputs(place.module, shift):
            yield

    return change


def at_entry(delta: Tensor) -> Change:
    """Return the change that adds `delta[owner]` to the residual that enters the first block."""

    @contextmanager
    def change(batch: Started, first: int) -> Iterator[Callable[[Tensor], Tensor]]:
        index = torch.arange(len(batch.rows), device=delta.device)

        def enter(live: Tensor) -> Tensor:
            return _add_at(live, (index, batch.lookups - first), delta[batch.owners])

        if not batch.plain:
            yield enter
            return
        previous = batch.model.bridge.blocks[batch.entry - 1]

        def hook(_: Any, __: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (enter(output[0]), *output[1:])
            return enter(output)

        handle = previous.register_forward_hook(hook)
        try:
            yield enter
        finally:
            handle.remove()

    return change


def through_weight(place: Projection, change_of_weight: Tensor) -> Change:
    """Return the change that adds dW k to a projection's output everywhere."""

    @contextmanager
    def change(batch: Started, first: int) -> Iterator[None]:
        def shift(keys: Tensor, output: Tensor) -> Tensor:
            added = torch.nn.functional.linear(keys.to(change_of_weight.dtype), change_of_weight)
            wide = added.new_zeros(output.shape)
            wide[..., place.outputs] = added
            return (output.to(wide.dtype) + wide).to(output.dtype)

        with shifting_outputs(place.module, shift):
            yield

    return change


def unchanged(batch: Started, first: int) -> Any:
    """Change nothing."""
    return nullcontext()


def _add_at(tensor: Tensor, index: tuple[Tensor, Tensor], values: Tensor) -> Tensor:
    """Return the tensor with values added in their own precision, then cast."""
    wide = tensor.to(torch.promote_types(tensor.dtype, values.dtype))
    return wide.index_put(index, values.to(wide.dtype), accumulate=True).to(tensor.dtype)
