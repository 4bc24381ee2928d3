"""Reading plain runs: activations, embeddings of texts, and what the model would say next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechlab.engine.forward import forward, run_bases, tokenize_bases
from mechlab.engine.rows import Base, Row, check_rows
from mechlab.engine.wavefront import blocks_replaced, head_logits
from mechlab.hooks import SITES, Place, Scale, Site, attach

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["NextTokens", "Recording", "embed_texts", "next_tokens", "record"]

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


@dataclass(frozen=True)
class Recording:
    """What one base run looked like inside, in the positions of its unpadded prompt.

    Attributes:
        base: index of the base run in the call.
        values: place -> `[pos, d_model]`, `[pos, head, d_head]` (`kv_head` for `k` and `v`), or
            `[head, query, key]` for `scores` and `pattern`.
        final: residual entering the final norm at the read position, `[d_model]`.
        logits: logits at the read position, `[vocab]`.
    """

    base: int
    values: dict[Place, Tensor]
    final: Tensor
    logits: Tensor


def record(
    model: "Model", bases: Sequence[Base], places: Sequence[Place], *, at_once: int = 16
) -> Iterator[Recording]:
    """Run base runs and hand over their activations, one prompt after the other.

    Args:
        model: the model; its lock is held while a group of prompts runs.
        bases: prompts, perhaps with interventions of their own.
        places: what to keep, as (site, layer).
        at_once: prompts that run side by side; only their activations are in memory.

    Yields:
        One recording per base, in order.

    Raises:
        SiteError: a place that does not exist on the model, is unproven, or never fired.
        PromptError: prompts that cannot be tokenised, all at once.
    """
    tokens = tokenize_bases(model, bases)
    lengths = [tokens.width - start for start in tokens.starts]
    sites = [Site(name, layer) for name, layer in places]
    wanted = [Row(0, (Scale(site, 1.0),)) for site in sites]  # checked as if they were written
    check_rows(model, bases, wanted, lengths, {})
    padding = model.checks is None or model.checks.padding_exact
    for which in _groups(lengths, at_once, mixed=padding):
        with model.lock, torch.no_grad():
            runs = run_bases(model, bases, which, tokens.select(which), places=places)
            logits = head_logits(model, runs.residuals)
        for row, base in enumerate(which):
            start = runs.tokens.starts[row]
            yield Recording(
                base,
                {place: _unpadded(runs.kept.values[place][row], place, start) for place in places},
                runs.residuals[row],
                logits[row],
            )


def _groups(lengths: Sequence[int], at_once: int, *, mixed: bool) -> Iterator[list[int]]:
    """Yield consecutive prompts; of one length each where padding is not exact."""
    group: list[int] = []
    for index, length in enumerate(lengths):
        if group and (len(group) == at_once or not (mixed or length == lengths[group[0]])):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _unpadded(value: Tensor, place: Place, start: int) -> Tensor:
    if SITES[place[0]].axes == "bhqk":
        return value[:, start:, start:]
    return value[start:]
