"""Reading plain runs: embeddings of texts, and what the model would say next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechlab.engine.forward import forward, run_bases, tokenize_bases
from mechlab.engine.rows import Base
from mechlab.engine.wavefront import blocks_replaced, head_logits
from mechlab.hooks import attach

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["NextTokens", "embed_texts", "next_tokens"]

TEXTS_AT_ONCE = 64


@dataclass(frozen=True)
class NextTokens:
    """The model's own continuation of each prompt.

    Attributes:
        tokens: most probable next token id per prompt.
        probabilities: its probability, softmax in float32.
    """

    tokens: tuple[int, ...]
    probabilities: tuple[float, ...]


def next_tokens(model: "Model", prompts: Sequence[str]) -> NextTokens:
    """Return the most probable next token after each prompt.

    Raises:
        PromptError: prompts that cannot be tokenised, all at once.
    """
    bases = [Base(prompt) for prompt in prompts]
    tokens = tokenize_bases(model, bases)
    best: list[int] = []
    sure: list[float] = []
    with model.lock, torch.no_grad():
        for start in range(0, len(bases), TEXTS_AT_ONCE):
            which = list(range(start, min(start + TEXTS_AT_ONCE, len(bases))))
            runs = run_bases(model, bases, which, tokens.select(which))
            top = head_logits(model, runs.residuals).float().softmax(-1).max(-1)
            best += top.indices.tolist()
            sure += top.values.tolist()
    return NextTokens(tuple(best), tuple(sure))


def embed_texts(model: "Model", texts: Sequence[str]) -> list[Tensor]:
    """Return the token embeddings of each text, as the `embed` site sees them.

    The blocks are skipped, so this costs next to nothing on any model.

    Returns:
        One `[pos, d_model]` tensor per text, without padding and without a beginning-of-sequence
        token.
    """
    tokens = tokenize_bases(model, [Base(text) for text in texts])
    skip = 1 if model.prepend_bos else 0
    same = [lambda hidden, *args, **kwargs: hidden] * model.n_layers
    found: list[Tensor] = []
    with model.lock, torch.no_grad():
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            which = list(range(start, min(start + TEXTS_AT_ONCE, len(texts))))
            part = tokens.select(which)
            seen: list[Tensor] = []
            with (
                blocks_replaced(model, same),
                attach(model, {}, {("embed", None): seen.append}) as attached,
            ):
                forward(model, part)
                attached.require_all_fired(model.name)
            found += [seen[-1][row, at + skip :] for row, at in enumerate(part.starts)]
    return found
