"""The claims of PH3 (Jin et al. 2024): prune memory or context heads, and the other answer wins.

RC is the share of in-context answers, RM that of memorised ones. Heads, and how many of them to
prune, are found on pairs about one half of the countries; everything is tested on the other half.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

import mechlab as ml

Claim, Condition, Outcome = ml.claims.Claim, ml.claims.Condition, ml.claims.Outcome

MIN_SHARE = 0.05
"""A share of answers has moved when it moved by five percentage points."""
MIN_SCORE = 0.01
"""A conflict score counts from a change of one per cent of the logits on."""
MIN_PAIRS = 8
"""Fewer pairs on one side are not tested."""

Side = Literal["memory", "context"]
SIDES: tuple[Side, ...] = ("memory", "context")
SIGN: dict[Side, float] = {"memory": 1.0, "context": -1.0}
"""Sign of the conflict score."""
WINNER: dict[Side, str] = {"memory": "in_context", "context": "memorised"}
"""Which answer is meant to win when these heads are pruned: RC and RM."""
SHARE: dict[Side, str] = {"memory": "RC", "context": "RM"}


@dataclass(frozen=True)
class Part:
    """Held-out pairs of one wording and relation, and what pruning does to them.

    Attributes:
        pairs: the pairs.
        pruning: result of `ml.prune_heads` with the rankings `memory` and `context`.
    """

    pairs: ml.prompts.PromptSet
    pruning: xr.Dataset

    def share(self, name: str, k: int, outcome: str) -> xr.DataArray:
        """Return whether an outcome came about, `[prompt]`."""
        return self.pruning.share.sel(head_set=name, k=k, outcome=outcome, drop=True)


@dataclass(frozen=True)
class Measured:
    """What the claims are tested on.

    Attributes:
        find: the pairs that heads were found on.
        found: their conflict scores, `[prompt, layer, head]`.
        scores: conflict scores on the held-out pairs of the same wording.
        rankings: heads by falling conflict score (`memory`) and by rising one (`context`).
        k: how many of each are pruned.
        held: held-out pairs of the wording that heads were found on.
        forms: other wordings of substitution conflicts.
        coherent: coherent conflicts.
        relations: other relations, in the wording that heads were found on.
        coherent_scores: conflict scores on coherent conflicts about the finding half.
    """

    find: ml.prompts.PromptSet
    found: xr.DataArray
    scores: xr.DataArray
    rankings: Mapping[Side, Sequence[ml.Head]]
    k: Mapping[Side, int]
    held: Part
    forms: Mapping[str, Part]
    coherent: Mapping[str, Part]
    relations: Mapping[str, Part]
    coherent_scores: Mapping[str, xr.DataArray]


# --- choosing -------------------------------------------------------------------------------------


def choose_k(pruning: xr.Dataset) -> dict[Side, int]:
    """Return for each ranking the smallest k, from 1, at which the other side wins most often."""
    found: dict[Side, int] = {}
    for side in SIDES:
        share = pruning.share.sel(head_set=side, outcome=WINNER[side]).mean("prompt")
        share = share.sel(k=share.k[share.k > 0])
        found[side] = int(share.k[int(share.argmax("k"))])  # the first of equal ones
    return found


# --- measuring ------------------------------------------------------------------------------------


def condition(
    text: str, values: xr.DataArray, pairs: ml.prompts.PromptSet, bound: float = 0.0
) -> Condition:
    """Return a condition on a mean over pairs.

    Pairs about one country are not independent, nor are those in one sentence. The interval is the
    hull of two clustered bootstraps, over countries and over sentences.
    """
    clusters = [labels for labels in (pairs.about("country"), pairs.groups) if len(set(labels)) > 1]
    return ml.claims.mean_above(text, values, bound, clusters=clusters)


def weakest(conditions: Sequence[Condition]) -> Condition:
    """Return the condition that is nearest to failing."""
    return min(conditions, key=lambda c: -np.inf if np.isnan(c.low) else c.low - c.bound)


def gain(part: Part, name: str, side: Side, k: int) -> xr.DataArray:
    """Return whether the other side won with heads pruned, minus without, `[prompt]`."""
    return part.share(name, k, WINNER[side]) - part.share(name, 0, WINNER[side])


def control_gains(part: Part, side: Side, k: int) -> dict[str, xr.DataArray]:
    """Return the same for every random set of the same layers, by name."""
    names = part.pruning.head_set.values[(part.pruning.control_of == side).values]
    return {str(name): gain(part, str(name), side, k) for name in names}


def over_random(part: Part, side: Side, k: int) -> xr.DataArray:
    """Return the rise, minus the mean rise over the random sets, `[prompt]`."""
    controls = control_gains(part, side, k)
    return gain(part, side, side, k) - sum(controls.values()) / len(controls)


def head_scores(scores: xr.DataArray, head: ml.Head, side: Side) -> xr.DataArray:
    """Return a head's conflict score with the sign of its side, `[prompt]`."""
    return SIGN[side] * scores.sel(layer=head.layer, head=head.head, drop=True)


def _too_few(measured: Measured) -> Outcome | None:
    sizes = [len(measured.find), len(measured.held.pairs)]
    if min(sizes) >= MIN_PAIRS:
        return None
    text = f"{sizes[0]} pairs to find heads on and {sizes[1]} held out; {MIN_PAIRS} are needed"
    return Outcome(note=text)


# --- the claims -----------------------------------------------------------------------------------


def heads(measured: Measured) -> Outcome:
    """The first head of each ranking, on held-out pairs."""
    if (few := _too_few(measured)) is not None:
        return few
    first = {side: measured.rankings[side][0] for side in SIDES}
    found = [
        condition(
            f"conflict score of the first {side} head{' times -1' if SIGN[side] < 0 else ''}",
            head_scores(measured.scores, first[side], side),
            measured.held.pairs,
            MIN_SCORE,
        )
        for side in SIDES
    ]
    return Outcome(tuple(found), f"at {first['memory']} and {first['context']}, held out")


def _pruned(side: Side) -> Callable[[Measured], Outcome]:
    def test(measured: Measured) -> Outcome:
        if (few := _too_few(measured)) is not None:
            return few
        k = measured.k[side]
        note = f"with {k} of the {side} heads pruned, held out"
        return Outcome(tuple(_conditions(measured.held, side, k, "")), note)

    return test


def _conditions(part: Part, side: Side, k: int, where: str) -> Iterator[Condition]:
    text = f"rise of {SHARE[side]}{where}"
    yield condition(text, gain(part, side, side, k), part.pairs, MIN_SHARE)
    text += ", minus that with random heads of the same layers"
    yield condition(text, over_random(part, side, k), part.pairs)


def _transfers(kind: str) -> Callable[[Measured], Outcome]:
    def test(measured: Measured) -> Outcome:
        parts: Mapping[str, Part] = getattr(measured, kind)
        if not parts:
            return Outcome(note="none was asked for", applies=False)
        if (few := _too_few(measured)) is not None:
            return few
        found = []
        for side in SIDES:
            each = [
                list(_conditions(part, side, measured.k[side], f" in {name}"))
                for name, part in parts.items()
            ]
            found += [weakest(list(same)) for same in zip(*each, strict=True)]
        return Outcome(tuple(found), f"in the weakest of: {', '.join(parts)}")

    return test


PAPER = "Jin et al. 2024, abstract"
BOTH = (
    "RC (memory heads pruned) and RM (context heads pruned) each rise by more than 5 percentage "
    "points, and by more than with random heads of the same layers, in every one of them."
)
CLAIMS = (
    Claim(
        "heads",
        "Some heads push the memorised answer, others the one in the context.",
        PAPER,
        "The first head of each ranking keeps its sign on held-out countries: conflict score "
        "above 0.01 (memory) and below -0.01 (context), as a fraction of the logits.",
        heads,
    ),
    Claim(
        "context_use",
        "Pruning memory heads raises the use of the context.",
        f"{PAPER} (+38.5 % on average over eight models)",
        "RC on held-out countries rises by more than 5 percentage points, and by more than with "
        "random heads of the same layers.",
        _pruned("memory"),
    ),
    Claim(
        "memory_use",
        "Pruning context heads raises the use of the memory.",
        f"{PAPER} (+44.0 % on average over eight models)",
        "The same for RM.",
        _pruned("context"),
    ),
    Claim(
        "wordings",
        "The same heads do so in other wordings of the conflict.",
        PAPER,
        BOTH,
        _transfers("forms"),
    ),
    Claim(
        "coherent",
        "The same heads do so when a whole paragraph argues for the false answer.",
        PAPER,
        BOTH,
        _transfers("coherent"),
    ),
    Claim(
        "relations", "The same heads do so for other relations.", PAPER, BOTH,
        _transfers("relations"),
    ),
)  # fmt: skip
