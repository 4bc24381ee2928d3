"""The claims of McGrath et al. 2023 (the Hydra effect), as tests on ablations of every module.

Numbers are centred logits of the answer. The attention layer that is looked at is the one with the
largest direct effect on facts about one half of the subjects, the last layer left out; measured is
on the facts about the other half, both ways.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

import mechlab as ml

MIN_LOGITS = 0.1
"""An effect counts from a tenth of a logit on: it changes odds by a tenth."""
MIN_FACTS = 8
"""Fewer facts, or subjects, are not tested."""

Outcome = ml.claims.Outcome


@dataclass(frozen=True)
class Repaired:
    """A result of `ml.self_repair`, and which facts are not independent of one another."""

    result: xr.Dataset
    subjects: Sequence[str]
    sentences: Sequence[str]

    @property
    def clusters(self) -> list[list[object]]:
        """Groupings of the facts: by subject, and by sentence where there are several."""
        several = len(set(self.sentences)) > 1
        return [list(self.subjects), *([list(self.sentences)] if several else [])]

    @property
    def halves(self) -> np.ndarray:
        """0 or 1 per fact; all facts about one subject are in the same half."""
        order: dict[str, int] = {}
        return np.array([order.setdefault(s, len(order)) % 2 for s in self.subjects])

    def chosen_layers(self) -> xr.DataArray:
        """Return for each fact the attention layer that does most for the other half."""
        direct = self.result.direct_effect.sel(site="attn_out").isel(layer=slice(None, -1))
        half = self.halves
        peaks = [
            int(direct.isel(prompt=half != own).mean("prompt").idxmax("layer")) for own in (0, 1)
        ]
        return xr.DataArray(np.array(peaks)[half], dims="prompt")

    def at(self, name: str) -> xr.DataArray:
        """Return a variable of ablating the attention of the chosen layer, per fact."""
        return self.result[name].sel(site="attn_out").sel(layer=self.chosen_layers())

    def slope(self) -> xr.Dataset:
        """Return the line of compensation over direct effect, at the chosen layers."""
        cells = xr.Dataset(
            {
                name: self.at(name)
                .drop_vars(["site", "layer"])
                .expand_dims({"site": ["attn_out"], "layer": [0]})
                for name in ("direct_effect", "compensatory_effect")
            }
        )
        return ml.repair_slope(cells, cluster=list(self.subjects)).squeeze()


def untestable(found: Repaired) -> Outcome | None:
    """Say why a claim about attention layers cannot be tested, if it cannot."""
    if "attn_out" not in found.result.site.values:
        text = "blocks have one mixer instead of attention and MLP"
        return Outcome(note=text, applies=False)
    if found.result.sizes["layer"] < 2:
        return Outcome(note="one layer: nothing comes after its attention", applies=False)
    facts, subjects = found.result.sizes["prompt"], len(set(found.subjects))
    if min(facts, subjects) < MIN_FACTS:
        return Outcome(
            note=f"{facts} facts about {subjects} subjects; at least {MIN_FACTS} of each are needed"
        )
    return None


def _mean(found: Repaired, text: str, values: xr.DataArray, bound: float = 0.0) -> "Condition":
    return ml.claims.mean_above(text, values, bound, clusters=found.clusters)


Condition = ml.claims.Condition


def _note(found: Repaired) -> str:
    layers = sorted(set(found.chosen_layers().values.tolist()))
    return f"at the attention of layer {' and '.join(map(str, layers))}"


# --- the claims -----------------------------------------------------------------------------------


def direct_exceeds_total(found: Repaired) -> Outcome:
    """What an attention layer writes is more than what is lost without it."""
    if (problem := untestable(found)) is not None:
        return problem
    direct, total = found.at("direct_effect"), found.at("total_effect")
    return Outcome(
        (
            _mean(found, "direct effect (logits)", direct, MIN_LOGITS),
            _mean(found, "direct minus total effect (logits)", direct - total, MIN_LOGITS),
        ),
        _note(found),
    )


def compensation(found: Repaired) -> Outcome:
    """Later modules write more of the answer when an attention layer is gone."""
    if (problem := untestable(found)) is not None:
        return problem
    line = found.slope()
    kinds = found.result.component_kind.values
    attention = found.at("compensation").isel(component=kinds == "attn").sum("component")
    return Outcome(
        (
            _mean(
                found,
                "compensatory effect of all later modules (logits)",
                found.at("compensatory_effect"),
                MIN_LOGITS,
            ),
            _mean(found, "of these, later attention layers (logits)", attention),
            Condition(
                "slope of the compensatory effect over the direct effect",
                float(line.slope),
                float(line.slope_low),
                float(line.slope_high),
            ),
        ),
        f"{_note(found)}; R² of the line {float(line.r_squared):.2f}",
    )


def erasure(found: Repaired) -> Outcome:
    """Late MLPs write against the answer, and less so when the attention is gone."""
    if (problem := untestable(found)) is not None:
        return problem
    result = found.result
    late = result.component_layer.values >= result.sizes["layer"] / 2
    mlps = (result.component_kind.values == "mlp") & late
    written = result.component_logit.isel(component=mlps).sum("component")
    shrinks = found.at("compensation").isel(component=mlps).sum("component")
    return Outcome(
        (
            _mean(found, "what MLPs of the later half write against it (logits)", -written),
            _mean(found, "by how much that shrinks under ablation (logits)", shrinks),
            _negative_correlation(found, found.at("direct_effect"), written),
        ),
        _note(found),
    )


def _negative_correlation(found: Repaired, first: xr.DataArray, second: xr.DataArray) -> Condition:
    """Return minus the correlation over facts; the interval resamples subjects."""
    x, y = first.values.astype(float), second.values.astype(float)
    subjects = np.unique(found.subjects, return_inverse=True)[1]
    members = [np.flatnonzero(subjects == one) for one in range(subjects.max() + 1)]
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(1000):
        rows = np.concatenate(
            [members[i] for i in random.integers(len(members), size=len(members))]
        )
        drawn.append(-_correlation(x[rows], y[rows]))
    ends = [np.nan, np.nan] if np.isnan(drawn).any() else np.quantile(drawn, [0.025, 0.975])
    text = "minus the correlation of what the attention and these MLPs write"
    return Condition(text, -_correlation(x, y), float(ends[0]), float(ends[1]))


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def norm(found: Repaired) -> Outcome:
    """The final norm alone gives part of the loss back: it divides by less."""
    if (problem := untestable(found)) is not None:
        return problem
    back = -found.at("norm_effect")
    return Outcome(
        (
            _mean(found, "logits given back by the changed norm", back, MIN_LOGITS),
            _mean(found, "share of the direct effect", back / found.at("direct_effect")),
        ),
        _note(found),
    )


PAPER = "McGrath et al. 2023 (arXiv 2307.15771)"
CLAIMS = (
    ml.claims.Claim(
        "direct_exceeds_total",
        "Before the last layer, less is lost by ablating an attention layer than it writes.",
        f"{PAPER}, abstract",
        "The attention layer with the largest direct effect writes at least a tenth of a logit, "
        "and its direct effect exceeds its total effect by a tenth of a logit.",
        direct_exceeds_total,
    ),
    ml.claims.Claim(
        "compensation",
        "Ablated attention layers are partly compensated by a later attention layer (Hydra).",
        f"{PAPER}, abstract",
        "With the norm held, later modules write at least a tenth of a logit more of the answer; "
        "so do later attention layers taken alone; and over facts, more where more is lost.",
        compensation,
    ),
    ml.claims.Claim(
        "erasure",
        "Late MLPs write against what attention writes, and less so when it is gone.",
        f"{PAPER}, abstract",
        "MLPs of the later half write negative logits of the answer on average; less negative ones "
        "under ablation; and the more negative, the more the attention writes.",
        erasure,
    ),
    ml.claims.Claim(
        "norm",
        "Part of the repair is the changed scale of the final norm, and no module's work.",
        "Rushing and Nanda 2024 (arXiv 2402.15390), abstract",
        "The norm gives back at least a tenth of a logit, and a positive share of the direct "
        "effect.",
        norm,
    ),
)
