"""What the study found, as a table of numbers."""

import numpy as np
import xarray as xr
from sequence_claims import Measured

SHOWN = {
    "efficacy": "edits that hold",
    "retention": "earlier ones that hold",
    "paraphrase": "paraphrases",
    "neighbourhood": "untouched neighbours kept",
    "drift": "drift, nats",
    "nll_rise": "rise of the loss, nats",
    "relative_norm": "change / weight",
}


def number_table(measured: Measured) -> list[tuple[str, ...]]:
    """Return one row per measurement of each way of editing."""
    rows = [("way", "edits", *SHOWN.values(), "largest update")]
    for name, result in (*measured.turns.items(), ("MEMIT", measured.batches)):
        for step in result.step.values[result.drift.notnull().values]:
            at = result.sel(step=step)
            largest = float(at.largest_norm) if "largest_norm" in at else np.nan
            cells = [_number(at, key) for key in SHOWN]
            rows.append(
                (name, str(int(step)), *cells, "" if np.isnan(largest) else f"{largest:.3g}")
            )
        if note := result.attrs.get("ended", ""):
            rows.append((name, str(note), *[""] * (len(SHOWN) + 1)))
    return rows


def _number(at: xr.Dataset, name: str) -> str:
    value = float(at[name])
    return "" if np.isnan(value) else f"{value:.3g}"
