"""What the study found, as tables of numbers and a picture."""

from pathlib import Path

import numpy as np
import xarray as xr
from where_claims import Measured

import mechlab as ml

COLUMNS = {
    "trace_effect": "tracing effect",
    "rewrite_score": "rewrite score",
    "efficacy": "efficacy",
    "paraphrase": "paraphrase",
    "neighbourhood": "neighbourhood",
    "norm": "norm of the update",
    "division_factor": "division factor",
}
RANKS = {
    "rank_over_layers": "over layers",
    "rank_over_facts": "over facts",
    "r2_layer": "R2 layer",
    "r2_effect": "R2 effect",
    "r2_added": "R2 added by the effect",
}


def number_table(measured: Measured) -> list[tuple[str, ...]]:
    """Return one row per layer, then one per measure of success."""
    story = measured.story
    width = len(COLUMNS) + 2
    rows = [("", *COLUMNS.values(), "score S")]
    for layer in story.layer.values[~np.isnan(story.score.values)]:
        at = story.sel(layer=layer)
        means = [f"{float(at[name].mean()):.3g}" for name in COLUMNS]
        rows.append((f"layer {layer}", *means, f"{float(at.score):.3g}"))
    rows.append((("effect against", *RANKS.values(), "the same, shuffled") + ("",) * width)[:width])
    for name in measured.agreement.outcome.values:
        row = measured.agreement.sel(outcome=name)
        cells = [_interval(row, key) for key in RANKS]
        shuffled = f"{float(row.r2_added_shuffled):.2g}"
        rows.append(((str(name), *cells, shuffled) + ("",) * width)[:width])
    return rows


def _interval(row: xr.Dataset, name: str) -> str:
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{value:.2g} ({low:.2g} to {high:.2g})"


def figure(story: xr.Dataset, folder: Path) -> Path:
    """Draw success and tracing effect by layer."""
    return ml.plots.write_html(ml.plots.layer_sweep(story), folder / "layer_sweep.html")
