"""Greedy and guided decoding of many rows, with attention read while it is there.

1. Rows are cut into batches (`batches`); the prompts of a batch are visited in sorted order, and
   each is computed up to its last token but one, from where it departs from the last (`path`).
2. The last token of each prompt is the first decoding step; each step runs one token per row
   (`steps`). A batch of one prompt reads keys and values where they lie, others from a copy.
3. A group that stops leaves the batch.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from mechlab.engine.batching import is_out_of_memory
from mechlab.engine.generation.batches import decode_batches
from mechlab.engine.generation.masks import check_masks
from mechlab.engine.generation.paths import Paths
from mechlab.engine.generation.proof import check_attention, proven_twin
from mechlab.engine.generation.rows import (
    Choose,
    Decoded,
    DecodeRow,
    check_groups,
    check_sequences,
    check_stop,
    check_watch,
    greedy,
)
from mechlab.engine.generation.running import Batch, Job
from mechlab.engine.options import check_whole
from mechlab.errors import MechlabError
from mechlab.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["decode"]


def decode(
    model: "Model",
    prompts: Sequence[Sequence[int]],
    groups: Sequence[Sequence[DecodeRow]],
    *,
    max_new_tokens: int,
    stop: Collection[int] = (),
    choose: Choose = greedy,
    attention: bool = False,
    watch: Sequence[Sequence[int]] | None = None,
    chunk: int = 512,
    at_once: int | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[tuple[int, list[Decoded]]]:
    """Continue prompts token by token.

    No pattern of queries by keys is ever built: memory grows linearly with length. Prompts that
    begin alike are computed once as far as they do.

    Args:
        model: the model; it is left bitwise as found, and its lock is held while a batch runs.
        prompts: token ids of each prompt, as the model is to see them (BOS included).
        groups: rows decoded side by side. Rows of one group are always in one batch and stop
            together, when the first of them meets a stop token or the end of the context; the
            token of that step is kept by none of them.
        max_new_tokens: most tokens per row.
        stop: token ids that end a row.
        choose: picks the tokens; see `Choose`.
        attention: whether the most attended position per step, layer and head is returned.
        watch: positions per prompt whose summed attention is returned too.
        chunk: tokens of a prompt that are computed at once.
        at_once: most rows per batch (a larger group still runs); `None` goes by memory.
        progress: called after each batch, with groups done; may raise `Cancelled`.

    Yields:
        Index of a group and its rows' results, in the order of the group; groups in any order.

    Raises:
        PromptError: prompts that are empty or leave no room in the context, all at once.
        OptionError, SiteError: options or heads that do not exist. All before anything runs.
        ModelError: a model on which fast attention is not equal to the bridge's.
        MechlabError: when a single group does not fit into memory.
    """
    check_attention(model)
    check_whole("max_new_tokens", max_new_tokens, at_least=1)
    check_whole("chunk", chunk, at_least=1)
    check_whole("at_once", at_once, at_least=1, optional=True)
    check_groups(groups, len(prompts))
    check_watch(watch, prompts, attention=attention)
    check_masks(model, [row.mask for group in groups for row in group])
    check_sequences(model, prompts)
    job = Job(
        model, prompts, groups, max_new_tokens, check_stop(model, stop), choose, attention, watch
    )
    return _decoded(job, chunk, at_once, progress)


def _decoded(
    job: Job, chunk: int, at_once: int | None, progress: ProgressCallback | None
) -> Iterator[tuple[int, list[Decoded]]]:
    if not job.groups:
        return
    longest = max(len(job.prompts[row.prompt]) for group in job.groups for row in group)
    with job.model.lock, torch.no_grad():
        twin = proven_twin(job.model)
        queue = list(
            decode_batches(
                job.model,
                job.prompts,
                job.groups,
                max_new_tokens=job.max_new_tokens,
                at_once=at_once,
            )
        )
    paths = Paths(job.model, twin, capacity=longest, chunk=chunk)
    done = 0
    while queue:
        batch = queue.pop(0)
        with job.model.lock, torch.no_grad():
            paths.refresh()
            found = _with_back_off(Batch(job, paths, batch).run, batch, queue)
        if found is None:
            continue
        done += len(batch)
        if progress is not None:
            progress(Progress(done, len(job.groups), "groups"))
        yield from found


def _with_back_off(
    run: Callable[[], list[tuple[int, list[Decoded]]]], batch: list[int], queue: list[list[int]]
) -> list[tuple[int, list[Decoded]]] | None:
    """Run a batch; when memory runs out, put its halves in front of the queue and return `None`.

    Raises:
        MechlabError: when a single group does not fit.
    """
    try:
        return run()
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if len(batch) == 1:
            raise MechlabError(
                "out of memory with a single group of rows. Use a shorter prompt, fewer rows per "
                "group, a smaller dtype (bfloat16) or a device with more memory."
            ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(batch) // 2
    queue[:0] = [batch[:middle], batch[middle:]]
    return None
