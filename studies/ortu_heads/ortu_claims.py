"""Heads that promote and suppress a counterfactual (Ortu et al. 2024), tested on attribution.

The sign everywhere: `answer` is the counterfactual of the context, `wrong_answer` the fact. A
positive attribution promotes the counterfactual, a negative one suppresses it (pro-fact).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

import mechlab as ml

MIN_LOGITS = 0.1
"""An attribution counts from a tenth of a logit on: it changes odds by a tenth."""
MIN_OVERLAP = 0.5
"""More than half of a group must be among the as many strongest heads of its sign."""
MIN_SHARE = 0.05
"""A share of answers has moved when it moved by five percentage points."""
MIN_PAIRS = 8
RESAMPLES = 1000

Outcome, Condition = ml.claims.Outcome, ml.claims.Condition
Heads = Mapping[str, tuple[ml.Head, ...]]

SIGN = {"promote": 1, "suppress": -1}
PUBLISHED: Heads = {
    "promote": tuple(ml.heads("L9H6", "L9H9", "L10H0", "L10H10")),
    "suppress": tuple(ml.heads("L10H7", "L11H10")),
}
"""The six heads of GPT-2 small, as reported at second hand; what is compared with."""


@dataclass(frozen=True)
class Measured:
    """What the claims are tested on.

    Attributes:
        attribution: logit(counterfactual) - logit(fact) that each head writes,
            `[prompt, layer, head]`.
        scaling: result of `ml.scale_heads` of the suppressing heads together, with random heads.
        groups: which pairs are not independent.
        heads: the heads that are expected.
        factor: the factor by which they are turned up.
    """

    attribution: xr.DataArray
    scaling: xr.Dataset
    groups: Sequence[str]
    heads: Heads
    factor: float

    def drawn_means(self, name: str) -> np.ndarray:
        """Return means over pairs in clustered bootstrap samples, `[sample, layer, head]`."""
        values = SIGN[name] * self.attribution.transpose("prompt", "layer", "head").values
        _, number = np.unique(self.groups, return_inverse=True)
        count = int(number.max()) + 1
        sums = np.stack([values[number == one].sum(0) for one in range(count)]).astype(float)
        sizes = np.bincount(number, minlength=count)
        random = np.random.default_rng(0)
        draws = random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
        return np.einsum("sc,clh->slh", draws, sums) / (draws @ sizes)[:, None, None]

    def found(self, name: str) -> list[ml.Head]:
        """Return the heads whose whole interval lies beyond a tenth of a logit, strongest first."""
        low = np.quantile(self.drawn_means(name), 0.025, axis=0)
        mean = SIGN[name] * self.attribution.mean("prompt").transpose("layer", "head")
        return ml.top_heads(mean.where(xr.DataArray(low > MIN_LOGITS, dims=("layer", "head"))))


def test_group(measured: Measured, name: str) -> Outcome:
    """Test one group of heads."""
    if (problem := _too_few(measured)) is not None:
        return problem
    heads = measured.heads[name]
    signed = SIGN[name] * measured.attribution
    rest = [
        ml.Head(layer, head)
        for layer in sorted({head.layer for head in heads})
        for head in range(signed.sizes["head"])
        if ml.Head(layer, head) not in heads
    ]
    own = _mean_over(signed, heads)
    low, high = np.quantile(
        [_overlap(one, heads) for one in measured.drawn_means(name)], [0.025, 0.975]
    )
    whole = signed.mean("prompt").transpose("layer", "head").values
    clusters = [list(measured.groups)]
    above = ml.claims.mean_above
    return Outcome(
        (
            above("mean attribution, with its sign (logits)", own, MIN_LOGITS, clusters=clusters),
            above(
                "that minus the mean of all other heads of their layers (logits)",
                own - _mean_over(signed, rest),
                clusters=clusters,
            ),
            Condition(
                f"share of them among the {len(heads)} strongest heads",
                _overlap(whole, heads),
                float(low),
                float(high),
                MIN_OVERLAP,
            ),
        ),
        f"found here: {', '.join(map(str, measured.found(name))) or 'no head'}",
    )


def _too_few(measured: Measured) -> Outcome | None:
    pairs, groups = len(measured.groups), len(set(measured.groups))
    if pairs >= MIN_PAIRS and groups > 1:
        return None
    return Outcome(note=f"{pairs} pairs in {groups} groups; {MIN_PAIRS} pairs in 2 are needed")


def _mean_over(values: xr.DataArray, heads: Sequence[ml.Head]) -> xr.DataArray:
    parts = [values.sel(layer=h.layer, head=h.head, drop=True) for h in heads]
    return sum(parts) / max(1, len(parts))  # type: ignore[return-value]


def _overlap(values: np.ndarray, heads: Sequence[ml.Head]) -> float:
    """Return the share of heads among the as many largest positive values, `[layer, head]`."""
    order = np.argsort(-values, axis=None, kind="stable")[: len(heads)]
    top = {divmod(int(place), values.shape[1]) for place in order if values.flat[place] > 0}
    return sum((head.layer, head.head) in top for head in heads) / len(heads)


def turned_up(measured: Measured) -> Outcome:
    """Turning the suppressing heads up makes the fact win more often."""
    if (problem := _too_few(measured)) is not None:
        return problem
    share = measured.scaling.share.sel(outcome="memorised", drop=True)
    rise = share.sel(alpha=measured.factor) - share.sel(alpha=1.0)
    controls = [n for n in rise.head_set.values.tolist() if n != "suppress"]
    own = rise.sel(head_set="suppress", drop=True)
    clusters = [list(measured.groups)]
    text = f"rise of the share of facts at {measured.factor:g} times"
    conditions = [ml.claims.mean_above(text, own, MIN_SHARE, clusters=clusters)]
    if controls:
        others = rise.sel(head_set=controls).mean("head_set")
        text = "that minus the rise with random heads of their layers"
        conditions.append(ml.claims.mean_above(text, own - others, clusters=clusters))
    before = float(share.sel(alpha=1.0, head_set="suppress").mean())
    after = float(share.sel(alpha=measured.factor, head_set="suppress").mean())
    return Outcome(tuple(conditions), f"facts win {before:.1%} before and {after:.1%} after")


PAPER = "Ortu et al. 2024 (arXiv 2402.11655)"
EXPECTED = (
    "On average over the group the attribution has the expected sign and at least a tenth of a "
    "logit; it exceeds the mean of the other heads of the same layers; and more than half of the "
    "group is among the as many strongest heads of its sign."
)
CLAIMS = (
    ml.claims.Claim(
        "promote",
        "A few heads of late layers write the counterfactual that stands in the context.",
        PAPER,
        EXPECTED,
        lambda measured: test_group(measured, "promote"),
    ),
    ml.claims.Claim(
        "suppress",
        "Two heads of the last layers write against it.",
        PAPER,
        EXPECTED,
        lambda measured: test_group(measured, "suppress"),
    ),
    ml.claims.Claim(
        "turned_up",
        "Turned up, the suppressing heads let the fact win.",
        PAPER,
        "The share of pairs on which the fact is most probable rises by five percentage points, "
        "and more than with random heads of the same layers.",
        turned_up,
    ),
)
