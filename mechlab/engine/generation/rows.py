"""What is asked of the generation engine and what it returns; checked before anything runs."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from mechlab.engine.generation.masks import HeadMask
from mechlab.errors import OptionError, PromptError

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = [
    "Choose",
    "DecodeRow",
    "Decoded",
    "check_groups",
    "check_sequences",
    "check_stop",
    "check_watch",
    "context_of",
    "greedy",
]

Choose = Callable[[Tensor, int, Sequence[int]], Tensor]
"""From logits `[row, vocab]` (float32) of the rows of one batch that are still running, the step,
and their numbers in the order of the groups laid end to end, to one token id per row. The rows of a
group stand side by side, in order. It must depend on its arguments alone: when memory runs out, a
batch is begun again."""


@dataclass(frozen=True)
class DecodeRow:
    """One continuation of one prompt: which prompt, by index, and the heads masked in it."""

    prompt: int
    mask: HeadMask | None = None


@dataclass(frozen=True, eq=False)
class Decoded:
    """What one row generated.

    Attributes:
        tokens: the tokens, without the one that stopped it.
        stopped: whether a stop token came in the row's group, rather than the end of
            `max_new_tokens` or of the context.
        logprob: `[step]`, float64, log-probability of each token by this row's own logits, nats.
        attended: `[step, layer, head]`, int32, position (in prompt and generated tokens) that the
            query that produced the token attends to most, the first of equals; or `None`.
        mass: `[step, layer, head]`, float32, sum of that query's attention over the watched
            positions of the prompt; or `None`.
    """

    tokens: tuple[int, ...]
    stopped: bool
    logprob: np.ndarray
    attended: np.ndarray | None = None
    mass: np.ndarray | None = None


def greedy(logits: Tensor, step: int, rows: Sequence[int]) -> Tensor:
    """Return each row's most probable token, the first of equals; a `Choose`."""
    return logits.argmax(-1)


def context_of(model: "Model") -> int | None:
    """Return the longest sequence in tokens.

    Tables of the rotation named `longrope` are switched for the whole sequence once it exceeds the
    original context; keys that were kept from before do not fit the new ones, so it ends there.
    """
    found = getattr(model.hf.config, "rope_parameters", None) or {}
    kinds = [found, *(kind for kind in found.values() if isinstance(kind, dict))]
    limits = [
        int(kind["original_max_position_embeddings"])
        for kind in kinds
        if kind.get("rope_type") == "longrope"
    ]
    if model.n_ctx is not None:
        limits.append(model.n_ctx)
    return min(limits, default=None)


def check_sequences(
    model: "Model",
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]] | None = None,
) -> None:
    """Refuse prompts that are empty, hold no token ids, or leave no room in the context.

    Args:
        model: the model.
        prompts: token ids of each.
        continuations: token ids that follow each prompt; one new token where left out.

    Raises:
        PromptError: naming all.
    """
    context = context_of(model)
    problems = []
    for index, prompt in enumerate(prompts):
        after = None if continuations is None else continuations[index]
        extra = 1 if after is None else len(after)
        tokens = [*prompt, *(after or ())]
        outside = [t for t in tokens if not _is_id(t) or not 0 <= t < model.d_vocab]
        if not len(prompt):
            problems.append(f"prompt {index}: no token")
        if after is not None and not len(after):
            problems.append(f"continuation {index}: no token")
        if outside:
            problems.append(f"prompt {index}: no token ids: {outside[:3]}")
        if context is not None and len(prompt) + extra > context:
            problems.append(f"prompt {index}: {len(prompt)} tokens and {extra} to follow")
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems[:20])
        more = f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise PromptError(
            f"prompts that {model.name} cannot continue:{listed}{more}\n  Allowed: at least one "
            f"token, ids from 0 to {model.d_vocab - 1}, and a context of {context} tokens for "
            "prompt and continuation together. Shorten or correct these."
        )


def check_groups(groups: Sequence[Sequence[DecodeRow]], n_prompts: int) -> None:
    """Refuse groups without rows, and rows of prompts that are not there.

    Raises:
        OptionError: naming all.
    """
    empty = [index for index, group in enumerate(groups) if not len(group)]
    rows = [row for group in groups for row in group]
    outside = sorted({row.prompt for row in rows if not 0 <= row.prompt < n_prompts})
    if empty or outside:
        raise OptionError(
            f"groups {empty} without rows, rows of prompts {outside}. Allowed: at least one row "
            f"per group, prompts from 0 to {n_prompts - 1}. Correct these."
        )


def check_stop(model: "Model", stop: Collection[int]) -> frozenset[int]:
    """Return the stop tokens.

    Raises:
        OptionError: naming those that are no token ids of the model.
    """
    if isinstance(stop, str) or not isinstance(stop, Collection):
        raise OptionError(f"stop={stop!r}. Allowed: a list of token ids. Put it in brackets.")
    wrong = [token for token in stop if not _is_id(token) or not 0 <= token < model.d_vocab]
    if wrong:
        raise OptionError(
            f"stop: {wrong} are no token ids. Allowed: 0 to {model.d_vocab - 1}. Correct them."
        )
    return frozenset(int(token) for token in stop)


def check_watch(
    watch: Sequence[Sequence[int]] | None, prompts: Sequence[Sequence[int]], *, attention: bool
) -> None:
    """Refuse positions to watch that are not in their prompt, or that nothing would read.

    Raises:
        OptionError: naming all.
    """
    if watch is None:
        return
    if not attention or len(watch) != len(prompts):
        raise OptionError(
            f"watch: {len(watch)} lists of positions, attention={attention}. Allowed: one list per "
            f"prompt ({len(prompts)}) together with attention=True. Give these."
        )
    wrong = [
        f"prompt {index}: {bad}"
        for index, (places, prompt) in enumerate(zip(watch, prompts, strict=True))
        if (bad := [p for p in places if not _is_id(p) or not 0 <= p < len(prompt)])
    ]
    if wrong:
        raise OptionError(
            f"watch: positions outside the prompt ({'; '.join(wrong[:10])}). Allowed: from 0 to "
            "the prompt's last token. Correct them."
        )


def _is_id(token: object) -> bool:
    return isinstance(token, int | np.integer) and not isinstance(token, bool)
