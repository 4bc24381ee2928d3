"""Logits of given continuations, under masks."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechlab.engine.generation.masks import HeadMask, check_masks, prefix_mask
from mechlab.engine.generation.paths import Paths
from mechlab.engine.generation.proof import check_attention, proven_twin
from mechlab.engine.generation.rows import check_sequences
from mechlab.engine.options import check_whole
from mechlab.errors import OptionError
from mechlab.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["continuation_logits"]


def continuation_logits(
    model: "Model",
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    masks: Sequence[HeadMask | None],
    *,
    chunk: int = 512,
    progress: ProgressCallback | None = None,
) -> Iterator[Tensor]:
    """Return the logits that predict the tokens of given continuations.

    Items that follow each other and begin alike share what they begin with, so put the
    continuations of one prompt side by side.

    Args:
        model: the model; it is left bitwise as found, and its lock is held while an item runs.
        prompts: token ids of each item's prompt.
        continuations: token ids of each item's continuation.
        masks: heads masked per item. Phase `all` masks the whole sequence, `decode` only the
            positions that predict the continuation (the prompt's last token and those after it).
        chunk: tokens that are computed at once.
        progress: called after each item; may raise `Cancelled`.

    Yields:
        Per item, in order: `[token, vocab]`, float32; row i predicts token i of the continuation.

    Raises:
        PromptError: prompts or continuations that are empty or exceed the context, all at once.
        OptionError, SiteError: options or heads that do not exist. All before anything runs.
        ModelError: a model on which fast attention is not equal to the bridge's.
    """
    check_attention(model)
    check_whole("chunk", chunk, at_least=1)
    if not len(prompts) == len(continuations) == len(masks):
        raise OptionError(
            f"{len(prompts)} prompts, {len(continuations)} continuations, {len(masks)} masks. "
            "Allowed: as many of each. Give one continuation and one mask (or None) per prompt."
        )
    check_masks(model, masks)
    check_sequences(model, prompts, continuations)
    items = list(zip(prompts, continuations, masks, strict=True))
    return _logits(model, items, chunk, progress)


def _logits(
    model: "Model",
    items: list[tuple[Sequence[int], Sequence[int], HeadMask | None]],
    chunk: int,
    progress: ProgressCallback | None,
) -> Iterator[Tensor]:
    if not items:
        return
    longest = max(len(prompt) + len(after) for prompt, after, _ in items)
    with model.lock, torch.no_grad():
        paths = Paths(model, proven_twin(model), capacity=longest, chunk=chunk)
    for done, (prompt, after, mask) in enumerate(items, start=1):
        with model.lock, torch.no_grad():
            paths.refresh()
            path = paths.path(prefix_mask(mask))
            path.reach(prompt[:-1])
            logits = path.peek([prompt[-1], *after[:-1]], mask)
        if progress is not None:
            progress(Progress(done, len(items), "continuations"))
        yield logits
