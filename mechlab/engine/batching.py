"""How rows are cut into batches: by start position, start layer and memory."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import psutil
import torch

from mechlab.engine.rows import PlannedRow
from mechlab.errors import MechlabError

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = [
    "Batch",
    "cut_batches",
    "free_bytes",
    "is_out_of_memory",
    "positions_per_chunk",
    "rows_that_fit",
    "with_back_off",
]

TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 32768}
"""Token positions per batch. On two CPU cores a trace of GPT-2 small with 20 tokens took a tenth
longer with 1,024, and as long with 4,096. The CUDA figure is a guess."""

WEIGHTS_TIMES_POSITIONS = {"cpu": 4e11, "cuda": 4e13}
"""Work between two readings, as block weights times token positions: about 5 s on two cores."""

TOKENS_WORTH_A_BATCH = {"cpu": 96, "cuda": 1024}
"""Rows of neighbouring start positions share a batch until it has this many token positions."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Batch:
    """Rows that run together from padded position `first` on, sorted by start layer."""

    rows: tuple[PlannedRow, ...]
    first: int


def positions_per_chunk(model: "Model") -> int:
    """Return after how many token positions batches are read out and kept, a few seconds' work."""
    seconds_of_work = WEIGHTS_TIMES_POSITIONS.get(model.device.type, WEIGHTS_TIMES_POSITIONS["cpu"])
    return int(seconds_of_work / (12 * model.n_layers * model.d_model**2))


def rows_that_fit(model: "Model", width: int, max_batch: int | None) -> int:
    """Return how many rows of `width` positions one batch may hold.

    The limit is the token budget of the device, lowered when free memory is short, so that the
    same call is cut in the same way on every run unless memory really is short.

    Args:
        model: the model.
        width: positions per row.
        max_batch: upper bound set by the user.
    """
    budget = TOKENS_PER_BATCH.get(model.device.type, TOKENS_PER_BATCH["cpu"]) // width
    fits = int(0.4 * free_bytes(model.device) / row_bytes(model, width))
    return max(1, min(budget, fits, max_batch or budget))


def row_bytes(model: "Model", width: int) -> int:
    """Return a generous estimate of the memory one live row takes, in bytes."""
    per_position = 24 * model.d_model + 2 * width * (model.n_heads or 0)
    return (per_position * width + model.d_vocab) * max(4, model.dtype.itemsize)


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def cut_batches(
    model: "Model",
    rows: Sequence[PlannedRow],
    starts: dict[int, int],
    width: int,
    *,
    suffix: bool,
    max_batch: int | None,
) -> list[Batch]:
    """Cut rows into batches of one start position each.

    Args:
        model: the model.
        rows: rows of one pass.
        starts: first real padded position per base.
        width: padded positions of the pass.
        suffix: whether a batch may leave out the positions before its first touched one.
        max_batch: upper bound on rows per batch.

    Returns:
        Batches; within each the rows are sorted by start layer, as the wavefront needs them.
    """
    by_first: dict[int, list[PlannedRow]] = defaultdict(list)
    for row in rows:
        by_first[starts[row.base] + row.pos if suffix else 0].append(row)
    batches = []
    for first, members in _merge_small(model, by_first, width):
        members.sort(key=lambda row: (row.layer, row.index))
        step = rows_that_fit(model, width - first, max_batch)
        n_batches = -(-len(members) // step)
        even = -(-len(members) // n_batches)
        batches += [
            Batch(tuple(members[i : i + even]), first) for i in range(0, len(members), even)
        ]
    return batches


def _merge_small(
    model: "Model", by_first: dict[int, list[PlannedRow]], width: int
) -> Iterator[tuple[int, list[PlannedRow]]]:
    """Yield groups by start position; a group too small for a batch joins the next earlier one."""
    worth = TOKENS_WORTH_A_BATCH.get(model.device.type, TOKENS_WORTH_A_BATCH["cpu"])
    waiting: list[PlannedRow] = []
    for first in sorted(by_first, reverse=True):
        waiting += by_first[first]
        if len(waiting) * (width - first) >= worth or first == min(by_first):
            yield first, waiting
            waiting = []


def with_back_off(
    run: Callable[[Batch], Result], batch: Batch, join: Callable[[Result, Result], Result]
) -> Result:
    """Run a batch; when memory runs out, halve it and try again.

    Raises:
        MechlabError: when a single row does not fit.
    """
    try:
        return run(batch)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if len(batch.rows) == 1:
            raise MechlabError(
                "out of memory with a single row in the batch. Use a shorter prompt, a smaller "
                "dtype (bfloat16) or a device with more memory."
            ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(batch.rows) // 2
    halves = (Batch(batch.rows[:middle], batch.first), Batch(batch.rows[middle:], batch.first))
    return join(with_back_off(run, halves[0], join), with_back_off(run, halves[1], join))


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out; on CPU only the text tells."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)
