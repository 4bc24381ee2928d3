"""The claims about retrieval heads (Wu et al. 2024): few, the same at every length, and needed.

Heads are found on one half of the texts; recall is measured on the other half, so that no head is
tested on the prompts that it was chosen by.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

import mechlab as ml

Claim, Condition, Outcome = ml.claims.Claim, ml.claims.Condition, ml.claims.Outcome

STRONG = 0.5
"""Mean score from which a head is called strong."""
ROUNDING = 1e-9
"""A mean of 0.5 is strong, whatever the order of the additions."""
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
    found: xr.DataArray = _falls(result, k, control).mean("head_set")
    return found


def _falls(result: xr.Dataset, k: int, control: bool) -> xr.DataArray:
    which = (result.k == k) & (result.is_control == control)
    found: xr.DataArray = -result.effect.isel(head_set=which.values)
    return found


def clusters_of(result: xr.Dataset | xr.DataArray) -> list[list[object]]:
    """Return what prompts have in common, one label per prompt: the text, and the needle.

    Intervals are the hull over both. One text alone says nothing about others: it is left out.
    """
    names = [name for name in ("group", "needle") if name in result.coords]
    labels = [result[name].values.tolist() for name in names]
    return [one for one in labels if len(set(one)) > 1]


def mean_fall(text: str, values: xr.DataArray, result: xr.Dataset, bound: float) -> Condition:
    """Return a condition on a mean over prompts, drawn by text and by needle."""
    return ml.claims.mean_above(text, values, bound, clusters=clusters_of(result))


def beyond_random(text: str, result: xr.Dataset, k: int) -> Condition:
    """Return the condition that recall falls more than with random heads.

    Which heads were drawn is chance as well: the interval is the hull over texts, needles, draws.
    """
    gap = _falls(result, k, False).mean("head_set") - _falls(result, k, True)
    gap = gap.transpose("head_set", "prompt")
    draws, prompts = gap.shape
    clusters = [labels * draws for labels in clusters_of(result)]
    clusters += [np.repeat(np.arange(draws), prompts).tolist()] if draws > 1 else []
    flat = xr.DataArray(gap.values.ravel(), dims="prompt")
    return ml.claims.mean_above(text, flat, 0.0, clusters=clusters)


def kept(text: str, lost: xr.DataArray, most: float, worst: float) -> Condition:
    """Return the condition that less than `most` is lost on average; no prompt loses over `worst`.

    Where all prompts agree a bootstrap has no width. Then the binomial bound is taken: of n prompts
    none was another, so at most 1 - 0.025^(1/n) of all are.
    """
    found = ml.claims.mean_above(text, most - lost)
    if found.high - found.low > 1e-9:
        return found
    others = 1 - 0.025 ** (1 / lost.sizes["prompt"])
    return replace(found, low=found.value - others * (worst - float(lost.mean())))


def score_of_first(scores: xr.DataArray) -> xr.DataArray:
    """Return the score of the first head, `[prompt]`, chosen on the other texts.

    With one text it is chosen on the other needles; with one needle there is nothing left: NaN.
    """
    labels = np.array([*clusters_of(scores), [0] * scores.sizes["prompt"]][0], dtype=object)
    found = np.full(len(labels), np.nan)
    for label in set(labels):
        own = labels == label
        if not own.all():
            (head,) = ml.top_heads(scores.isel(prompt=~own).mean("prompt"), k=1)
            found[own] = scores.isel(prompt=own).sel(layer=head.layer, head=head.head)
    return xr.DataArray(found, dims="prompt")


def share_strong(scores: xr.DataArray) -> float:
    """Return the share of heads whose mean score is at least `STRONG`."""
    return float((scores.mean("prompt") >= STRONG - ROUNDING).mean())


def correlation_of_lengths(scores: xr.DataArray) -> float:
    """Return the mean rank correlation of head scores between lengths; NaN when all are equal."""
    from scipy import stats  # heavy for a module that the report imports too

    flat = scores.transpose("prompt", ...).values.reshape(scores.sizes["prompt"], -1)
    lengths = scores.length.values
    means = [flat[lengths == length].mean(axis=0) for length in np.unique(lengths)]
    if len(means) < 2 or any(np.isnan(mean).any() or np.ptp(mean) == 0 for mean in means):
        return float("nan")
    found = np.corrcoef([stats.rankdata(mean) for mean in means])
    return float(found[np.triu_indices(len(means), 1)].mean())


def resampled(
    scores: xr.DataArray, statistic: Callable[[xr.DataArray], float], seed: int = 0
) -> tuple[float, float]:
    """Return a 95 % interval of a statistic, texts drawn anew and needles drawn anew.

    The hull of the percentile and the basic interval of both: resampling shifts ranks and shares,
    so that the percentile interval alone may begin at what was measured.
    """
    random, value = np.random.default_rng(seed), statistic(scores)
    ends: list[float] = []
    for labels in clusters_of(scores):
        parts = [np.flatnonzero([one == name for one in labels]) for name in dict.fromkeys(labels)]
        drawn = []
        for _ in range(RESAMPLES):
            chosen = random.integers(len(parts), size=len(parts))
            rows = np.concatenate([parts[index] for index in chosen])
            drawn.append(statistic(scores.isel(prompt=rows)))
        if not np.isnan(drawn).all():
            low, high = np.nanquantile(drawn, [0.025, 0.975])
            ends += [low, high, 2 * value - low, 2 * value - high]
    return (float(min(ends)), float(max(ends))) if ends else (float("nan"), float("nan"))


def answered(measured: Measured) -> xr.DataArray:
    """Return scores on answered prompts, `[prompt, layer, head]`."""
    found: xr.DataArray = measured.scores.retrieval_score.isel(
        prompt=measured.scores.success.values
    )
    return found


# --- the claims -----------------------------------------------------------------------------------


def exist(measured: Measured) -> Outcome:
    """The best head copies, and the model finds needles."""
    scores = measured.scores
    first = scores.retrieval_score_all.mean("prompt").stack(cell=("layer", "head")).idxmax().item()
    best = score_of_first(scores.retrieval_score_all)
    recall = scores.rouge1_recall
    return Outcome(
        (
            mean_fall("recall of needles, per cent", recall, scores, 50.0),
            mean_fall("score of the first head", best, scores, 0.1),
        ),
        f"on texts that the head was not chosen on; on all of them it is L{first[0]}H{first[1]}",
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
    own = fall(measured.recall, measured.k)
    return Outcome(
        (
            mean_fall("fall of recall, percentage points", own, measured.recall, MIN_FALL),
            beyond_random("the same beyond random heads", measured.recall, measured.k),
        ),
        f"with {measured.k} heads masked, on texts that they were not found on",
    )


def closed_book(measured: Measured) -> Outcome:
    """What needs no context stays."""
    if not measured.closed.sizes["prompt"]:
        return Outcome(note="the model answers none of the closed-book questions")
    lost = fall(measured.closed, measured.k)
    needles = fall(measured.recall, measured.k)
    broken = mean_fall("fall of needle recall", needles, measured.recall, MIN_FALL)
    text = f"{MAX_CLOSED_FALL:g} points, minus the fall of closed-book recall"
    return Outcome(
        (kept(text, lost, MAX_CLOSED_FALL, 100.0), broken), f"with {measured.k} heads masked"
    )


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
        "Less than 5 % of heads have a mean score of at least 0.5 on answered prompts, and the "
        "first head's score is above 0.1.",
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
