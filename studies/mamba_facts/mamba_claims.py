"""The claims about facts in Mamba (Sen Sharma et al. 2024), at the same share of the depth.

Published is a sweep of single edits over the 64 layers of Mamba-2.8b; a layer here is compared with
the published one that stands at the same share of the way from the first layer to the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

import mechlab as ml

Claim, Condition, Outcome = ml.claims.Claim, ml.claims.Condition, ml.claims.Outcome

SITES = ("out_proj", "in_proj_ssm", "in_proj_gate")
METRICS = ("efficacy", "paraphrase", "neighbourhood")

EARLY = 19 / 63
"""Up to here all layers of out_proj were published within 1.5 points of the best."""
LATE = 48 / 63
"""Beyond it out_proj was published below 60."""
EDITED = 15 / 63
"""The layer whose parts were published: efficacy 100, paraphrase 94.5, neighbourhood 87.7."""

GOOD = 0.80
"""A score S counts as good from here; the published good layers have 0.92 to 0.94."""
POOR = 0.60
"""A score S counts as poor below."""
NEAR = 0.10
"""A layer is about as good as the best when its S is less than this below."""
SMALL = 0.05
"""An effect on a probability of no more than this counts as none."""


@dataclass(frozen=True)
class Measured:
    """What the claims are tested on.

    Attributes:
        trace: `ml.causal_trace` with interchanged subjects, at `resid_post` and `mixer_out`.
        sweep: `efficacy`, `paraphrase` and `neighbourhood` of (site, layer, case), each case with
            its own edit of that projection in that layer.
    """

    trace: xr.Dataset
    sweep: xr.Dataset

    @property
    def n_layers(self) -> int:
        """Layers that were edited."""
        return int(self.sweep.sizes["layer"])

    def up_to(self, depth: float, *, beyond: float = -1.0) -> list[int]:
        """Return the layers at shares of the depth above `beyond` and up to `depth`."""
        shares = np.arange(self.n_layers) / max(1, self.n_layers - 1)
        return [int(i) for i in np.flatnonzero((shares > beyond) & (shares <= depth + 1e-9))]

    @property
    def early(self) -> list[int]:
        """Layers of the first 30 per cent of the depth."""
        return self.up_to(EARLY)

    @property
    def late(self) -> list[int]:
        """Layers of the last quarter of the depth."""
        return self.up_to(1.0, beyond=LATE)


def scores(sweep: xr.Dataset, *, resamples: int = 2000, seed: int = 0) -> xr.DataArray:
    """Return S, `(sample, site, layer)`: entry 0 on all cases, the others on cases drawn anew.

    S is the harmonic mean of mean efficacy, paraphrase and neighbourhood. All cells are scored on
    the same cases, so that differences are paired.
    """
    held = sweep[list(METRICS)].to_array("metric").transpose("metric", "site", "layer", "case")
    count = held.sizes["case"]
    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, size=resamples)
    weights = np.concatenate([np.ones((1, count)), drawn]) / count
    means = np.einsum("mslc,nc->mnsl", held.values, weights)
    with np.errstate(divide="ignore"):
        found = len(METRICS) / (1 / means).sum(0)
    return xr.DataArray(
        found, {"site": sweep.site, "layer": sweep.layer}, ("sample", "site", "layer")
    )


def condition(text: str, drawn: xr.DataArray, bound: float) -> Condition:
    """Return the condition that a number drawn as by `scores` lies above a bound."""
    low, high = np.quantile(drawn.values[1:], [0.025, 0.975])
    return Condition(text, float(drawn[0]), float(low), float(high), bound)


def layers_text(layers: Sequence[int]) -> str:
    """Return layers as text."""
    return f"layers {layers[0]} to {layers[-1]}" if len(layers) > 1 else f"layer {layers[0]}"


# --- where an edit works --------------------------------------------------------------------------


def _out_proj_broad(measured: Measured) -> Outcome:
    drawn, early = scores(measured.sweep).sel(site="out_proj"), measured.early
    worst = drawn.sel(layer=early).min("layer")
    return Outcome(
        (
            condition("lowest S of the early layers", worst, GOOD),
            condition("the same minus the best S of any layer", worst - drawn.max("layer"), -NEAR),
        ),
        f"in {layers_text(early)}",
    )


def _out_proj_parts(measured: Measured) -> Outcome:
    layer = round(EDITED * (measured.n_layers - 1))
    cell = measured.sweep.sel(site="out_proj", layer=layer).rename(case="prompt")
    bounds = {"efficacy": 0.95, "paraphrase": 0.80, "neighbourhood": 0.75}
    return Outcome(
        tuple(ml.claims.mean_above(name, cell[name], bound) for name, bound in bounds.items()),
        f"in layer {layer}",
    )


def _out_proj_late(measured: Measured) -> Outcome:
    drawn, late = scores(measured.sweep).sel(site="out_proj"), measured.late
    best = drawn.sel(layer=late).max("layer")
    return Outcome(
        (
            condition(f"{POOR} minus the highest S of the late layers", POOR - best, 0.0),
            condition("best S of any layer", drawn.max("layer"), GOOD),
        ),
        f"in {layers_text(late)}",
    )


def _in_proj_ssm(measured: Measured) -> Outcome:
    drawn = scores(measured.sweep).sel(site="in_proj_ssm")
    within = drawn.sel(layer=measured.up_to(0.5, beyond=0.0)).max("layer")
    return Outcome(
        (
            condition("best S after layer 0, up to half of the depth", within, GOOD),
            condition("the same minus S in layer 0", within - drawn.sel(layer=0), SMALL),
        )
    )


def _in_proj_gate(measured: Measured) -> Outcome:
    drawn, early = scores(measured.sweep).sel(site="in_proj_gate"), measured.early
    return Outcome(
        (condition("lowest S of the early layers", drawn.sel(layer=early).min("layer"), GOOD),),
        f"in {layers_text(early)}",
    )


# --- where restoring a state brings the answer back -----------------------------------------------


def at_role(measured: Measured, site: str, role: str) -> xr.DataArray:
    """Return the indirect effect at a token role, `(prompt, layer)`, in probability."""
    effect = ml.by_token_role(measured.trace.indirect_effect)
    return effect.sel(site=site, token_role=role).drop_vars(["site", "token_role"])


def _early_site(measured: Measured) -> Outcome:
    layers = measured.up_to(0.5)
    subject = at_role(measured, "resid_post", "last_subject")
    mixer = at_role(measured, "mixer_out", "last_subject")
    mean = subject.sel(layer=layers).mean("layer")
    return Outcome(
        (
            _above("resid_post at the last subject token", mean),
            _above("the same minus that of the last layer", mean - subject.isel(layer=-1)),
            _above("mixer_out there, largest of the half", mixer.sel(layer=layers).max("layer")),
        ),
        f"in {layers_text(layers)}",
    )


def _late_site(measured: Measured) -> Outcome:
    layers = measured.up_to(1.0, beyond=0.5)
    last = at_role(measured, "resid_post", "last_token")
    mixer = at_role(measured, "mixer_out", "last_token")
    early = mixer.sel(layer=measured.up_to(0.5)).max("layer")
    first = last.sel(layer=0)
    return Outcome(
        (
            _above("resid_post at the last token", last.sel(layer=layers).mean("layer")),
            _above("the same minus that of layer 0", last.sel(layer=layers[-1]) - first),
            _above(
                "mixer_out there, largest of the half, minus that of the first half",
                mixer.sel(layer=layers).max("layer") - early,
            ),
        ),
        f"in {layers_text(layers)}",
    )


def _above(text: str, values: xr.DataArray) -> Condition:
    return ml.claims.mean_above(text, values, SMALL)


PAPER = "Sen Sharma et al. 2024 (arXiv 2404.03646)"
SWEEP = f"{PAPER}, sweep over layers, stored output of the public code"


CLAIMS = (
    Claim(
        "early_site",
        "Restoring the last subject token brings the answer back in the first half of the layers.",
        f"{PAPER}, abstract",
        "Effects on the answer's probability of more than 0.05, gone in the last layer.",
        _early_site,
    ),
    Claim(
        "late_site",
        "Restoring the last token of the prompt brings it back in the second half.",
        f"{PAPER}, abstract",
        "Effects of more than 0.05 above those of the first layers; mixers do it late as well.",
        _late_site,
    ),
    Claim(
        "out_proj_broad",
        "Edits of out_proj work in all layers of the first 30 per cent of the depth.",
        SWEEP,
        "Published S 92.9 to 94.4 in layers 0 to 19 of 64. Here: each above 80, and less than 10 "
        "below the best layer.",
        _out_proj_broad,
    ),
    Claim(
        "out_proj_parts",
        "There the edit holds, generalises, and leaves neighbours alone.",
        SWEEP,
        "Published in layer 15 of 64: efficacy 100, paraphrase 94.5, neighbourhood 87.7. Here: "
        "above 95, 80 and 75.",
        _out_proj_parts,
    ),
    Claim(
        "out_proj_late",
        "Edits of out_proj fail in the last quarter of the layers.",
        SWEEP,
        "Published S below 60 after layer 48 of 64, 4.4 in the last. Here: below 60 in all of "
        "them, while another layer is above 80.",
        _out_proj_late,
    ),
    Claim(
        "in_proj_ssm",
        "Edits of the SSM half of in_proj work, but worse in the first layer.",
        SWEEP,
        "Published S 72.4 in layer 0, rising to 93.8 in layer 18 of 64. Here: above 80 in the "
        "first half, and more than 5 above layer 0.",
        _in_proj_ssm,
    ),
    Claim(
        "in_proj_gate",
        "Edits of the gate half of in_proj work in the first 30 per cent of the depth.",
        SWEEP,
        "Published S 91 to 94 through layer 21 of 64. Here: each above 80.",
        _in_proj_gate,
    ),
)
