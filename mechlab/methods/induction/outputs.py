"""What the model says at chosen positions, for several sets of ablated heads, reduced at once."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mechlab.engine.wavefront import head_logits
from mechlab.methods.induction.ablating import HeadSet, Runner
from mechlab.methods.induction.rows import Laid, same_length
from mechlab.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["losses", "read_outputs", "set_coordinates"]

Array = np.ndarray[Any, Any]
AT_ONCE = 256
"""Positions whose logits are held at once."""


def read_outputs(
    runner: Runner,
    sets: Sequence[HeadSet],
    laid: Sequence[Laid],
    queries: Sequence[Sequence[int]],
    says: Callable[[int, Tensor, Sequence[int]], Tensor],
    *,
    max_batch: int | None = None,
    report: ProgressCallback | None = None,
) -> list[list[Array]]:
    """Read log-probabilities of the next token, set by set.

    Args:
        runner: runs rows.
        sets: heads that are ablated together.
        laid: prompts.
        queries: for each prompt the positions whose prediction is read.
        says: from the index of a prompt, log-probabilities `[query, vocab]` and those positions to
            what is kept, `[query, ...]`.
        max_batch: upper bound on rows per batch.
        report: called after each batch.

    Returns:
        Per set and prompt what was kept, float64.
    """
    model = runner.model
    rows = [one.tokens for one in laid]
    found: list[list[Array]] = [[np.empty(0)] * len(laid) for _ in sets]
    done, total = 0, len(rows) * len(sets)
    for which in same_length(model, rows, max_batch):
        tokens = torch.tensor([rows[i] for i in which], device=model.device)
        for number, one in enumerate(sets):
            final = runner.of(one.heads).final(tokens)
            for local, index in enumerate(which):
                found[number][index] = _kept(model, final[local], index, queries[index], says)
            done += len(which)
            if report is not None:
                report(Progress(done, total, "prompts"))
    return found


def _kept(
    model: "Model",
    final: Tensor,
    index: int,
    queries: Sequence[int],
    says: Callable[[int, Tensor, Sequence[int]], Tensor],
) -> Array:
    parts = []
    for start in range(0, len(queries), AT_ONCE):
        some = queries[start : start + AT_ONCE]
        with model.lock, torch.no_grad():
            logits = head_logits(model, final[torch.tensor(some, device=final.device)])
            parts.append(says(index, logits.float().log_softmax(-1), some).double().cpu().numpy())
    whole: Array = np.concatenate(parts)
    return whole


def losses(
    runner: Runner,
    sets: Sequence[HeadSet],
    laid: Sequence[Laid],
    queries: Sequence[Sequence[int]],
    **options: Any,
) -> list[list[Array]]:
    """Return per set and prompt the loss of the token after each query, in nats."""

    def next_token(index: int, logs: Tensor, some: Sequence[int]) -> Tensor:
        tokens = [laid[index].tokens[query + 1] for query in some]
        return -logs[torch.arange(len(some)), torch.tensor(tokens, device=logs.device)]

    return read_outputs(runner, sets, laid, queries, next_token, **options)


def set_coordinates(sets: Sequence[HeadSet]) -> dict[str, Any]:
    """Return the coordinates of the axis `head_set`."""
    columns: Mapping[str, list[Any]] = {
        "members": ["+".join(map(str, one.heads)) for one in sets],
        "k": [len(one.heads) for one in sets],
    }
    return {"head_set": [one.name for one in sets]} | {
        name: ("head_set", values) for name, values in columns.items()
    }
