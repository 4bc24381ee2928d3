"""The claims about the refit of published curves: it gives what was published, within tolerances.

The control is the same curves with every head's lags in an order of its own.
"""

from memory_heads import (
    CLOSE,
    LIKE,
    PARAMETERS,
    Fitted,
    correlated,
    excess,
    of_heads,
    rank_correlation,
    share_below,
)
from memory_published import (
    BY_LAYER,
    CORRELATION,
    LISTED,
    PEAKS,
    PUBLISHED,
    UNMATCHED,
    by_layer,
    mean_parameters,
    peaks,
    unmatched,
)

import mechlab as ml

Claim, Condition, Outcome = ml.claims.Claim, ml.claims.Condition, ml.claims.Outcome

DISTANCE, PERCENT, STEP = 0.002, 2.0, 0.05
"""Tolerances: of a distance, of a share in per cent, of a mean parameter (one step of the grid)."""
ONE_HEAD = 100 / 12 + 0.5
"""One head of a layer, in per cent."""


def near(text: str, value: float, published: float, tolerance: float) -> Condition:
    """Return the condition that a number is the published one, within a tolerance."""
    left = tolerance - abs(value - published)
    told = f"{tolerance:.3g} minus the difference of {text} ({value:.4g}) from {published:g}"
    return Condition(told, left, left, left)


def distances(found: Fitted) -> Outcome:
    """The listed heads have the listed distances."""
    names = [(ml.heads(name)[0], value) for name, value in LISTED.items()]
    known = [float(of_heads(found.fit.distance, [head])[0]) for head, _ in names]
    return Outcome(
        tuple(
            near(f"the distance of {head}", own, value, DISTANCE)
            for own, (head, value) in zip(known, names, strict=True)
        )
    )


def claims_of(name: str) -> tuple[Claim, ...]:
    """Return the claims about the refit of one model's published curves."""
    told = PUBLISHED[name]
    paper = "recomputed from the published curves"

    def shares(found: Fitted) -> Outcome:
        own = [100 * share_below(found.fit.distance, threshold) for threshold in (LIKE, CLOSE)]
        conditions = [
            near("per cent below 0.5", own[0], told.like, PERCENT),
            near("per cent below 0.1", own[1], told.close, PERCENT),
            near("the median distance", float(found.fit.distance.median()), told.median, STEP),
        ]
        if name == "gpt2":
            pairs = zip(by_layer(found), BY_LAYER, strict=True)
            conditions += [
                near(f"per cent of layer {layer}", own, one, ONE_HEAD)
                for layer, (own, one) in enumerate(pairs)
            ]
        return Outcome(tuple(conditions))

    def parameters(found: Fitted) -> Outcome:
        like = mean_parameters(found, found.most_like())
        match = mean_parameters(found, found.most_matching())
        conditions = [
            near(f"{one} of top CMR heads", like[one], value, STEP)
            for one, value in zip(PARAMETERS[:3], told.most_like, strict=False)
        ]
        scale = told.most_like[3]
        conditions.append(near("scale of top CMR heads", like["scale"], scale, 0.1 * scale))
        conditions += [
            near(f"{one} of top induction heads", match[one], value, STEP)
            for one, value in zip(PARAMETERS[:3], told.most_matching, strict=True)
        ]
        distance = near("their distance", match["distance"], told.matching_distance, 0.01)
        return Outcome((*conditions, distance))

    made = [
        Claim("shares", "As many heads are CMR-like as was published.", paper,
              "Per cent below 0.5 and 0.1 within 2, the median within 0.05; of GPT-2 small also "
              "every layer within one head.", shares),
        Claim("parameters", "Top heads have the published parameters.", paper,
              "Means within one step of the grid (0.05), the scale within 10 %, the mean distance "
              "of top induction heads within 0.01.", parameters),
        Claim("beyond_noise", "More heads are close to CMR than smooth noise is.",
              "not in the paper, which has no null",
              "Share below 0.1 above that of both nulls.",
              lambda found: Outcome(tuple(excess(found, CLOSE, kind) for kind in found.nulls))),
    ]  # fmt: skip
    if name == "gpt2":
        made += _of_gpt2(paper)
    return tuple(made)


def _of_gpt2(paper: str) -> list[Claim]:
    def kinds(found: Fitted) -> Outcome:
        told = [near(f"per cent with their peak at {lag}", value, PEAKS[lag], PERCENT)
                for lag, value in peaks(found).items()]  # fmt: skip
        matching = near("per cent with matching below 0.05", unmatched(found), UNMATCHED, PERCENT)
        rank = rank_correlation(found.fit.distance.values.ravel(), found.matching.values.ravel())
        fall = near("the rank correlation of distance and matching", rank, CORRELATION, 0.02)
        return Outcome((*told, matching, fall, correlated(found)))

    return [
        Claim("listed", "The best heads of GPT-2 small have the listed distances.", paper,
              "L1H11 .0039, L5H1 .0061 and four more, each within .002.", distances),
        Claim("kinds", "CMR-like heads peak at +1 or at 0, and two thirds of them hardly match.",
              paper, "Per cent by peak and with matching below .05 within 2, the rank correlation "
              "within .02 and below 0.", kinds),
    ]  # fmt: skip
