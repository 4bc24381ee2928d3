"""The heads of the IOI circuit (Wang et al. 2022), as tests on path patching.

Every stage patches paths from all heads to receivers that an earlier stage names. Effects are
shares of the mean logit difference, indirect object minus subject: a **negative** effect means that
the path supports the answer, as corrupted values (three other names) are patched in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

import mechlab as ml

MIN_SHARE = 0.01
"""A head counts from one per cent of the logit difference on (our choice)."""
MIN_OVERLAP = 0.5
"""More than half of a class must be among the as many strongest heads of its stage."""
RESAMPLES = 1000

Outcome, Condition = ml.claims.Outcome, ml.claims.Condition
Circuit = Mapping[str, tuple[ml.Head, ...]]

SIGN = {
    "name movers": -1,
    "negative name movers": +1,
    "backup name movers": +1,
    "S-inhibition": -1,
    "induction and duplicate token": -1,
    "previous token": -1,
}
"""Sign of a class's effect in its stage; a backup head's share rises when name movers are gone."""

PUBLISHED: Circuit = {
    "name movers": tuple(ml.heads("L9H9", "L10H0", "L9H6")),
    "negative name movers": tuple(ml.heads("L10H7", "L11H10")),
    "backup name movers": tuple(
        ml.heads("L10H10", "L10H6", "L10H2", "L10H1", "L11H2", "L9H7", "L9H0", "L11H9")
    ),
    "S-inhibition": tuple(ml.heads("L7H3", "L7H9", "L8H6", "L8H10")),
    "induction and duplicate token": tuple(
        ml.heads("L5H5", "L5H8", "L5H9", "L6H9", "L0H1", "L0H10", "L3H0")
    ),
    "previous token": tuple(ml.heads("L2H2", "L4H11")),
}
"""The 26 heads of GPT-2 small, by the stage that finds them."""


@dataclass(frozen=True)
class Stages:
    """What was measured.

    Attributes:
        effects: per class the effect of its stage, `[prompt, layer, head]`, as a share of the mean
            logit difference; a stage without receivers is left out.
        logit_diff: of the original prompts, `[prompt]`.
        groups: template of each pair, for clustered intervals.
        circuit: the heads that are expected.
    """

    effects: Mapping[str, xr.DataArray]
    logit_diff: xr.DataArray
    groups: Sequence[str]
    circuit: Circuit

    def signed(self, name: str) -> xr.DataArray:
        """Return a stage's effects with the sign of its class: positive is as expected."""
        return SIGN[name] * self.effects[name].fillna(0.0)

    def drawn_means(self, name: str) -> np.ndarray:
        """Return means over prompts in clustered bootstrap samples, `[sample, layer, head]`."""
        values = self.signed(name).transpose("prompt", "layer", "head").values.astype(float)
        _, number = np.unique(self.groups, return_inverse=True)
        count = int(number.max()) + 1
        sums = np.stack([values[number == one].sum(0) for one in range(count)])
        sizes = np.bincount(number, minlength=count)
        random = np.random.default_rng(0)
        draws = random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
        return np.einsum("sc,clh->slh", draws, sums) / (draws @ sizes)[:, None, None]

    def found(self, name: str) -> list[ml.Head]:
        """Return the heads whose whole interval lies beyond the smallest share, strongest first."""
        if name not in self.effects:
            return []
        low = np.quantile(self.drawn_means(name), 0.025, axis=0)
        mean = self.signed(name).mean("prompt")
        kept = mean.where(xr.DataArray(low > MIN_SHARE, dims=("layer", "head")))
        return ml.top_heads(kept)


def test_class(stages: Stages, name: str) -> Outcome:
    """Test one class of heads on its stage."""
    heads = stages.circuit.get(name, ())
    if not heads:
        return Outcome(note="no heads of this class are expected", applies=False)
    if name not in stages.effects:
        return Outcome(note="the heads that would receive are not known", applies=False)
    if len(set(stages.groups)) < 2:
        return Outcome(note="all pairs are of one template; two or more are needed")
    signed = stages.signed(name)
    own = _mean_over(signed, heads)
    layers = {head.layer for head in heads}
    rest = [
        ml.Head(layer, head)
        for layer in sorted(layers)
        for head in range(signed.sizes["head"])
        if ml.Head(layer, head) not in heads
    ]
    means = stages.drawn_means(name)
    overlaps = [_overlap(one, heads) for one in means]
    low, high = np.quantile(overlaps, [0.025, 0.975])
    whole = signed.mean("prompt").transpose("layer", "head").values
    clusters = [list(stages.groups)]
    above = ml.claims.mean_above
    return Outcome(
        (
            above("mean effect of these heads, as a share", own, MIN_SHARE, clusters=clusters),
            above(
                "that minus the mean of all other heads of their layers",
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
        f"found here: {', '.join(map(str, stages.found(name))) or 'no head'}",
    )


def _mean_over(values: xr.DataArray, heads: Sequence[ml.Head]) -> xr.DataArray:
    parts = [values.sel(layer=h.layer, head=h.head, drop=True) for h in heads]
    return sum(parts) / max(1, len(parts))  # type: ignore[return-value]


def _overlap(values: np.ndarray, heads: Sequence[ml.Head]) -> float:
    """Return the share of heads among the as many largest positive values, `[layer, head]`."""
    order = np.argsort(-values, axis=None, kind="stable")[: len(heads)]
    top = {divmod(int(place), values.shape[1]) for place in order if values.flat[place] > 0}
    return sum((head.layer, head.head) in top for head in heads) / len(heads)


def logit_difference(stages: Stages) -> Outcome:
    """The model prefers the indirect object."""
    clusters = [list(stages.groups)]
    text = "logit of the indirect object minus the subject's"
    return Outcome(
        (ml.claims.mean_above(text, stages.logit_diff, 0.5, clusters=clusters),),
        f"on {stages.logit_diff.sizes['prompt']} pairs",
    )


SECTION = {
    "name movers": "section 3.1",
    "negative name movers": "section 3.1",
    "backup name movers": "section 3.4",
    "S-inhibition": "section 3.2",
    "induction and duplicate token": "section 3.3",
    "previous token": "section 3.3",
}
STAGE = {
    "name movers": "write the indirect object's logit directly (path to the logits, at the end)",
    "negative name movers": "write against it directly (path to the logits, at the end)",
    "backup name movers": "write more of it when the name movers are removed",
    "S-inhibition": "act through the queries of the name movers, at the end",
    "induction and duplicate token": "act through keys and values of S-inhibition heads, at S2",
    "previous token": "act through keys and values of the induction heads, at the word after S1",
}


def _claim(name: str) -> ml.claims.Claim:
    return ml.claims.Claim(
        name,
        f"{name[0].upper()}{name[1:]} {STAGE[name]}.",
        f"Wang et al. 2022 (arXiv 2211.00593), {SECTION[name]}",
        "On average over the class the effect has the expected sign and at least 1 % of the logit "
        "difference; it exceeds the mean of the other heads of the same layers; and more than half "
        "of the class is among the as many strongest heads of the stage.",
        lambda stages: test_class(stages, name),
    )


CLAIMS = (
    ml.claims.Claim(
        "task",
        "The model prefers the indirect object to the repeated name.",
        "Wang et al. 2022 (arXiv 2211.00593), section 2",
        "The mean logit difference is above half a logit.",
        logit_difference,
    ),
    *map(_claim, SIGN),
)
