"""The claims about DeCoRe (Gema et al. 2024): answers follow the context more, memory is not lost.

Heads are found on needle prompts; conflicts and closed-book questions have no needle in them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
        facts: closed-book questions.
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
    hits = [_begins(str(t).strip(), a.strip()) for t, a in zip(texts, answers, strict=True)]
    return xr.DataArray(np.array(hits, dtype=float), dims="prompt")


def _begins(text: str, answer: str) -> bool:
    """Return whether a text begins with these words, the last one whole."""
    return text.startswith(answer) and not text[len(answer) : len(answer) + 1].isalpha()


def faithful(measured: Measured, way: str) -> xr.DataArray:
    """Return whether the answer is the one in the context, `[prompt]`."""
    return begins(measured.conflicts[way], [pair.answer for pair in measured.pairs])


def memorised(measured: Measured, way: str) -> xr.DataArray:
    """Return whether the answer is the memorised one, `[prompt]`."""
    return begins(measured.conflicts[way], [pair.wrong_answer for pair in measured.pairs])


def right(measured: Measured, way: str) -> xr.DataArray:
    """Return whether a closed-book question is answered, `[prompt]`."""
    return begins(measured.closed[way], [fact.target for fact in measured.facts])


def condition(
    text: str,
    values: xr.DataArray,
    pairs: ml.prompts.PromptSet,
    bound: float = 0.0,
) -> Condition:
    """Return a condition on a mean over conflicts, drawn by country and by sentence."""
    return ml.claims.mean_above(text, values, bound, clusters=_clusters(pairs))


def _clusters(pairs: ml.prompts.PromptSet) -> list[list[object]]:
    return [list(one) for one in (pairs.about("country"), pairs.groups) if len(set(one)) > 1]


def over_controls(text: str, measured: Measured) -> Condition:
    """Return the condition that more answers are faithful than with random heads.

    Which heads were drawn is chance as well: the interval is the hull over countries, sentences,
    and draws.
    """
    own, controls = faithful(measured, CONTRAST), measured.controls
    gap = np.concatenate([(own - faithful(measured, way)).values for way in controls])
    clusters = [labels * len(controls) for labels in _clusters(measured.pairs)]
    clusters += [np.repeat(controls, len(own)).tolist()] if len(controls) > 1 else []
    return ml.claims.mean_above(text, xr.DataArray(gap, dims="prompt"), 0.0, clusters=clusters)


def kept(text: str, lost: xr.DataArray, most: float) -> Condition:
    """Return the condition that less than `most` of the answers are lost.

    Where all questions agree a bootstrap has no width. Then the binomial bound is taken: of n none
    was another, so at most 1 - 0.025^(1/n) of all are.
    """
    found = ml.claims.mean_above(text, most - lost)
    if found.high - found.low > 1e-9:
        return found
    others = 1 - 0.025 ** (1 / lost.sizes["prompt"])
    return replace(found, low=found.value - others * (1 - float(lost.mean())))


def _faithful(measured: Measured) -> Outcome:
    rise = faithful(measured, CONTRAST) - faithful(measured, BASE)
    return Outcome(
        (
            condition("rise of in-context answers", rise, measured.pairs, MIN_RISE),
            over_controls("in-context answers beyond random heads", measured),
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
            kept(f"{MAX_LOSS} minus the fall of accuracy", loss, MAX_LOSS),
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
        "Accuracy is above 50 %, and falls by less than 5 percentage points.",
        _closed_book,
    ),
)
