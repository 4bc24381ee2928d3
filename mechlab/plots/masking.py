"""Mask curves: what is left when the k highest heads are masked, against k random ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import figure_layout
from mechlab.plots.grid_view import GridView
from mechlab.plots.palette import QUALITATIVE
from mechlab.plots.reading import average, kind_of, options_of, plotted, words_of
from mechlab.plots.tokens import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["mask_curve", "mask_view"]

_TOLD = ("mask", "phase")
_COLORS = (QUALITATIVE[1], QUALITATIVE[0])
_BANDS = ("rgba(213,94,0,0.16)", "rgba(0,114,178,0.16)")
_NARROW = 26  # of about 760 points across, so that two numbers below the axis do not touch


@dataclass(frozen=True)
class _Curve:
    """One line over k: mean and interval `[k]`, and the means of single draws `[k, draw]`."""

    name: str
    k: tuple[int, ...]
    mean: np.ndarray[Any, Any]
    low: np.ndarray[Any, Any]
    high: np.ndarray[Any, Any]
    draws: np.ndarray[Any, Any]


def mask_curve(
    data: xr.Dataset | xr.DataArray,
    *,
    value: str = "recall",
    compare: xr.Dataset | xr.DataArray | None = None,
    title: str | None = None,
) -> "go.Figure":
    """Draw recall against the number of masked heads, chosen ones and random ones.

    Args:
        data: a result, or an array, with the axis `head_set` and its coordinate `k`, or with the
            axis `k` and perhaps `draw`; `prompt` is averaged. Sets with `is_control` are the random
            ones. What a Dataset holds as `unmasked_<value>` starts both curves at k = 0.
        value: the variable to draw when `data` is a Dataset.
        compare: the same for random heads, where `data` has none.
        title: heading; default: metric, model and how heads were masked.

    Returns:
        A plotly figure: bands are 95 % t intervals over prompts, of the mean over draws for random
        heads; every draw by itself is a dot.

    Raises:
        OptionError: when there is no k, or there are other axes.
    """
    curves, view = _curves(data, value, compare), mask_view(data, value=value, compare=compare)
    heading = [title] if title else [view.subject or view.metric, view.facts]
    import plotly.graph_objects as go

    figure = go.Figure()
    for index, curve in enumerate(curves):
        figure.add_traces(_traces(curve, index, view))
    ks = sorted({k for curve in curves for k in curve.k})
    figure.update_layout(
        **figure_layout(heading, meta=title or view.metric, height=430),
        xaxis={
            "title": {"text": "masked heads (k)", "standoff": 8},
            "tickmode": "array",
            "tickvals": (shown := _apart(ks)),
            "ticktext": [str(k) for k in shown],
            "showgrid": False,
            "zeroline": False,
            "showline": True,
            "linecolor": "#8a8a8a",
        },
        yaxis=_value_axis(view),
        legend={"x": 1.01, "y": 1},
        showlegend=True,
    )
    return figure


def mask_view(
    data: xr.Dataset | xr.DataArray,
    *,
    value: str = "recall",
    compare: xr.Dataset | xr.DataArray | None = None,
) -> GridView:
    """Return the curves as plain data, a row per k and a column per curve.

    Arguments and errors are those of `mask_curve`.
    """
    array = plotted(data, value)
    curves = _curves(data, value, compare)
    ks = sorted({k for curve in curves for k in curve.k})

    def grid(name: str) -> np.ndarray[Any, Any]:
        columns = [dict(zip(curve.k, getattr(curve, name), strict=True)) for curve in curves]
        return np.array([[c.get(k, np.nan) for c in columns] for k in ks], dtype=np.float32)

    words = words_of(array, average(array.astype(float)))
    options = options_of(array.attrs)
    told = [f"{name} {options[name]}" for name in _TOLD if options.get(name) is not None]
    several = any(curve.draws.shape[1] > 1 for curve in curves)
    has = bool(np.isfinite(grid("low")).any())
    told += ["bands: 95 % intervals over prompts"] if has else []
    told += ["dots: single draws"] if several else []
    words["note"] = ", ".join(filter(None, [words["note"], *told]))
    return GridView(
        values=grid("mean"),
        row_labels=tuple(map(str, ks)),
        row_name="k",
        row_order="down",
        col_labels=tuple(curve.name for curve in curves),
        col_name="head_set",
        kind="sequential",
        limits=kind_of(array)[1],
        ci_low=grid("low") if has else None,
        ci_high=grid("high") if has else None,
        **words,
    )


# --- reading --------------------------------------------------------------------------------------


def _curves(
    data: xr.Dataset | xr.DataArray, value: str, compare: xr.Dataset | xr.DataArray | None
) -> list[_Curve]:
    """Return the chosen heads' curve and, where there are any, that of random heads."""
    array = plotted(data, value)
    chosen, random = _split(array)
    start = data.get(f"unmasked_{value}") if isinstance(data, xr.Dataset) else None
    if compare is not None:
        random = _split(plotted(compare, value))[0]
        own = compare.get(f"unmasked_{value}") if isinstance(compare, xr.Dataset) else None
    else:
        own = start
    curves = [_curve("highest scores", chosen, start)]
    if random is not None:
        found = _curve("random", random, own)
        draws = found.draws.shape[1]
        curves.append(replace(found, name=f"random, {draws} draws") if draws > 1 else found)
    return curves


def _split(array: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray | None]:
    """Return chosen and random sets, each as (prompt, k, draw)."""
    if "head_set" in array.dims and "k" not in array.dims and "k" in array.coords:
        control = np.zeros(array.sizes["head_set"], bool)
        if "is_control" in array.coords:
            control = array["is_control"].values.astype(bool)
        if control.all():
            return _by_k(array), None
        rest = array.isel(head_set=np.flatnonzero(control)) if control.any() else None
        chosen = _by_k(array.isel(head_set=np.flatnonzero(~control)))
        return chosen, None if rest is None else _by_k(rest)
    return _complete(array), None


def _by_k(array: xr.DataArray) -> xr.DataArray:
    """Return sets of heads arranged by how many they are; sets of one size are draws."""
    sizes = array["k"].values.astype(int)
    ks = np.unique(sizes)
    groups = [np.flatnonzero(sizes == k) for k in ks]
    most = max(map(len, groups))
    bare = array.drop_vars([name for name in array.coords if "head_set" in array[name].dims])
    parts = []
    for members in groups:
        part = bare.isel(head_set=members).rename(head_set="draw").astype(float)
        parts.append(part.pad(draw=(0, most - len(members)), constant_values=np.nan))
    found: xr.DataArray = xr.concat(parts, "k").assign_coords(k=ks)
    return _complete(found)


def _complete(array: xr.DataArray) -> xr.DataArray:
    """Return (prompt, k, draw), with an axis of length 1 for what is missing."""
    dims = {str(dim) for dim in array.dims}
    if "k" not in dims or not dims <= {"prompt", "k", "draw"}:
        raise OptionError(
            f"a mask curve cannot be drawn of the axes {tuple(map(str, array.dims))}. Allowed: "
            "head_set with a coordinate k, or k and perhaps draw; prompt besides. Select or "
            "average the others first."
        )
    missing = [name for name in ("prompt", "draw") if name not in dims]
    return array.astype(float).expand_dims(missing).transpose("prompt", "k", "draw")


def _curve(name: str, array: xr.DataArray, start: xr.DataArray | None) -> _Curve:
    """Return the curve of an array (prompt, k, draw); `start` is what no mask gives."""
    ks = tuple(int(k) for k in array["k"].values)
    if start is not None and 0 not in ks:
        at_zero = start.astype(float)
        if "prompt" not in at_zero.dims:
            at_zero = at_zero.expand_dims(prompt=array.sizes["prompt"])
        values = np.broadcast_to(
            at_zero.values[:, None, None], (array.sizes["prompt"], 1, array.sizes["draw"])
        )
        ks, stacked = (0, *ks), np.concatenate([values, array.values], axis=1)
    else:
        stacked = array.values
    order = np.argsort(ks)
    whole = xr.DataArray(stacked[:, order], dims=("prompt", "k", "draw"))
    shown = average(whole.mean("draw", skipna=True))
    low, high = (of.values.clip(*_range(array)) for of in (shown.low, shown.high))
    return _Curve(
        name,
        tuple(ks[i] for i in order),
        shown.mean.values,
        low,
        high,
        whole.mean("prompt", skipna=True).values,
    )


def _range(array: xr.DataArray) -> tuple[float, float]:
    """Return what no interval reaches beyond: the ends of a share or a percentage."""
    limits = kind_of(array)[1]
    return limits if limits != (0.0, 0.0) else (-np.inf, np.inf)


# --- drawing --------------------------------------------------------------------------------------


def _traces(curve: _Curve, index: int, view: GridView) -> list[Any]:
    """Return a curve's band below its dots below its line."""
    import plotly.graph_objects as go

    color, x, found = _COLORS[index], np.array(curve.k), []
    there = np.isfinite(curve.low) & np.isfinite(curve.high)
    if there.any():
        found.append(
            go.Scatter(
                x=[*x[there], *x[there][::-1]], y=[*curve.high[there], *curve.low[there][::-1]],
                mode="none", fill="toself", fillcolor=_BANDS[index], name=f"{curve.name} interval",
                showlegend=False, hoverinfo="skip",
            )
        )  # fmt: skip
    draws = curve.draws.shape[1]
    if draws > 1:
        found.append(
            go.Scatter(
                x=np.repeat(x, draws), y=curve.draws.ravel(), mode="markers", showlegend=False,
                marker={"size": 5, "color": color, "opacity": 0.45}, name=f"{curve.name}, single",
                hovertemplate="one draw, k = %{x}: %{y:.4f}<extra></extra>",
            )
        )  # fmt: skip
    rows = {label: row for row, label in enumerate(view.row_labels)}
    words = [escape(view.describe(rows[str(k)], index), "html") for k in curve.k]
    found.append(
        go.Scatter(
            x=x, y=curve.mean, mode="lines+markers", name=escape(curve.name, "html"),
            line={"color": color, "width": 2.5, "dash": "dash" if index else "solid"},
            marker={"size": 7, "color": color}, text=words,
            hovertemplate="%{text}<extra></extra>",
        )
    )  # fmt: skip
    return found


def _apart(ks: Sequence[int]) -> list[int]:
    """Return the numbers below the axis, without those that would touch a neighbour."""
    span = max(ks[-1] - ks[0], 1)
    kept: list[int] = []
    for k in reversed(ks):  # the largest is always there
        if not kept or (kept[-1] - k) * 760 / span >= _NARROW:
            kept.append(k)
    return kept[::-1]


def _value_axis(view: GridView) -> dict[str, Any]:
    unit, top = f" ({view.unit})" if view.unit else "", view.limits[1]
    return {
        "title": {"text": escape(view.metric + unit, "html"), "standoff": 6},
        "range": [-0.03 * top, 1.03 * top] if view.limits in ((0.0, 1.0), (0.0, 100.0)) else None,
        "rangemode": "tozero",
        "gridcolor": "#ececec",
        "zeroline": True,
        "zerolinecolor": "#8a8a8a",
        "automargin": True,
    }
