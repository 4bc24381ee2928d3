"""How likely objects are after prompts: teacher-forced, packed, exact.

Rows are padded on the right: no causal model looks ahead, so padding changes nothing and needs no
mask, on recurrent models neither. A text that is the beginning of another one is not run: what the
model predicts inside the longer text is what it would predict at the end of the shorter one.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mechlab.engine.batching import rows_that_fit
from mechlab.engine.one_pass import in_one_pass
from mechlab.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Score", "logits_at", "score_continuations"]

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """One object after one prompt.

    Attributes:
        nll: negative log-probability per token of the object, mean, in nats.
        accuracy: share of its tokens that are the model's top token.
        tokens: how many tokens it has.
    """

    nll: float
    accuracy: float
    tokens: int


def score_continuations(
    model: "Model",
    prompts: Sequence[str],
    objects: Sequence[str],
    *,
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> list[Score]:
    """Score each object after its prompt, all of its tokens.

    Args:
        model: any decoder.
        prompts: texts.
        objects: one for each prompt, with or without a leading space.
        max_batch: rows that run side by side.
        progress: called between batches.

    Raises:
        PromptError: prompts and objects that cannot be tokenised or do not fit into the context,
            all at once, before anything runs.
    """
    objects_ids = model.answer_tokens(prompts, objects, answer="full")
    prompt_ids = _prompt_ids(model, prompts)
    pairs = list(zip(prompt_ids, objects_ids, strict=True))
    texts = [(*prompt, *answer[:-1]) for prompt, answer in pairs]
    rows, row_of = _longest(texts)
    wanted: list[list[tuple[int, int, int]]] = [[] for _ in rows]  # column, token, index of pair
    for index, (text, (prompt, answer)) in enumerate(zip(texts, pairs, strict=True)):
        first = len(prompt) - 1
        wanted[row_of[text]] += [(first + n, token, index) for n, token in enumerate(answer)]
    sums = [0.0] * len(pairs)
    hits = [0] * len(pairs)
    columns = [sorted({column for column, *_ in of_row}) for of_row in wanted]
    done = 0
    for which, logits in logits_at(model, rows, columns, max_batch=max_batch):
        flat = {(row, c): n for n, (row, c) in enumerate((r, c) for r in which for c in columns[r])}
        reads = [(flat[row, c], token, index) for row in which for c, token, index in wanted[row]]
        at = torch.tensor([read[0] for read in reads], device=logits.device)
        tokens = torch.tensor([read[1] for read in reads], device=logits.device)
        total, top = logits.logsumexp(-1), logits.argmax(-1)
        losses = (total[at] - logits[at, tokens]).tolist()
        right = (top[at] == tokens).tolist()
        for (_, _, index), loss, hit in zip(reads, losses, right, strict=True):
            sums[index] += loss
            hits[index] += hit
        done += len(which)
        if progress is not None:
            progress(Progress(done, len(rows), "texts"))
    return [
        Score(total / len(answer), hit / len(answer), len(answer))
        for total, hit, (_, answer) in zip(sums, hits, pairs, strict=True)
    ]


def _prompt_ids(model: "Model", prompts: Sequence[str]) -> list[Tokens]:
    distinct = list(dict.fromkeys(prompts))
    batch = model.tokenize(distinct)
    ids = {text: tuple(batch.row(n).tolist()) for n, text in enumerate(distinct)}
    return [ids[text] for text in prompts]


def _longest(texts: Sequence[Tokens]) -> tuple[list[Tokens], dict[Tokens, int]]:
    """Return the texts that begin no other one, longest last, and which of them holds each text."""
    ordered = sorted(set(texts))  # whatever begins with a text follows right after it
    holder: dict[Tokens, Tokens] = {}
    for text, after in zip(reversed(ordered), [(), *reversed(ordered)], strict=False):
        holder[text] = holder[after] if after[: len(text)] == text else text
    rows = sorted({*holder.values()}, key=lambda row: (len(row), row))
    number = {row: n for n, row in enumerate(rows)}
    return rows, {text: number[held] for text, held in holder.items()}


def logits_at(
    model: "Model",
    rows: Sequence[Tokens],
    columns: Sequence[Sequence[int]],
    *,
    max_batch: int | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Run rows of tokens and hand over the logits of some of their positions.

    The model's lock is held while a batch runs.

    Args:
        model: any decoder.
        rows: token ids; similar lengths should stand together.
        columns: per row the positions to read.
        max_batch: rows that run side by side.

    Yields:
        Numbers of the rows of a batch, and logits `[read, vocab]` of their positions, row after
        row, in float32 (float64 on a float64 model).
    """
    keeps = "logits_to_keep" in inspect.signature(model.hf.forward).parameters
    start = 0
    while start < len(rows):
        which = _batch(model, rows, start, max_batch)
        start += len(which)
        width = max(len(rows[row]) for row in which)
        tokens = torch.zeros(len(which), width, dtype=torch.long)
        for n, row in enumerate(which):
            tokens[n, : len(rows[row])] = torch.tensor(rows[row])
        read = sorted({column for row in which for column in columns[row]})
        options: dict[str, Any] = {"use_cache": False}
        if keeps and len(read) < width:
            options["logits_to_keep"] = torch.tensor(read, device=model.device)
        else:
            read = list(range(width))
        place = {column: n for n, column in enumerate(read)}
        at = [(n, place[c]) for n, row in enumerate(which) for c in columns[row]]
        index = torch.tensor(at, device=model.device).reshape(-1, 2)
        with model.lock, torch.no_grad(), in_one_pass(model):
            logits = model.bridge(tokens.to(model.device), **options)
        found = logits[index[:, 0], index[:, 1]]
        yield which, found if found.dtype == torch.float64 else found.float()


def _batch(model: "Model", rows: Sequence[Tokens], start: int, max_batch: int | None) -> list[int]:
    """Return the rows from `start` on that fit into one batch."""
    width = len(rows[start])
    which, fits = [start], rows_that_fit(model, width, max_batch)
    for row in range(start + 1, len(rows)):
        if len(rows[row]) > width:
            width = len(rows[row])
            fits = rows_that_fit(model, width, max_batch)
        if len(which) >= fits:
            break
        which.append(row)
    return which
