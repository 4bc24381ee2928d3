"""Resuming inside a block: from the heads' outputs on, at one position.

A row whose first change is a write at one position leaves that block's attention as it was in the
base run. So only this position has to be run, and only from `z` on: output projection, MLP. The
block's own forward does it, with its attention replaced by one that starts from the kept `z`.
Whether an architecture can be resumed like this is proved when a model is verified.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mechlab.hooks import AddNoise, Freeze, Intervention, Placement, attach, compile_edits

if TYPE_CHECKING:
    from mechlab.engine.forward import BaseRuns
    from mechlab.engine.rows import PlannedRow
    from mechlab.models import Model

__all__ = ["attention_replaced", "starts_inside", "states_after_block"]

SITES_AFTER_ATTENTION = frozenset({"z", "attn_out", "resid_mid", "mlp_out"})


def starts_inside(steps: Sequence[Intervention], pos: int) -> bool:
    """Whether the steps of a row's first block all write after its attention, at `pos` alone."""
    return all(
        not isinstance(step, AddNoise | Freeze)
        and step.site.name in SITES_AFTER_ATTENTION
        and step.site.pos == pos
        for step in steps
    )


def states_after_block(
    model: "Model", runs: "BaseRuns", rows: Sequence["PlannedRow"], layer: int
) -> Tensor:
    """Return what leaves block `layer` at each row's first touched position, `[row, d_model]`."""
    device = runs.residuals.device
    local = [runs.kept.local[row.base] for row in rows]
    which = torch.tensor(local, device=device)
    at = torch.tensor(
        [runs.tokens.starts[i] + row.pos for i, row in zip(local, rows, strict=True)], device=device
    )
    entering = runs.kept.values["resid_pre", layer][which, at][:, None]
    z = runs.kept.values["z", layer][which, at].flatten(1)[:, None]
    # Each row is one column wide here: its prompt is placed so that `pos` falls on column 0.
    placement = Placement([-row.pos for row in rows], [], 1, model.d_model)
    edits = compile_edits([row.inside for row in rows], placement, runs.kept, device=device)
    attention = model.bridge.blocks[layer].attn

    def from_z(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        return attention.hook_out(attention.o(z)), None

    args, kwargs = runs.arguments[layer]
    with attach(model, edits) as attached, attention_replaced(attention, from_z):
        output = model.bridge.blocks[layer](entering, *args, **kwargs)
        attached.require_all_fired(model.name)
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result[:, 0]


@contextmanager
def attention_replaced(attention: Any, function: Callable[..., Any]) -> Iterator[None]:
    """Let an attention component run `function` instead of itself, through its own dictionary.

    A plain assignment would be forwarded to the wrapped Hugging Face module and stay there.
    """
    attention.__dict__["forward"] = function
    try:
        yield
    finally:
        attention.__dict__.pop("forward", None)
