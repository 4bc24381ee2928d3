"""The claims of Ji-An et al. 2024 about heads as a memory, with nulls and controls added.

Lag curves are averages over lists, and heads of one model are no sample of others: an interval over
heads says how far a number rests on a few of them.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from memory_heads import CLOSE, correlated, depth, excess, of_heads, share_below
from memory_measure import KINDS, Measured, of_top
from memory_published import PUBLISHED, known_as

import mechlab as ml

Claim, Condition, Outcome = ml.claims.Claim, ml.claims.Condition, ml.claims.Outcome

HUMAN = {
    side: tuple(end(pair[i] for pair in ml.plots.HUMAN_BETAS.values()) for end in (min, max))
    for i, side in enumerate(("beta_enc", "beta_rec"))
}
"""Lowest and highest beta of people, as the paper lists them."""
MIN_RISE = 0.1
"""The loss on the second copy has risen when it rose by this many nats."""
REPLICATED = 10.0
"""Shares are those of the paper within so many percentage points: other prompts, other tokens."""


# --- numbers --------------------------------------------------------------------------------------


def harm(measured: Measured, outcome: str) -> xr.DataArray:
    """Return how much worse an outcome is, `[prompt, ablation, head_set]`; more is worse.

    `copy_loss` rises by so many nats, `recall_next` falls by so much probability.
    """
    values = measured.ablated[outcome]
    sign = -1 if outcome == "recall_next" else 1
    found: xr.DataArray = sign * (values - values.sel(head_set="intact"))
    return found


def controls(measured: Measured, name: str) -> list[str]:
    """Return the names of the random sets in place of a group."""
    sets = measured.ablated.head_set
    return [str(one) for one in sets.values[(sets.control_of == name).values]]


def in_its_layers(measured: Measured, random: Sequence[str]) -> list[str]:
    """Return those random sets that lie in the very layers of their group."""
    away = measured.ablated.layer_distance.sel(head_set=list(random))
    return [one for one, layers in zip(random, away.values, strict=True) if layers == 0]


def beyond(text: str, lost: xr.DataArray, name: str, random: Sequence[str]) -> Condition:
    """Return the condition that ablating a group harms more than random heads in its place.

    Which heads were drawn is chance as well: the interval is the hull over lists and over draws.
    Without random heads there is nothing to compare with: NaN, and the condition does not hold.
    """
    if not random:
        return Condition(text, *[float("nan")] * 3)
    gap = lost.sel(head_set=name) - lost.sel(head_set=list(random))
    gap = gap.transpose("head_set", "prompt").values
    draws, prompts = gap.shape
    clusters = [list(range(prompts)) * draws]
    clusters += [np.repeat(np.arange(draws), prompts).tolist()] if draws > 1 else []
    return ml.claims.mean_above(text, xr.DataArray(gap.ravel(), dims="prompt"), clusters=clusters)


# --- the claims -----------------------------------------------------------------------------------


def fits(measured: Measured) -> Outcome:
    """Top induction heads have the shape of CMR, better than noise, with their peak at +1."""
    found, heads = measured.found, measured.found.most_matching()
    value, (low, high) = of_top(measured, heads, "distance")
    ahead = of_heads(found.fit.peak_lag, heads) == 1
    p_value = float(of_heads(found.p_value, heads).mean())
    share = float(ahead.mean())
    return Outcome(
        (
            Condition(
                f"{CLOSE:g} minus their mean distance", CLOSE - value, CLOSE - high, CLOSE - low
            ),
            Condition("0.05 minus their mean p against smooth noise", *[0.05 - p_value] * 3),
            Condition("share of them with their peak at lag +1", share, share, share, 0.5),
        ),
        f"of {' '.join(map(str, heads))}",
    )


def beyond_noise(measured: Measured) -> Outcome:
    """More heads than draws of noise, also without what position alone does."""
    conditions = [excess(measured.found, CLOSE, kind) for kind in measured.found.nulls]
    corrected = excess(measured.corrected, CLOSE, "matched")
    text = f"{corrected.text}, curves without what no repeat gives"
    conditions.append(
        Condition(text, corrected.value, corrected.low, corrected.high, corrected.bound)
    )
    return Outcome(tuple(conditions), f"on {measured.found.heads} heads")


def matching(measured: Measured) -> Outcome:
    """Distance falls with matching."""
    return Outcome((correlated(measured.found),), f"on {measured.found.heads} heads")


def late(measured: Measured) -> Outcome:
    """CMR-like heads lie in later layers."""
    return Outcome((depth(measured.found),), f"on {measured.found.heads} heads")


def human(measured: Measured) -> Outcome:
    """Top induction heads drift as people do, where the fit says anything."""
    heads = measured.found.most_matching()
    conditions = [fits(measured).conditions[0]]
    for name, (lowest, highest) in HUMAN.items():
        value, (low, high) = of_top(measured, heads, name)
        margins = [min(one - lowest, highest - one) for one in (low, high)]
        inside = min(value - lowest, highest - value)
        text = f"mean {name}, inside {lowest:g} to {highest:g} by"
        conditions.append(Condition(text, inside, min(margins), max([inside, *margins])))
    return Outcome(tuple(conditions), f"of {' '.join(map(str, heads))}")


def harmful(measured: Measured, name: str) -> Outcome:
    """Without these heads lists are not copied; without random ones they are."""
    drawn = controls(measured, name)
    heads = " ".join(map(str, measured.heads(name)))
    if not drawn:
        return Outcome(note=f"the model has too few heads beside {heads} to draw random ones")
    random = in_its_layers(measured, drawn)
    conditions = []
    for ablation in KINDS:
        lost, forgotten = (
            harm(measured, outcome).sel(ablation=ablation)
            for outcome in ("copy_loss", "recall_next")
        )
        told = f"{ablation} ablation"
        own = lost.sel(head_set=name).drop_vars(["head_set", "ablation"])
        conditions += [
            ml.claims.mean_above(f"rise of the loss on copy 2, {told}", own, MIN_RISE),
            beyond(f"the same beyond random heads, {told}", lost, name, random),
            beyond(f"fall of the output CRP at +1 beyond random, {told}", forgotten, name, random),
        ]
    away = float(measured.ablated.layer_distance.sel(head_set=drawn).mean())
    told = (
        f"{len(random)} random sets of the same layers"
        if random
        else f"no random set lies in the same layers ({len(drawn)} are {away:.1f} layers away on "
        "average), so that nothing can be said beyond random heads"
    )
    return Outcome(tuple(conditions), f"without {heads}; {told}")


def replicated(measured: Measured, model: str) -> Outcome:
    """As many heads are CMR-like as in the paper."""
    told = PUBLISHED.get(known_as(model))
    if told is None:
        return Outcome(note="the paper has no such model", applies=False)
    conditions = []
    for text, threshold, share in (("0.5", 0.5, told.like), ("0.1", 0.1, told.close)):
        own = 100 * share_below(measured.found.fit.distance, threshold)
        left = REPLICATED - abs(own - share)
        said = f"{REPLICATED:g} minus the difference of per cent below {text} from {share:g}"
        conditions.append(Condition(said, left, left, left))
    return Outcome(tuple(conditions))


PAPER = "Ji-An et al. 2024"


def claims_about(model: str) -> tuple[Claim, ...]:
    """Return the claims about a model."""
    every = "All of it with zero and with mean ablation, on lists that no head was found on: "
    causal = (
        f"{every}the loss on the second copy rises by more than {MIN_RISE} nats and by more than "
        "with random heads of the same layers, and the output CRP at +1 falls by more."
    )
    return (
        Claim("fits", "Top induction heads attend by lag as the context model recalls.",
              f"{PAPER}: mean distance .004 to .199",
              f"Mean distance below {CLOSE:g}, mean p against smooth noise below .05, and most of "
              "them with their peak at lag +1.", fits),
        Claim("beyond_noise", "More heads are close to the context model than noise is.",
              "not in the paper, which has no null",
              f"Share of heads below {CLOSE:g} above that of smooth noise and of permuted lags; "
              "above smooth noise also without what the heads do where nothing repeats.",
              beyond_noise),
        Claim("matching", "The higher a head's matching score, the lower its distance.",
              f"{PAPER}: rank correlation -.62 to -.82", "Rank correlation below 0.", matching),
        Claim("late", "CMR-like heads concentrate in intermediate to late layers.", PAPER,
              "Mean depth of heads below .5 above that of all heads.", late),
        Claim("human", "Top induction heads drift within the range of people.", PAPER,
              f"Mean distance below {CLOSE:g}, and both mean betas within the published range.",
              human),
        Claim("causal_cmr", "Without top CMR heads a model copies worse.", f"{PAPER} (ICL score)",
              causal, lambda measured: harmful(measured, "CMR")),
        Claim("causal_induction", "Without top induction heads a model copies worse.",
              "Olsson et al. 2022", causal, lambda measured: harmful(measured, "induction")),
        Claim("replicated", "As many heads are CMR-like as published.", f"{PAPER}, last checkpoint",
              f"Per cent below .5 and .1 within {REPLICATED:g}; models of the paper only.",
              lambda measured: replicated(measured, model)),
    )  # fmt: skip
