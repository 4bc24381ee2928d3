"""The claims about retrieval heads (Wu et al. 2024): few, the same at every length, and needed.

Heads are found on one half of the texts; recall is measured on the other half, so that no head is
tested on the prompts that it was chosen by.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

import mechlab as ml

Claim, Condition, Outcome = ml.claims.Claim, ml.claims.Condition, ml.claims.Outcome

STRONG = 0.5
"""Mean score from which a head is called strong."""
MAX_STRONG = 0.05
"""Share of heads that may be strong."""
MIN_CORRELATION = 0.8
"""Rank correlation of scores that counts as the same heads."""
MIN_FALL = 50.0
"""Recall breaks when it falls by this many percentage points."""
MAX_CLOSED_FALL = 5.0
"""Closed-book recall barely moves when it falls by less."""
RESAMPLES = 500


@dataclass(frozen=True)
class Measured:
    """What the claims are tested on.

    Attributes:
        scores: `ml.retrieval_score` on the finding half.
        recall: `ml.retrieval_curve` on the other half: ranked heads and random ones.
        closed: the same on closed-book questions that the model answers.
        k: how many heads are masked: all retrieval heads, or the first one without any.
    """

    scores: xr.Dataset
    recall: xr.Dataset
    closed: xr.Dataset
    k: int


# --- measuring ------------------------------------------------------------------------------------


def fall(result: xr.Dataset, k: int, *, control: bool = False) -> xr.DataArray:
    """Return by how much recall falls with k heads masked, `[prompt]`, in percentage points.

    Random heads are averaged over their draws.
    """
    which = (result.k == k) & (result.is_control == control)
    found: xr.DataArray = -result.effect.isel(head_set=which.values).mean("head_set")
    return found


def group_of(result: xr.Dataset) -> Sequence[object]:
    """Return the text of each prompt: what intervals draw together."""
    names: list[object] = result["group"].values.tolist() if "group" in result.coords else []
    return names or list(range(result.sizes["prompt"]))


def mean_fall(text: str, values: xr.DataArray, result: xr.Dataset, bound: float) -> Condition:
    """Return a condition on a mean over prompts, drawn by text."""
    groups = group_of(result)
    clusters = [groups] if len(set(groups)) > 2 else []
    return ml.claims.mean_above(text, values, bound, clusters=clusters)


def share_strong(scores: xr.DataArray) -> float:
    """Return the share of heads whose mean score is at least `STRONG`."""
    return float((scores.mean("prompt") >= STRONG).mean())


def correlation_of_lengths(scores: xr.DataArray) -> float:
    """Return the mean rank correlation of head scores between lengths; NaN when all are equal."""
    from scipy import stats  # heavy for a module that the report imports too

    means = scores.groupby("length").mean("prompt").transpose("length", ...)
    flat = means.values.reshape(means.sizes["length"], -1)
    pairs = [(a, b) for i, a in enumerate(flat) for b in flat[i + 1 :]]
    if not pairs or any(np.nanstd(row) == 0 or np.isnan(row).any() for row in flat):
        return float("nan")
    return float(np.mean([stats.spearmanr(a, b)[0] for a, b in pairs]))


def resampled(scores: xr.DataArray, statistic: object, seed: int = 0) -> tuple[float, float]:
    """Return a 95 % percentile interval of a statistic over prompts drawn anew."""
    random = np.random.default_rng(seed)
    count = scores.sizes["prompt"]
    drawn = [
        statistic(scores.isel(prompt=random.integers(count, size=count)))  # type: ignore[operator]
        for _ in range(RESAMPLES)
    ]
    if np.isnan(drawn).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def answered(measured: Measured) -> xr.DataArray:
    """Return scores on answered prompts, `[prompt, layer, head]`."""
    kept: xr.DataArray = measured.scores.retrieval_score.isel(prompt=measured.scores.success.values)
    return kept


# --- the claims -----------------------------------------------------------------------------------


def exist(measured: Measured) -> Outcome:
    """The best head copies, and the model finds needles."""
    scores = measured.scores
    first = scores.retrieval_score_all.mean("prompt").stack(cell=("layer", "head")).idxmax().item()
    best = scores.retrieval_score_all.sel(layer=first[0], head=first[1], drop=True)
    recall = scores.rouge1_recall
    return Outcome(
        (
            mean_fall("recall of needles, per cent", recall, scores, 50.0),
            mean_fall("score of the first head", best, scores, 0.1),
        ),
        f"at L{first[0]}H{first[1]}",
    )


def sparse(measured: Measured) -> Outcome:
    """Few heads are strong, but some are."""
    scores = answered(measured)
    if not scores.sizes["prompt"]:
        return Outcome(note="no needle was found")
    share = share_strong(scores)
    low, high = resampled(scores, share_strong)
    text = f"{MAX_STRONG:.0%} of heads, minus the share with a score of at least {STRONG}"
    few = Condition(text, MAX_STRONG - share, MAX_STRONG - high, MAX_STRONG - low, 0.0)
    return Outcome((few, *exist(measured).conditions[1:]))


def intrinsic(measured: Measured) -> Outcome:
    """The same heads at every length."""
    scores = answered(measured)
    if not scores.sizes["prompt"] or len(np.unique(scores.length)) < 2:
        return Outcome(note="needles were found at fewer than two lengths")
    low, high = resampled(scores, correlation_of_lengths)
    value = correlation_of_lengths(scores)
    text = "rank correlation of head scores between lengths"
    return Outcome((Condition(text, value, low, high, MIN_CORRELATION),))


def causal(measured: Measured) -> Outcome:
    """Recall breaks without them, and less without as many others."""
    own, random = (fall(measured.recall, measured.k, control=c) for c in (False, True))
    return Outcome(
        (
            mean_fall("fall of recall, percentage points", own, measured.recall, MIN_FALL),
            mean_fall("the same beyond random heads", own - random, measured.recall, 0.0),
        ),
        f"with {measured.k} heads masked, on texts that they were not found on",
    )


def closed_book(measured: Measured) -> Outcome:
    """What needs no context stays."""
    if not measured.closed.sizes["prompt"]:
        return Outcome(note="the model answers none of the closed-book questions")
    lost = fall(measured.closed, measured.k)
    needles = fall(measured.recall, measured.k)
    rest = MAX_CLOSED_FALL - lost
    broken = mean_fall("fall of needle recall", needles, measured.recall, MIN_FALL)
    text = f"{MAX_CLOSED_FALL:g} points, minus the fall of closed-book recall"
    kept = ml.claims.mean_above(text, rest)
    return Outcome((kept, broken), f"with {measured.k} heads masked")


PAPER = "Wu et al. 2024"
CLAIMS = (
    Claim(
        "exist",
        "Some heads copy the needle into the answer.",
        f"{PAPER}, section 2",
        "Recall above 50 %, and the first head's mean score above 0.1, over all prompts.",
        exist,
    ),
    Claim(
        "sparse",
        "Retrieval heads are few.",
        f"{PAPER}, section 3: less than 5 % of heads above 0.5",
        "Less than 5 % of heads have a mean score of at least 0.5 on answered prompts.",
        sparse,
    ),
    Claim(
        "intrinsic",
        "They are the same heads at every context length.",
        f"{PAPER}, section 3 (there: between a model and its variants, above 0.8)",
        "Rank correlation of the scores between lengths above 0.8.",
        intrinsic,
    ),
    Claim(
        "causal",
        "Without them needles are lost; without as many random heads they are not.",
        f"{PAPER}, section 4",
        "Recall falls by more than 50 percentage points with all retrieval heads masked, and by "
        "more than with random heads.",
        causal,
    ),
    Claim(
        "closed_book",
        "What needs no context hardly changes.",
        f"{PAPER}, section 4",
        "Closed-book recall falls by less than 5 points where needle recall falls by more than 50.",
        closed_book,
    ),
)
