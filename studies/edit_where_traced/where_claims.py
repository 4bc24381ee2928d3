"""The claims about where to edit: Meng et al. 2022 on one side, Hase et al. 2023 on the other.

Layers are chosen on one half of the facts and judged on the other, both ways round. Every claim
also asks that there is something to trace: on a model that knows nothing it must fail.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

import mechlab as ml

Claim, Condition, Outcome = ml.claims.Claim, ml.claims.Condition, ml.claims.Outcome

LOST = 0.3
"""Noise on the subject costs the answer more than this probability."""
LITTLE = 0.5
"""A layer holds little of a fact when its effect is less than this share of the strongest one's."""
REWRITTEN = 0.8
"""An edit works when the new object gets this share of the probability that it lacked."""
KEPT = 0.8
"""Neighbours are left alone when this share of them keeps the old object."""
ADDED = 0.05
"""Tracing explains almost nothing when it adds less than this share of the variance."""


@dataclass(frozen=True)
class Measured:
    """What the claims are tested on.

    Attributes:
        story: `ml.localize_edit_verify` on all facts.
        agreement: `ml.trace_edit_agreement` of it.
    """

    story: xr.Dataset
    agreement: xr.Dataset

    @property
    def halves(self) -> list[tuple[xr.Dataset, xr.Dataset]]:
        """Facts to choose on and facts to judge on, both ways; no subject is in both."""
        swept = self.story.isel(layer=(~np.isnan(self.story.rewrite_score)).any("case").values)
        _, number = np.unique(swept.subject.values, return_inverse=True)
        odd = number % 2 == 1
        if not odd.any():
            return [(swept, swept)]
        one, other = swept.isel(case=~odd), swept.isel(case=odd)
        return [(one, other), (other, one)]


def peak(half: xr.Dataset) -> int:
    """Return the layer whose MLP output brings most of the answer back, on average."""
    return int(half.trace_effect.mean("case").idxmax("layer"))


def elsewhere(half: xr.Dataset) -> int | None:
    """Return the best layer to edit among those that hold little of the facts, if there is one."""
    effect = half.trace_effect.mean("case")
    little = effect < LITTLE * effect.max()
    scores = half.case_score.mean("case").where(little)
    return int(scores.fillna(-1).idxmax("layer")) if bool(little.any()) else None


def over_facts(text: str, values: xr.DataArray, bound: float = 0.0) -> Condition:
    """Return a condition on a mean over facts, drawn by subject."""
    subjects = [str(subject) for subject in values.subject.values]
    plain = values.drop_vars([name for name in values.coords if name != "case"])
    return ml.claims.mean_above(text, plain.rename(case="prompt"), bound, clusters=[subjects])


def known(measured: Measured) -> Condition:
    """Return the condition that noise on the subject destroys the answer."""
    lost = measured.story.total_effect.sel(stage="before")
    return over_facts("probability of the answer lost with the subject", lost, LOST)


def _traced(measured: Measured) -> Outcome:
    layers = [peak(choose) for choose, _ in measured.halves]
    back = [
        judge.trace_effect.sel(layer=layer, drop=True)
        / judge.total_effect.sel(stage="before", drop=True)
        for layer, (_, judge) in zip(layers, measured.halves, strict=True)
    ]
    text = "share of it that the strongest layer's MLP output brings back"
    return Outcome(
        (known(measured), over_facts(text, xr.concat(back, "case"), 0.25)),
        f"at the last subject token; {_chosen(layers)}",
    )


def _order(measured: Measured) -> Outcome:
    row = measured.agreement.sel(outcome="case_score")
    ends = (float(row[f"rank_over_layers{end}"]) for end in ("", "_low", "_high"))
    text = "rank correlation of effect and score S over layers, mean over facts"
    return Outcome((known(measured), Condition(text, *ends)))


def _elsewhere(measured: Measured) -> Outcome:
    layers = [elsewhere(choose) for choose, _ in measured.halves]
    if None in layers:
        return Outcome(note="every layer holds as much of the facts as the strongest one")
    parts = []
    for layer, (choose, judge) in zip(layers, measured.halves, strict=True):
        top = judge.trace_effect.sel(layer=peak(choose), drop=True)
        at = judge[["trace_effect", "rewrite_score", "neighbourhood"]].sel(layer=layer, drop=True)
        parts.append(at.assign(less=LITTLE * top - at.trace_effect))
    held = xr.concat(parts, "case")
    return Outcome(
        (
            known(measured),
            over_facts("half of the strongest layer's effect minus that of the layer", held.less),
            over_facts("rewrite score of edits in the layer", held.rewrite_score, REWRITTEN),
            over_facts("neighbours kept", held.neighbourhood, KEPT),
        ),
        _chosen(layers),
    )


def _chosen(layers: Sequence[int | None]) -> str:
    return f"in layers {' and '.join(map(str, layers))}, each chosen on the other half of the facts"


def _no_guide(measured: Measured) -> Outcome:
    row = measured.agreement.sel(outcome="rewrite_score")
    value, low, high = (float(row[f"r2_added{end}"]) for end in ("", "_low", "_high"))
    text = f"{ADDED} minus the share of variance that the effect adds to the layer"
    return Outcome((known(measured), Condition(text, ADDED - value, ADDED - high, ADDED - low)))


MENG, HASE = "Meng et al. 2022, section 2", "Hase et al. 2023"
CLAIMS = (
    Claim(
        "traced",
        "An MLP output at the subject's last token brings the answer back.",
        MENG,
        f"Noise on the subject costs more than {LOST} of the answer's probability, and one layer's "
        "MLP output brings back more than a quarter of that.",
        _traced,
    ),
    Claim(
        "order",
        "Layers in which tracing finds more of a fact are better ones to edit it in.",
        f"{MENG} (how ROME chooses its layer)",
        "The rank correlation over layers between tracing effect and score S is above 0 on average "
        "over facts.",
        _order,
    ),
    Claim(
        "elsewhere",
        "Facts can be changed in layers in which tracing finds little of them.",
        f"{HASE}, abstract",
        f"A layer with less than {LITTLE} of the strongest effect, chosen on other facts, has a "
        f"rewrite score above {REWRITTEN} and keeps more than {KEPT} of the neighbours.",
        _elsewhere,
    ),
    Claim(
        "no_guide",
        "Beyond the layer, the tracing effect says almost nothing of an edit's success.",
        f"{HASE}, abstract (the layer is a far better predictor)",
        f"Added to one mean per layer, the effect explains less than {ADDED} of the variance of "
        "the rewrite score.",
        _no_guide,
    ),
)
