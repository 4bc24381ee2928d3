"""`retrieval_score`: which heads copy the needle's tokens into the answer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.engine import Decoded
from mechlab.engine.options import HINTS
from mechlab.errors import OptionError
from mechlab.methods.retrieval.copying import copies, head_scores
from mechlab.methods.retrieval.layout import Laid, lay_out
from mechlab.methods.retrieval.rouge import rouge1_recall
from mechlab.methods.retrieval.writing import Task, check_writing, read_text, write
from mechlab.progress import Journal, ProgressCallback
from mechlab.prompts import NeedlePrompt, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["prompt_coordinates", "retrieval_score"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Read:
    """One continuation, kept as one flat array of int32.

    Attributes:
        stopped: whether it ended by itself.
        tokens: what was written.
        attended: most attended positions, axes (step, layer, head).
        mass: attention on the needle, mean over steps, axes (layer, head).
    """

    stopped: bool
    tokens: tuple[int, ...]
    attended: Array
    mass: Array

    @staticmethod
    def packed(decoded: Decoded, grid: tuple[int, int]) -> Array:
        """Return the array."""
        steps = len(decoded.tokens)
        attended = _first(decoded.attended, steps, grid, -1)
        mass = _first(decoded.mass, steps, grid, np.nan)
        mean = mass.mean(axis=0) if steps else np.full(grid, np.nan)
        bits = mean.astype(np.float32).ravel().view(np.int32)
        front = [int(decoded.stopped), steps, *decoded.tokens]
        return np.concatenate([front, attended.ravel(), bits]).astype(np.int32)

    @classmethod
    def unpacked(cls, packed: Array, grid: tuple[int, int]) -> "_Read":
        """Return what was packed."""
        steps = int(packed[1])
        tokens, rest = packed[2 : 2 + steps], packed[2 + steps :]
        attended, bits = np.split(rest, [steps * grid[0] * grid[1]])
        mass = np.ascontiguousarray(bits).view(np.float32).reshape(grid)
        written = tuple(int(token) for token in tokens)
        return cls(bool(packed[0]), written, attended.reshape(steps, *grid), mass)


def _first(array: Array | None, steps: int, grid: tuple[int, int], filler: float) -> Array:
    """Return the first steps of what the engine read; nothing was read when nothing was written."""
    if array is None or not steps:
        return np.full((0, *grid), filler)
    return array[:steps]


@analysis(version=1, prompt_kind="needle", default_plot="head_grid", per_prompt=False)
def retrieval_score(
    model: "Model",
    haystacks: PromptSet[Any] | Sequence[NeedlePrompt] | NeedlePrompt,
    *,
    max_new_tokens: int = 50,
    stop: str | None = None,
    success: float = 50.0,
    dedupe: bool = True,
    chat: bool = False,
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> xr.Dataset:
    """Score every query head by the part of the needle that it copies into the answer.

    Wu et al. 2024 (arXiv 2404.15574), section 2: the model answers greedily; a head copies a token
    when the position that it attends to most lies in the needle's answer and holds the token that
    is written at that step. Its score on a prompt is the share of the answer's tokens that it
    copied. Heads whose mean is at least 0.1 are retrieval heads: `ml.retrieval_heads`.

    Args:
        model: a decoder with attention.
        haystacks: needle prompts, as `ml.prompts.needles` makes them.
        max_new_tokens: at most so many tokens are written.
        stop: writing ends before the first token that holds one of these characters; by default
            what each prompt says, a line feed for questions. The model's end of text always counts.
        success: a prompt counts as answered when the ROUGE-1 recall of the answer's words exceeds
            this, in per cent.
        dedupe: whether each needle token counts once (the published formula, scores up to 1), or
            every time that it is copied (the published code, no upper limit).
        chat: whether prompts are put into the tokenizer's chat template.
        max_batch: upper bound on prompts continued at once; changes no number beyond rounding.
        progress: called after each prompt; may raise `Cancelled`.
        journal: keeps finished prompts, so that a killed run resumes.

    Returns:
        Dataset with `score[prompt, layer, head]`, the share of the needle's tokens copied;
        `retrieval_score`, the same where the model answered (`success`) and NaN elsewhere, so that
        its mean over prompts is the published score, P(copy | success); `retrieval_score_all`, the
        same on every prompt with a needle; `active`, 1 where at least one token was copied, so that
        its mean is the activation frequency; `mass`, the attention on the needle's tokens, mean
        over steps; `hits[prompt, layer, head, needle_pos]`, which needle token was copied;
        `attended[prompt, step, layer, head]`, the most attended position, -1 behind the last step;
        `rouge1_recall[prompt]` in per cent, `success[prompt]`, `text[prompt]` as written, and
        `stopped[prompt]`, whether it ended by itself. Coordinates of the prompt: `needle`,
        `length` (tokens asked for), `tokens` (tokens read), `depth` (per cent), `found` (whether
        there is a needle; without one all scores are NaN), `answer`, `needle_start`,
        `needle_tokens`; `needle_token[prompt, needle_pos]` and `token[prompt, step]`, empty where
        there is none. `head` counts query heads, also under grouped queries.

    Raises:
        OptionError: an option outside its range, or a chat template that is not there.
        SiteError: a model without attention.
        PromptError: prompts that cannot be laid out: too long for the context, needle not found
            after tokenisation, haystack too short; all at once.
        ModelError: a model whose attention cannot be followed while it writes.
        Cancelled: when `progress` asked to stop.

    Differs from the paper: the answer's tokens are located exactly, by character offsets, not by
    overlap of token sets; the position-set score is the default; failed prompts are kept. Words of
    ROUGE are not stemmed.
    """
    started = time.time()
    options = {n: v for n, v in locals().items() if n not in {*HINTS, "haystacks"}}
    check_writing(
        model, max_new_tokens=max_new_tokens, stop=stop, success=success, max_batch=max_batch
    )
    if not isinstance(dedupe, bool):
        raise OptionError(f"dedupe={dedupe!r}. Allowed: True, False. Choose one of these.")
    prompts = as_prompt_set(haystacks, kind="needle")
    laid = lay_out(model, prompts, chat=chat)
    grid = (model.n_layers, model.n_heads or 0)
    packed = write(
        model,
        prompts,
        laid,
        [Task(index) for index in range(len(prompts))],
        max_new_tokens=max_new_tokens,
        stop=stop,
        attention=True,
        max_batch=max_batch,
        pack=lambda _, decoded: _Read.packed(decoded, grid),
        journal=journal,
        report=progress,
    )
    reads = [_Read.unpacked(one, grid) for one in packed]
    counts = [
        copies(read.attended, read.tokens, one.tokens, one.answer)
        for read, one in zip(reads, laid, strict=True)
    ]
    texts = [read_text(model, read.tokens) for read in reads]
    return new_result(
        {
            **_scores(prompts, laid, counts, texts, success=success, dedupe=dedupe),
            **_written(reads, laid, grid),
            "text": ("prompt", texts),
        },
        {
            **prompt_coordinates(prompts, laid),
            **_token_coordinates(model, laid, reads),
            "layer": np.arange(grid[0]),
            "head": np.arange(grid[1]),
        },
        method="retrieval_score",
        version=1,
        model=model,
        prompts=prompts,
        options=options,
        seed=None,
        started=started,
    ).assign_attrs(
        formula="share of needle positions" if dedupe else "copies per needle token",
        success_rule=f"ROUGE-1 recall > {success:g} %",
    )


def _scores(
    prompts: PromptSet[NeedlePrompt],
    laid: Sequence[Laid],
    counts: Sequence[Array],
    texts: Sequence[str],
    *,
    success: float,
    dedupe: bool,
) -> dict[str, Any]:
    """Return what follows from counts `[layer, head, needle_pos]` and answers, one per prompt."""
    cell, unit = ("prompt", "layer", "head"), {"units": "share of needle tokens"}
    score = np.stack([head_scores(one, dedupe=dedupe) for one in counts])
    recall = np.array(
        [rouge1_recall(t, p.answer) for t, p in zip(texts, prompts, strict=True)], dtype=float
    )
    answered = recall > success
    there = np.array([one.found for one in laid])[:, None, None]
    active = np.stack([(one > 0).any(axis=-1) for one in counts]).astype(float)
    hits = np.zeros((*score.shape, max(one.shape[-1] for one in counts)), dtype=bool)
    for index, one in enumerate(counts):
        hits[index, ..., : one.shape[-1]] = one > 0
    return {
        "retrieval_score": (cell, np.where(answered[:, None, None], score, np.nan), unit),
        "retrieval_score_all": (cell, score, unit),
        "score": (cell, score, unit),
        "active": (cell, np.where(there, active, np.nan), {"units": "share of prompts"}),
        "hits": ((*cell, "needle_pos"), hits),
        "rouge1_recall": ("prompt", recall, {"units": "per cent"}),
        "success": ("prompt", answered),
    }


def _written(reads: Sequence[_Read], laid: Sequence[Laid], grid: tuple[int, int]) -> dict[str, Any]:
    """Return where heads attended while the answers were written."""
    longest = max(len(read.tokens) for read in reads)
    attended = np.full((len(reads), longest, *grid), -1, dtype=np.int32)
    for index, read in enumerate(reads):
        attended[index, : len(read.tokens)] = read.attended
    there = [
        read.mass if one.found else np.nan * read.mass
        for read, one in zip(reads, laid, strict=True)
    ]
    return {
        "mass": (("prompt", "layer", "head"), np.stack(there), {"units": "attention weight"}),
        "attended": (("prompt", "step", "layer", "head"), attended, {"units": "position"}),
        "stopped": ("prompt", [read.stopped for read in reads]),
    }


def prompt_coordinates(prompts: PromptSet[NeedlePrompt], laid: Sequence[Laid]) -> dict[str, Any]:
    """Return the coordinates of the axis `prompt`."""
    columns: dict[str, Sequence[Any]] = {
        "needle": [prompt.needle_name for prompt in prompts],
        "length": [p.length or len(one.tokens) for p, one in zip(prompts, laid, strict=True)],
        "tokens": [len(one.tokens) for one in laid],
        "depth": [float(prompt.depth) if prompt.needle else np.nan for prompt in prompts],
        "found": [one.found for one in laid],
        "answer": [prompt.answer.strip() for prompt in prompts],
        "needle_start": [one.answer[0] if one.answer else -1 for one in laid],
        "needle_tokens": [len(one.answer) for one in laid],
    }
    return {"prompt": list(prompts.labels)} | {n: ("prompt", v) for n, v in columns.items()}


def _token_coordinates(
    model: "Model", laid: Sequence[Laid], reads: Sequence[_Read]
) -> dict[str, Any]:
    """Return the tokens of needles and answers as text."""
    needles = [[one.tokens[place] for place in one.answer] for one in laid]
    written = [read.tokens for read in reads]

    def table(rows: Sequence[Sequence[int]]) -> list[list[str]]:
        width = max(map(len, rows))
        return [[*map(model.token_string, row), *[""] * (width - len(row))] for row in rows]

    def shaped(rows: Sequence[Sequence[int]]) -> Array:
        return np.array(table(rows), dtype=str).reshape(len(rows), -1)

    return {
        "needle_token": (("prompt", "needle_pos"), shaped(needles)),
        "token": (("prompt", "step"), shaped(written)),
        "needle_pos": np.arange(max(map(len, needles))),
        "step": np.arange(max(map(len, written))),
    }
