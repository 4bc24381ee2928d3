"""Attention by lag and copying scores in words: one row per head."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.cli.memory_tables import table, told

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

__all__ = [
    "draw_copying",
    "draw_lags",
    "numbers_of_copying",
    "numbers_of_lags",
    "tell_copying",
    "tell_lags",
]

_INDICES = ("contiguity", "asymmetry", "primacy", "recency")
_COLUMNS = {
    "head": "head", "peak_lag": "peak lag", "ahead": "at +1", "contiguity": "contiguity",
    "interval": "95 % interval", "asymmetry": "asymmetry", "primacy": "primacy",
    "recency": "recency",
}  # fmt: skip
_COPYING = {"head": "head", "copying": "copying", "status": "status"}


def draw_lags(result: "xr.Dataset") -> "go.Figure":
    """Return the lag curves, a panel per layer and a line per head."""
    from mechlab import plots

    return plots.lines(result, value="curve", x="lag")


def numbers_of_lags(result: "xr.Dataset", top: int) -> dict[str, Any]:
    """Return the heads with the highest contiguity, and whether intervals could be had."""
    rows = [{n: v for n, v in row.items() if n != "interval"} for row in _rows(result, top)]
    return {**_about(result), "heads": rows}


def tell_lags(result: "xr.Dataset", top: int) -> list[Any]:
    """Return the heads with the highest contiguity as a table."""
    about = _about(result)
    line = (
        f"attention {about['source']} by lag, mean of {result.sizes['prompt']} prompts; "
        f"baseline: {about['baseline']}; heads with the highest contiguity"
    )
    status = about["interval_status"]
    titles = {n: title for n, title in _COLUMNS.items() if n != "interval" or status == "ok"}
    return [line, *([] if status == "ok" else [status]), table(_rows(result, top), titles)]


def _about(result: "xr.Dataset") -> dict[str, str]:
    names = {"source": "source", "baseline": "baseline_kind", "interval_status": "interval_status"}
    return {name: str(result.attrs.get(ours, "")) for name, ours in names.items()}


def _rows(result: "xr.Dataset", top: int) -> list[dict[str, Any]]:
    mean = {name: result[name].mean("prompt") for name in _INDICES}
    score = mean["contiguity"].values
    found = []
    for index in np.argsort(-np.nan_to_num(score, nan=-np.inf), axis=None, kind="stable")[:top]:
        layer, head = (int(i) for i in np.unravel_index(index, score.shape))
        curve = result.curve.isel(layer=layer, head=head)
        if not bool(curve.notnull().any()):
            continue
        at = {"layer": layer, "head": head}
        low, high = (told(float(result[f"contiguity_{side}"].isel(at))) for side in ("low", "high"))
        found.append(
            {
                "head": f"L{layer}H{head}",
                "peak_lag": int(curve.lag[int(curve.argmax("lag"))]),
                "ahead": told(float(curve.sel(lag=1))),
                **{name: told(float(mean[name].isel(at))) for name in _INDICES},
                "contiguity_low": low,
                "contiguity_high": high,
                "interval": "" if low is None else f"{low:+.2g} to {high:+.2g}",
            }
        )
    return found


def draw_copying(result: "xr.Dataset") -> "go.Figure":
    """Return the copying scores as a grid of heads."""
    from mechlab import plots

    return plots.head_grid(result, value="copying")


def numbers_of_copying(result: "xr.Dataset", top: int) -> dict[str, Any]:
    """Return the heads with the highest copying score, and which score it is."""
    order = np.argsort(-np.nan_to_num(result.copying.values, nan=-np.inf), axis=None, kind="stable")
    rows = []
    for index in order[:top]:
        layer, head = (int(i) for i in np.unravel_index(index, result.copying.shape))
        one = result.isel(layer=layer, head=head)
        rows.append(
            {"head": f"L{layer}H{head}", "copying": told(float(one.copying)),
             "status": str(one.status.item())}
        )  # fmt: skip
    return {"kind": str(result.attrs.get("kind", "")), "heads": rows}


def tell_copying(result: "xr.Dataset", top: int) -> list[Any]:
    """Return the heads with the highest copying score as a table."""
    found = numbers_of_copying(result, top)
    return [
        f"copying score {found['kind']} ({result.attrs.get('convention', '')})",
        table(found["heads"], _COPYING),
    ]
