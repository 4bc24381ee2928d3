"""Emergence: how heads come to attend, and the model to recall, over training checkpoints."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import figure_layout
from mechlab.plots.lines import interval_band
from mechlab.plots.palette import QUALITATIVE
from mechlab.plots.reading import average, kind_of
from mechlab.plots.tokens import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["emergence"]

Array = np.ndarray[Any, Any]
_SCORES = ("prefix_matching", "previous_token", "duplicate_token", "contiguity", "asymmetry")
_FEW = 4  # prompts below which there is no interval
_ACROSS = 3
_REST = "#b4b4b4"


def emergence(
    data: xr.Dataset | Mapping[str, xr.DataArray],
    *,
    values: Sequence[str] | None = None,
    top: int = 5,
    title: str | None = None,
) -> "go.Figure":
    """Draw measures over training steps, on a logarithmic scale, one panel per measure.

    Args:
        data: a result of `ml.over_checkpoints`, or arrays with the axis `checkpoint` by name. Of
            arrays with layer and head the `top` heads of the last step are drawn in colour, the
            others grey; other axes but `prompt` (one at most, such as `head_set`) give a line per
            entry.
        values: the variables; by default prefix matching, previous token, duplicate token,
            contiguity and asymmetry, as far as they are there.
        top: how many heads are drawn in colour.
        title: heading.

    Returns:
        A plotly figure. Bands are 95 % t intervals over prompts, for four or more of them.
        Step 0 stands left of step 1, at a place of its own.

    Raises:
        OptionError: nothing to draw, variables without checkpoints or with other axes.
    """
    from plotly.subplots import make_subplots

    arrays = _arrays(data, values)
    across = min(len(arrays), _ACROSS)
    rows = -(-len(arrays) // across)
    figure = make_subplots(
        rows=rows, cols=across, vertical_spacing=0.3 / rows, horizontal_spacing=0.09,
        subplot_titles=[escape(name.replace("_", " "), "html") for name in arrays],
    )  # fmt: skip
    colors: dict[str, str] = {}
    banded = False
    for number, array in enumerate(arrays.values()):
        place = {"row": number // across + 1, "col": number % across + 1}
        x = _places(array.checkpoint.values)
        found, bands = _lines(array, x, top, colors)
        banded |= bands
        figure.add_traces(found, rows=place["row"], cols=place["col"])
        figure.update_xaxes(**_x_axis(array.checkpoint.values), **place)
        unit = escape(str(array.attrs.get("units", "")), "html")
        figure.update_yaxes(title_text=unit, gridcolor="#ececec", zerolinecolor="#8a8a8a", **place)
    figure.update_annotations(font_size=12)
    model = data.attrs.get("model_name") if isinstance(data, xr.Dataset) else None
    facts = [str(model)] if isinstance(model, str) else []
    facts += ["bands: 95 % intervals over prompts"] if banded else []
    heading = [title or "over training", ", ".join(facts)]
    figure.update_layout(
        **figure_layout(heading, meta=heading[0], height=150 + 300 * rows),
        legend={"x": 1.01, "y": 1, "tracegroupgap": 0},
    )
    return figure


def _arrays(
    data: xr.Dataset | Mapping[str, xr.DataArray], values: Sequence[str] | None
) -> dict[str, xr.DataArray]:
    """Return what is drawn, after checking all of it."""
    held = {str(name): array for name, array in dict(data).items()}
    usual = [n for n in _SCORES if n in held] if isinstance(data, xr.Dataset) else list(held)
    names = usual if values is None else list(values)
    wrong = [f"{n}: not there" for n in names if n not in held]
    for name in names:
        dims = {str(dim) for dim in held[name].dims} if name in held else {"checkpoint"}
        if "checkpoint" not in dims or len(dims - {"checkpoint", "prompt", "layer", "head"}) > 1:
            wrong.append(f"{name}: axes {sorted(dims)}")
    if wrong or not names:
        raise OptionError(
            f"emergence cannot draw {'; '.join(wrong) or 'nothing'}. Allowed: arrays with the axis "
            "checkpoint, perhaps prompt, layer and head, and at most one other. Name such with "
            "values=..., or select first."
        )
    return {name: held[name].sortby("checkpoint") for name in names}


def _lines(
    array: xr.DataArray, x: Array, top: int, colors: dict[str, str]
) -> tuple[list[Any], bool]:
    """Return bands, grey and coloured lines of one measure, and whether there are bands."""
    mean, low, high = _mean_and_band(array)
    series = [str(dim) for dim in mean.dims if dim != "checkpoint"]
    flat, below, above = (
        one.stack(_line=series, create_index=False) if series else one.expand_dims("_line")
        for one in (mean, low, high)
    )
    names = [_name(flat.isel(_line=i), series) for i in range(flat.sizes["_line"])]
    order = np.arange(len(names))
    if "head" in series:
        last = np.nan_to_num(flat.isel(checkpoint=-1).values, nan=-np.inf)
        order = np.argsort(-last, kind="stable")
    strong = order[:top] if "head" in series else order
    grey = [_line(x, flat.isel(_line=i).values, names[i], _REST, told=False) for i in order[top:]
            if "head" in series]  # fmt: skip
    bands, drawn = [], []
    for i in strong:
        told = names[i] not in colors
        color = colors.setdefault(names[i], QUALITATIVE[len(colors) % len(QUALITATIVE)])
        if np.isfinite(below.isel(_line=i).values).any():
            ends = (below.isel(_line=i).values, above.isel(_line=i).values)
            bands.append(interval_band(x.tolist(), *ends, color, names[i]))
        drawn.append(_line(x, flat.isel(_line=i).values, names[i], color, told=told))
    return [*grey, *bands, *drawn], bool(bands)


def _line(x: Array, y: Array, name: str, color: str, *, told: bool) -> Any:
    import plotly.graph_objects as go

    grey = color == _REST
    label = escape(name, "html")
    return go.Scatter(
        x=x, y=y, mode="lines" if grey else "lines+markers", name=label, legendgroup=label,
        showlegend=told, line={"color": color, "width": 1 if grey else 2}, marker={"size": 5},
        opacity=0.6 if grey else 1, hovertemplate=f"{label}: %{{y:.4g}}<extra></extra>",
    )  # fmt: skip


def _name(line: xr.DataArray, series: Sequence[str]) -> str:
    if {"layer", "head"} <= set(series):
        rest = [str(line[d].item()) for d in series if d not in ("layer", "head")]
        return " ".join([f"L{line['layer'].item()}H{line['head'].item()}", *rest])
    return " ".join(str(line[dim].item()) for dim in series) or str(line.name or "mean")


def _mean_and_band(array: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Return the mean over prompts and its interval, NaN for few prompts and within its limits."""
    shown = average(array)
    low, high = shown.low, shown.high
    if array.sizes.get("prompt", 1) < _FEW:
        low, high = low.where(False), high.where(False)
    limits = kind_of(array)[1]
    if limits != (0.0, 0.0):
        low, high = low.clip(*limits), high.clip(*limits)
    return shown.mean, low, high


def _places(steps: Array) -> Array:
    """Return steps as logarithms; step 0 as far left of the first as a factor of three."""
    later = steps[steps > 0]
    first = np.log10(later.min()) if len(later) else 0.0
    return np.where(steps > 0, np.log10(np.maximum(steps, 1)), first - np.log10(3))


def _x_axis(steps: Array) -> dict[str, Any]:
    """Return ticks at 0 and at steps that stand far enough apart."""
    places, kept = _places(steps), [0]
    span = max(float(np.ptp(places)), 1e-9)
    for index in range(1, len(steps)):
        if (places[index] - places[kept[-1]]) / span > 0.13:
            kept.append(index)
    return {
        "title": {"text": "training step", "standoff": 8},
        "tickmode": "array", "tickvals": places[kept].tolist(),
        "ticktext": [f"{int(steps[i]):,}" for i in kept],
        "showgrid": False, "zeroline": False, "showline": True, "linecolor": "#8a8a8a",
    }  # fmt: skip
