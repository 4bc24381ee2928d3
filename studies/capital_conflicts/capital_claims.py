"""The claims of Yu et al. 2023 about memory heads and in-context heads, as tests on measurements.

The sign everywhere: `answer` is what the context states, `wrong_answer` what the model memorised.
A positive attribution writes the in-context answer, a negative one the memorised answer.

Heads and factors are chosen on pairs about one half of the countries and tested on the other half.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

import mechlab as ml

Claim, Condition, Outcome = ml.claims.Claim, ml.claims.Condition, ml.claims.Outcome

MIN_LOGITS = 0.1
"""An attribution counts from a tenth of a logit on: it changes odds by a tenth."""
MIN_SHARE = 0.05
"""A share of answers has moved when it moved by five percentage points."""
MIN_PAIRS = 8
"""Fewer pairs on one side are not tested."""

Side = Literal["memory", "context"]
SIGN: dict[Side, float] = {"memory": -1.0, "context": 1.0}
WINNER: dict[Side, str] = {"memory": "in_context", "context": "memorised"}
"""Which answer is meant to win when a head of this kind is scaled."""


@dataclass(frozen=True)
class Part:
    """Some pairs, what each head writes on them, and what scaling heads does.

    Attributes:
        pairs: the pairs.
        attribution: logit difference written directly, `[prompt, layer, head]`.
        scaling: result of `ml.scale_heads` with the sets `memory` and `context`.
    """

    pairs: ml.prompts.PromptSet
    attribution: xr.DataArray
    scaling: xr.Dataset

    def share(self, name: str, alpha: float, outcome: str) -> xr.DataArray:
        """Return whether an outcome came about, `[prompt]`."""
        return self.scaling.share.sel(head_set=name, alpha=alpha, outcome=outcome, drop=True)


@dataclass(frozen=True)
class Measured:
    """What the claims are tested on.

    Attributes:
        select, held: the halves, in the wording that heads and factors are chosen on.
        others: held-out pairs in other wordings.
        heads: the strongest memory head and in-context head of `select`.
        alpha: the factor for each that does most on `select`.
    """

    select: Part
    held: Part
    others: Mapping[str, Part]
    heads: Mapping[Side, ml.Head]
    alpha: Mapping[Side, float]


# --- choosing -------------------------------------------------------------------------------------


def choose_heads(attribution: xr.DataArray) -> dict[Side, ml.Head]:
    """Return the heads that write most of the memorised and of the in-context answer."""
    mean = attribution.mean("prompt")
    return {side: ml.top_heads(SIGN[side] * mean, k=1)[0] for side in SIGN}


def choose_alpha(scaling: xr.Dataset) -> dict[Side, float]:
    """Return for each head the factor at which its opponent wins most often, nearest to 1."""
    found: dict[Side, float] = {}
    for side in SIGN:
        share = scaling.share.sel(head_set=side, outcome=WINNER[side]).mean("prompt")
        best = share.alpha.values[share.values >= float(share.max()) - 1e-9]
        found[side] = float(min(best, key=lambda alpha: (abs(alpha - 1), alpha)))
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


def written(part: Part, head: ml.Head, side: Side) -> xr.DataArray:
    """Return how much a head writes of its own answer, `[prompt]`, in logits."""
    return SIGN[side] * part.attribution.sel(layer=head.layer, head=head.head, drop=True)


def gain(part: Part, name: str, side: Side, alpha: float) -> xr.DataArray:
    """Return whether the opponent won with a set scaled, minus without, `[prompt]`."""
    scaled = part.share(name, alpha, WINNER[side])
    return scaled - part.share(name, 1.0, WINNER[side])


def control_gains(part: Part, side: Side, alpha: float) -> dict[str, xr.DataArray]:
    """Return the same for every random set of a head's layer, by name."""
    return {name: gain(part, name, side, alpha) for name in controls_of(part, side)}


def controls_of(part: Part, side: Side) -> list[str]:
    """Return the names of the random sets of a head's layer."""
    found = part.scaling.head_set.values[(part.scaling.control_of == side).values]
    return [str(name) for name in found]


def _too_few(measured: Measured) -> Outcome | None:
    sizes = [len(part.pairs) for part in (measured.select, measured.held)]
    if min(sizes) >= MIN_PAIRS:
        return None
    text = f"{sizes[0]} pairs to choose on and {sizes[1]} held out; {MIN_PAIRS} of each are needed"
    return Outcome(note=text)


# --- the claims -----------------------------------------------------------------------------------


def _writes(side: Side) -> Callable[[Measured], Outcome]:
    answer = {"memory": "memorised", "context": "in-context"}[side]

    def test(measured: Measured) -> Outcome:
        if (few := _too_few(measured)) is not None:
            return few
        head, held = measured.heads[side], measured.held
        own = written(held, head, side)
        layer = SIGN[side] * held.attribution.sel(layer=head.layer, drop=True)
        others = layer.drop_sel(head=head.head).mean("head")
        text = f"logits that the head writes of the {answer} answer, held out"
        found = [
            condition(text, own, held.pairs, MIN_LOGITS),
            condition("that minus the mean head of its layer", own - others, held.pairs),
        ]
        forms = [
            condition(f"the same in {form!r}", written(part, head, side), part.pairs, MIN_LOGITS)
            for form, part in measured.others.items()
        ]
        found += [weakest(forms)] if forms else []
        return Outcome(tuple(found), f"at {head}, chosen on the other half")

    return test


def _scales(side: Side) -> Callable[[Measured], Outcome]:
    def test(measured: Measured) -> Outcome:
        if (few := _too_few(measured)) is not None:
            return few
        alpha, held = measured.alpha[side], measured.held
        own = gain(held, side, side, alpha)
        outcome = WINNER[side].replace("_", "-")
        text = f"rise of the share of {outcome} answers, held out"
        found = [
            condition(text, own, held.pairs, MIN_SHARE),
            condition(
                "that minus the same of random heads of the layer",
                own - sum(control_gains(held, side, alpha).values()) / len(controls_of(held, side)),
                held.pairs,
            ),
        ]
        forms = [
            condition(
                f"the same rise in {form!r}", gain(part, side, side, alpha), part.pairs, MIN_SHARE
            )
            for form, part in measured.others.items()
        ]
        found += [weakest(forms)] if forms else []
        return Outcome(tuple(found), f"at {measured.heads[side]} times {alpha:g}")

    return test


def frequency(measured: Measured) -> Outcome:
    """The context wins more often against rare countries; all pairs, nothing scaled."""
    if (few := _too_few(measured)) is not None:
        return few
    pairs, terms = by_frequency(measured, "rank")
    text = "in-context share, rarer half of the countries minus the more frequent half"
    return Outcome((condition(text, terms, pairs, MIN_SHARE),), f"on {len(pairs)} pairs")


def by_frequency(measured: Measured, rank: str) -> tuple[ml.prompts.PromptSet, xr.DataArray]:
    """Return all pairs, and terms whose mean is the difference of the in-context share.

    Args:
        measured: both halves, nothing scaled.
        rank: `rank` of the country, or `stated_rank` of the in-context city's country.

    Returns:
        Pairs of both halves and, per pair, what it adds to the difference between the rarer and
        the more frequent half of them.
    """
    parts = (measured.select, measured.held)
    pairs = ml.prompts.PromptSet(tuple(pair for part in parts for pair in part.pairs))
    context = np.concatenate([part.share("memory", 1.0, "in_context").values for part in parts])
    ranks = np.array(pairs.about(rank), float)
    rare = ranks > np.median(ranks)
    weight = np.where(rare, 1 / max(rare.mean(), 1e-9), -1 / max((~rare).mean(), 1e-9))
    return pairs, xr.DataArray(weight * (context - context.mean()), dims="prompt")


PAPER = "Yu et al. 2023, abstract"
CLAIMS = (
    Claim(
        "memory_head",
        "One head writes the memorised answer although the context states another.",
        PAPER,
        "Its attribution to the memorised answer on held-out countries: above 0.1 logits, above "
        "the mean head of its layer, and above 0.1 logits in every other wording.",
        _writes("memory"),
    ),
    Claim(
        "in_context_head",
        "Another head writes the answer that the context states.",
        PAPER,
        "The same for the in-context answer.",
        _writes("context"),
    ),
    Claim(
        "scaling_memory",
        "Scaling the memory head at run time makes the context win.",
        f"{PAPER} (88 % in-context answers by scaling one head; setting not identified)",
        "The share of in-context answers on held-out countries rises by more than 5 percentage "
        "points, by more than when random heads of the layer are scaled alike, and by more than 5 "
        "points in every other wording.",
        _scales("memory"),
    ),
    Claim(
        "scaling_context",
        "Scaling the in-context head makes the memory win.",
        PAPER,
        "The same for the share of memorised answers.",
        _scales("context"),
    ),
    Claim(
        "frequency",
        "The more frequent the country, the more often the memory wins.",
        PAPER,
        "The in-context share is more than 5 percentage points higher with the rarer half of the "
        "countries than with the more frequent half.",
        frequency,
    ),
)
