"""What the study found, as a table of numbers and self-contained pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from mamba_claims import METRICS, SITES, Measured, at_role, scores

import mechlab as ml

PUBLISHED = {
    "out_proj": "92.9 to 94.4 to layer 19, 88 to 92 in 20 to 27, below 60 after 48, 4.4 in 63",
    "in_proj_ssm": "72.4 in layer 0, rising to 93.8 in 18, about 92 to 27",
    "in_proj_gate": "91 to 94 through layer 21, erratic after 28",
}
"""S by layer in Mamba-2.8b, 64 layers, 2,000 known CounterFact cases."""


def number_table(model: Measured, control: Measured) -> list[tuple[str, ...]]:
    """Return what was measured on both models, beside what was published."""
    rows = []
    for site in SITES:
        rows.append((f"{site}: S by layer", _by_layer(model, site), _by_layer(control, site),
                     PUBLISHED[site]))  # fmt: skip
        rows += [
            (f"{site}: {name} by layer", _part(model, site, name), _part(control, site, name), "")
            for name in METRICS
        ]
    found, other = dict(traced(model)), dict(traced(control))
    rows += [(text, found[text], other[text], "") for text in found]
    return [("measured", "trained", "untrained", "published, Mamba-2.8b"), *rows]


def _by_layer(measured: Measured, site: str) -> str:
    drawn = scores(measured.sweep).sel(site=site)
    low, high = np.quantile(drawn.values[1:], [0.025, 0.975], axis=0)
    each = zip(drawn[0].values, low, high, strict=True)
    return ", ".join(f"{100 * s:.0f} ({100 * a:.0f}-{100 * b:.0f})" for s, a, b in each)


def _part(measured: Measured, site: str, name: str) -> str:
    return ", ".join(f"{100 * v:.0f}" for v in measured.sweep[name].sel(site=site).mean("case"))


def traced(measured: Measured) -> Iterator[tuple[str, str]]:
    """Yield mean effects of restoring by layer, in probability."""
    trace = measured.trace
    clean, total = float(trace.clean_probability.mean()), float(trace.total_effect.mean())
    yield "probability of the answer; what another subject takes away", f"{clean:.3f}; {total:.3f}"
    for site in ("resid_post", "mixer_out"):
        for role in ("last_subject", "last_token"):
            mean = at_role(measured, site, role).mean("prompt")
            text = f"restored {site} at the {role.replace('_', ' ')}, by layer"
            yield text, ", ".join(f"{float(value):.2f}" for value in mean)


def figures(measured: Measured, folder: Path) -> list[Path]:
    """Write the sweep and the trace as pages that need nothing else; return their paths."""
    score = scores(measured.sweep, resamples=1)[0].drop_vars("sample", errors="ignore")
    swept = xr.DataArray(score, name="score", attrs={"units": "share"})
    effect = ml.by_token_role(measured.trace.indirect_effect).mean("prompt")
    drawn = {
        "sweep": ml.plots.lines(swept, x="layer", title="Score S of single edits, by layer"),
        **{
            f"trace-{site}": ml.plots.layer_by_token(effect.sel(site=site))
            for site in ("resid_post", "mixer_out")
        },
    }
    return [ml.plots.write_html(figure, folder / f"{kind}.html") for kind, figure in drawn.items()]
