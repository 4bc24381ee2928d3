"""The claims about DeCoRe (Gema et al. 2024): answers follow the context more, memory is not lost.

Heads are found on needle prompts; conflicts and closed-book questions have no needle in them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

import mechlab as ml

Claim, Condition, Outcome = ml.claims.Claim, ml.claims.Condition, ml.claims.Outcome

MIN_RISE = 0.02
"""A share of answers has risen when it rose by two percentage points."""
MAX_LOSS = 0.05
"""Closed-book accuracy is kept when it falls by less than five percentage points."""


@dataclass(frozen=True)
class Measured:
    """What the claims are tested on.

    Attributes:
        pairs: conflicts between context and memory.
        facts: closed-book questions that the model answers.
        heads: heads masked in the contrasted branch.
        conflicts: `ml.generate` on the conflicts, by way of decoding.
        closed: the same on the closed-book questions.
        controls: ways of decoding that contrast random heads.
    """

    pairs: ml.prompts.PromptSet
    facts: ml.prompts.PromptSet
    heads: Sequence[ml.Head]
    conflicts: Mapping[str, xr.Dataset]
    closed: Mapping[str, xr.Dataset]
    controls: Sequence[str]


BASE, CONTRAST = "base", "DeCoRe"


def begins(result: xr.Dataset, answers: Sequence[str]) -> xr.DataArray:
    """Return whether each text begins with its answer, `[prompt]`, as 0 or 1."""
    texts = result["text"].values
    hits = [str(t).strip().startswith(a.strip()) for t, a in zip(texts, answers, strict=True)]
    return xr.DataArray(np.array(hits, dtype=float), dims="prompt")


def faithful(measured: Measured, way: str) -> xr.DataArray:
    """Return whether the answer is the one in the context, `[prompt]`."""
    return begins(measured.conflicts[way], [pair.answer for pair in measured.pairs])


def memorised(measured: Measured, way: str) -> xr.DataArray:
    """Return whether the answer is the memorised one, `[prompt]`."""
    return begins(measured.conflicts[way], [pair.wrong_answer for pair in measured.pairs])


def right(measured: Measured, way: str) -> xr.DataArray:
    """Return whether a closed-book question is answered, `[prompt]`."""
    return begins(measured.closed[way], [fact.target for fact in measured.facts])


def over_controls(measured: Measured) -> xr.DataArray:
    """Return the faithful share with these heads, minus its mean over random heads, `[prompt]`."""
    random = sum(faithful(measured, way) for way in measured.controls) / len(measured.controls)
    return faithful(measured, CONTRAST) - random


def condition(
    text: str, values: xr.DataArray, pairs: ml.prompts.PromptSet, bound: float
) -> Condition:
    """Return a condition on a mean over conflicts, drawn by country and by sentence."""
    clusters = [labels for labels in (pairs.about("country"), pairs.groups) if len(set(labels)) > 1]
    return ml.claims.mean_above(text, values, bound, clusters=clusters)


def _faithful(measured: Measured) -> Outcome:
    rise = faithful(measured, CONTRAST) - faithful(measured, BASE)
    return Outcome(
        (
            condition("rise of in-context answers", rise, measured.pairs, MIN_RISE),
            condition("the same beyond random heads", over_controls(measured), measured.pairs, 0.0),
        ),
        f"with {len(measured.heads)} heads contrasted",
    )


def _closed_book(measured: Measured) -> Outcome:
    if not len(measured.facts):
        return Outcome(note="the model answers no question")
    loss = right(measured, BASE) - right(measured, CONTRAST)
    return Outcome(
        (
            ml.claims.mean_above("accuracy without a contrast", right(measured, BASE), 0.5),
            ml.claims.mean_above(f"{MAX_LOSS} minus the fall of accuracy", MAX_LOSS - loss, 0.0),
        )
    )


PAPER = "Gema et al. 2024, section 4"
CLAIMS = (
    Claim(
        "faithful",
        "Contrasting retrieval heads makes answers follow the context more often.",
        f"{PAPER} (NQ-Swap, MemoTrap)",
        "The share of in-context answers rises by more than 2 percentage points, and by more than "
        "with random heads.",
        _faithful,
    ),
    Claim(
        "closed_book",
        "Closed-book answers are as good as before.",
        f"{PAPER} (TriviaQA, PopQA)",
        "Accuracy on questions that the model answers falls by less than 5 percentage points.",
        _closed_book,
    ),
)
