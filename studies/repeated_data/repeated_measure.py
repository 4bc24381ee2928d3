"""What is measured of models that read some of their rows again and again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from repeated_language import rows_of, text_of

import mechlab as ml

Prompts = ml.prompts.PromptSet[Any]
COPIES = 4
"""How often a paragraph is read."""
HELD_OUT = (20220520, 205, 10487)
"""Seed of the rows that no model is trained on; trainings have seeds of one to three numbers whose
second one is 0, 1 or 2."""
EDGE = 8
"""Words over which late and early losses are averaged, for the ICL score."""


@dataclass(frozen=True)
class Held:
    """What every model reads, none of it in any training.

    Attributes:
        lists: repeated lists of distinct random words.
        paragraphs: texts that repeat nothing on purpose; each is read `COPIES` times.
        texts: rows as in the training.
    """

    lists: Prompts
    paragraphs: Prompts
    texts: Prompts
    words: int
    """Of each text, and of all copies of a paragraph or a list together, at most."""


def held_out(count: int, words: int, copied: float) -> Held:
    """Return `count` lists, paragraphs and texts each."""
    draws = np.random.default_rng(HELD_OUT)
    paragraphs = rows_of(draws, count, words // COPIES, 0.0)
    texts = rows_of(draws, count, words, copied)
    return Held(
        ml.prompts.repeated_tokens(count, words // 2),
        ml.prompts.texts(map(text_of, paragraphs), name="paragraphs"),
        ml.prompts.texts(map(text_of, texts), name="held-out rows"),
        words,
    )


def measure(store: ml.Store, models: Sequence[Sequence[ml.Model]], held: Held) -> xr.Dataset:
    """Measure models `[repeats, seed]`.

    Returns:
        Dataset over `(repeats, seed, ...)`, without coordinates of the first two:
        `prefix_matching` and `copying` (behavioural, logits), each summed over heads, `[list]`;
        `best_head`, the largest prefix matching of a head, `[list]`; `copy_loss[paragraph, copy]`;
        `test_loss[text]`, mean over words; `icl[text]`, late minus early loss. Losses in nats.
    """
    rows = [xr.concat([_of_one(store, one, held) for one in row], "seed") for row in models]
    return xr.concat(rows, "repeats")


def _of_one(store: ml.Store, model: ml.Model, held: Held) -> xr.Dataset:
    heads, last = ["layer", "head"], held.words - 1
    scores = store.run(ml.induction_scores, model, held.lists).prefix_matching
    copying = store.run(ml.copying_scores, model, held.lists, kind="behavioural")
    copied = store.run(ml.copy_loss, model, held.paragraphs, copies=COPIES, first_token=False)
    windows = {
        "icl": ((last - EDGE + 1, last), (EDGE // 2, EDGE // 2 + EDGE - 1)),
        "test_loss": ((0, last), (0, 0)),
    }
    read = {
        name: store.run(ml.icl_score, model, held.texts, hi=last, lo=EDGE // 2, window=window).isel(
            head_set=0
        )
        for name, window in windows.items()
    }
    best = scores.mean("prompt").argmax(heads)
    found = {
        "prefix_matching": ("list", scores.sum(heads).values),
        "best_head": ("list", scores.isel(best).values),
        "copying": ("list", copying.copying_by_prompt.sum(heads).values),
        "copy_loss": (("paragraph", "copy"), copied.loss.isel(head_set=0).values),
        "test_loss": ("text", read["test_loss"].loss_hi_windowed.values),
        "icl": ("text", read["icl"].score_windowed.values),
    }
    return xr.Dataset(found, {"copy": range(1, COPIES + 1)})
