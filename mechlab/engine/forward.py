"""Whole forward passes: base runs with what they leave behind, packed runs and plain runs.

Everything here calls the model's own forward with hooks attached, so it serves both as the engine's
first stage and as the slow route against which the wavefront is checked.
"""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from mechlab.engine.rows import Base, PlannedRow
from mechlab.errors import ModelError
from mechlab.hooks import (
    Intervention,
    Kept,
    Place,
    Placement,
    attach,
    capture,
    compile_edits,
)

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["BaseRuns", "Tokens", "packed_residuals", "run_bases", "tokenize_bases"]


@dataclass(frozen=True)
class Tokens:
    """Tokens of the base runs of one pass, left-padded side by side.

    Attributes:
        tokens, mask: `[base, pos]`.
        starts: first real position of each base.
        prompts: texts.
        reads: padded position whose logits are read, per base.
    """

    tokens: Tensor
    mask: Tensor
    starts: tuple[int, ...]
    prompts: tuple[str, ...]
    reads: tuple[int, ...]

    @property
    def width(self) -> int:
        """Number of padded positions."""
        return int(self.tokens.shape[1])

    def select(self, which: Sequence[int], *, cut: bool = True) -> "Tokens":
        """Return the rows `which`, without the columns that are padding in all of them."""
        skip = min(self.starts[i] for i in which) if cut else 0
        index = torch.tensor(which, device=self.tokens.device)
        return Tokens(
            self.tokens[index, skip:],
            self.mask[index, skip:],
            tuple(self.starts[i] - skip for i in which),
            tuple(self.prompts[i] for i in which),
            tuple(self.reads[i] - skip for i in which),
        )


@dataclass
class BaseRuns:
    """What the base runs of one pass left behind.

    Attributes:
        kept: activations; `("resid_pre", l)` is what entered block l, `l == n_layers` the head.
        arguments: for each block the positional and keyword arguments besides the residual.
        cache: keys and values of every block, or `None` when not asked for.
        residuals: final residual at the read positions, `[base, d_model]`.
    """

    tokens: Tokens
    kept: Kept
    residuals: Tensor
    arguments: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)
    cache: DynamicCache | None = None


def tokenize_bases(model: "Model", bases: Sequence[Base]) -> Tokens:
    """Tokenise the prompts of base runs, each distinct text once."""
    texts = list(dict.fromkeys(base.prompt for base in bases))
    batch = model.tokenize(texts)
    row_of = {text: row for row, text in enumerate(texts)}
    rows = [row_of[base.prompt] for base in bases]
    starts = tuple(batch.starts[row] for row in rows)
    reads = tuple(
        batch.width - 1 if base.read_pos is None else start + base.read_pos
        for base, start in zip(bases, starts, strict=True)
    )
    index = torch.tensor(rows, device=batch.tokens.device)
    return Tokens(
        batch.tokens[index], batch.mask[index], starts, tuple(base.prompt for base in bases), reads
    )


def forward(model: "Model", tokens: Tokens, cache: DynamicCache | None = None) -> Tensor:
    """Run the whole model and return the logits of the last position, `[row, 1, vocab]`.

    Padded rows get an explicit mask and explicit positions; unpadded batches run without either,
    exactly as a plain call would.
    """
    options: dict[str, Any] = {"use_cache": cache is not None}
    if cache is not None:
        options["past_key_values"] = cache
    if not bool(tokens.mask.all()):
        options["attention_mask"] = tokens.mask
        if model.has_attention:
            options["position_ids"] = (tokens.mask.cumsum(-1) - 1).clamp(min=0)
    if "logits_to_keep" in inspect.signature(model.hf.forward).parameters:
        options["logits_to_keep"] = 1
    logits: Tensor = model.bridge(tokens.tokens, **options)
    return logits


def _run(
    model: "Model",
    tokens: Tokens,
    interventions: Sequence[Sequence[Intervention]],
    source: Kept | None,
    captures: Mapping[Place, Any],
    cache: DynamicCache | None = None,
) -> Tensor:
    """Run the model with row-wise interventions; return the final residual, `[row, pos, d]`.

    Raises:
        ModelError: prompts of different length on a model whose padding is known not to be exact.
    """
    padded = not bool(tokens.mask.all())
    if padded and model.checks is not None and not model.checks.padding_exact:
        raise ModelError(
            f"prompts of different length on {model.name} ({model.family}, {model.dtype}): "
            "left padding changes its numbers.\n  Allowed: prompts of one length in tokens.\n"
            "  Run prompts of different length one by one, or load the model in float32."
        )
    placement = Placement(tokens.starts, tokens.prompts, tokens.width, model.d_model)
    edits = compile_edits(interventions, placement, source, device=tokens.tokens.device)
    last: Place = ("resid_post", model.n_layers - 1)
    final: list[Tensor] = []

    def read_final(tensor: Tensor) -> None:
        final.append(tensor)
        if last in captures:
            captures[last](tensor)
        raise _BlocksDone

    with attach(model, edits, {**captures, last: read_final}) as attached:
        with suppress(_BlocksDone):  # the head would be run for nothing
            forward(model, tokens, cache)
        attached.require_all_fired(model.name)
    return final[-1]


class _BlocksDone(Exception):  # noqa: N818 - a signal, not an error
    """Ends a run once the last block has left its residual."""


def run_bases(
    model: "Model",
    bases: Sequence[Base],
    which: Sequence[int],
    tokens: Tokens,
    *,
    entries: Sequence[int] = (),
    places: Sequence[Place] = (),
    keep_cache: bool = False,
) -> BaseRuns:
    """Run the base runs of one pass once and keep what its rows will need, and nothing else.

    Args:
        model: the model.
        bases: all base runs of the call.
        which: those of this pass.
        tokens: tokens of those of this pass.
        entries: blocks whose input residual is kept, `n_layers` meaning the head's.
        places: further places to keep.
        keep_cache: whether keys and values are kept (attention models only).

    Returns:
        What the runs left behind.
    """
    kept = Kept(tuple(which), tokens.starts)
    wanted = dict.fromkeys(places)
    wanted.update({("resid_pre", layer): None for layer in entries})
    final_place: Place = ("resid_pre", model.n_layers)
    captures = {place: capture(kept, place) for place in wanted if place != final_place}
    cache = DynamicCache(config=model.hf.config) if keep_cache else None
    arguments: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    with ExitStack() as stack:
        for layer, block in enumerate(model.bridge.blocks):

            def keep_arguments(
                module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], layer: int = layer
            ) -> None:
                rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
                arguments[layer] = (args[1:], rest)

            handle = block.register_forward_pre_hook(keep_arguments, with_kwargs=True)
            stack.callback(handle.remove)
        interventions = [bases[i].interventions for i in which]
        final = _run(model, tokens, interventions, None, captures, cache)
    if final_place in wanted:
        kept.values[final_place] = final.clone()
    reads = torch.tensor(tokens.reads, device=final.device)
    residuals = final[torch.arange(len(which), device=final.device), reads]
    return BaseRuns(tokens, kept, residuals, arguments, cache)


def packed_residuals(
    model: "Model",
    runs: BaseRuns,
    rows: Sequence[PlannedRow],
    captures: Mapping[Place, Any] | None = None,
    *,
    unpadded: bool = False,
) -> Tensor:
    """Run rows side by side through the whole model; return residuals `[row, d_model]`.

    Args:
        model: the model.
        runs: base runs of the pass, with the places the rows read kept under their raw names.
        rows: rows of the pass.
        captures: places to read on the way, with all rows in one tensor.
        unpadded: cut the rows to the width they need (one row alone then has no padding).
    """
    local = [runs.kept.local[row.base] for row in rows]
    tokens = runs.tokens.select(local, cut=unpadded)
    final = _run(model, tokens, [row.raw for row in rows], runs.kept, captures or {})
    reads = torch.tensor(tokens.reads, device=final.device)
    return final[torch.arange(len(rows), device=final.device), reads]
