"""Lines: a result along one axis (factor, layer, length, lag), with intervals."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import figure_layout
from mechlab.plots.grid_view import GridView, share_limits
from mechlab.plots.palette import QUALITATIVE
from mechlab.plots.reading import (
    Average,
    average,
    is_along_prompts,
    kind_of,
    labels_along,
    plotted,
    spread_prompts,
    words_of,
)
from mechlab.plots.tokens import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["control_views", "line_views", "lines"]

_X = ("alpha", "layer", "length", "lag", "k", "depth", "step", "checkpoint", "pos")
_SERIES = ("outcome", "source", "answer", "receiver", "sender", "head_set", "site", "head")
_ACROSS = 3  # panels side by side


def lines(
    data: xr.Dataset | xr.DataArray,
    *,
    x: str | None = None,
    value: str | None = None,
    prompt: int | str | None = None,
    interval: xr.Dataset | None = None,
    compare: xr.Dataset | xr.DataArray | None = None,
    title: str | None = None,
) -> "go.Figure":
    """Draw a result along one axis: alpha curves, knockout windows, the Token Lens, lens ranks.

    Args:
        data: a result, or an array with one axis to run along and at most two others: one line per
            entry of the first, one panel per entry of the second. An axis `prompt` is averaged,
            and axes of length 1 are left out.
        x: the axis to run along, or what is known of every prompt, such as its length; by default
            alpha, layer, length, lag, ….
        value: the variable to draw when `data` is a Dataset.
        prompt: label or index of one prompt, to be shown instead of the mean.
        interval: `low` and `high` for the bands; by default the t interval over prompts.
        compare: the same of something to compare with, drawn dashed. Random heads that a head
            scaling drew itself are drawn so without it.
        title: heading; default: metric, prompts and how it was made.

    Returns:
        A plotly figure; all panels have one scale.

    Raises:
        OptionError: when the axes do not make lines.
    """
    views = line_views(data, x=x, value=value, prompt=prompt, interval=interval)
    other = control_views(data, x=x, value=value, prompt=prompt)
    if compare is not None:
        other = line_views(compare, x=x, value=value, prompt=prompt)
    return _figure(views, other, title)


def line_views(
    data: xr.Dataset | xr.DataArray,
    *,
    x: str | None = None,
    value: str | None = None,
    prompt: int | str | None = None,
    interval: xr.Dataset | None = None,
) -> list[GridView]:
    """Return one grid per panel as plain data: a row per point of the axis, a column per line.

    Arguments and errors are those of `lines`; random control sets are left out.
    """
    array = _along_axis(plotted(data, value), x)
    shown = average(array, prompt=prompt, interval=interval)
    chosen, _ = _split(shown)
    return _views(array, chosen, x)


def control_views(
    data: xr.Dataset | xr.DataArray,
    *,
    x: str | None = None,
    value: str | None = None,
    prompt: int | str | None = None,
) -> list[GridView]:
    """Return the mean over the random control sets of each panel; empty when there are none.

    Arguments and errors are those of `lines`.
    """
    array = _along_axis(plotted(data, value), x)
    _, controls = _split(average(array, prompt=prompt))
    if controls is None:
        return []
    views = _views(array, controls, x)
    return [replace(view, ci_low=None, ci_high=None) for view in views]


def _along_axis(array: xr.DataArray, x: str | None) -> xr.DataArray:
    """Return an array with the axis `x`, which may be a coordinate of its prompts."""
    if x is None or x in array.dims or not is_along_prompts(array, x):
        return array
    return spread_prompts(array, x)


def _split(shown: Average) -> tuple[Average, Average | None]:
    """Return the sets that were asked for, and the mean of each one's random controls."""
    coords = shown.mean.coords
    if "head_set" not in shown.mean.dims or "is_control" not in coords:
        return shown, None
    control = coords["is_control"].values.astype(bool)
    chosen = shown.isel(head_set=np.flatnonzero(~control))
    if not control.any():
        return chosen, None
    owners = coords["control_of"].values
    names = [str(name) for name in chosen.mean["head_set"].values]
    means = [
        shown.mean.isel(head_set=np.flatnonzero(owners == name)).mean("head_set") for name in names
    ]
    mean = xr.concat(means, "head_set").assign_coords(head_set=names)
    empty = xr.full_like(mean, np.nan)
    return chosen, Average(mean, empty, empty, shown.n)


def _views(array: xr.DataArray, shown: Average, x: str | None) -> list[GridView]:
    words = words_of(array, shown)
    single = {str(d): 0 for d in shown.mean.dims if shown.mean.sizes[d] == 1}
    along = _along(shown.mean, x)
    single.pop(along, None)
    told = [
        f"{d} {labels_along(shown.mean, d)[0]}"
        for d in single
        if d in shown.mean.coords and d not in ("pos", "site")
    ]
    told += ["bands: 95 % intervals"] if shown.has_interval else []
    words["note"] = ", ".join(filter(None, [words["note"], *told]))
    shown = shown.isel(**single)
    rest = [str(dim) for dim in shown.mean.dims if dim != along]
    rest.sort(key=lambda dim: _SERIES.index(dim) if dim in _SERIES else len(_SERIES))
    if len(rest) > 2:
        raise OptionError(
            f"lines along {along!r} cannot be drawn of dims {tuple(map(str, shown.mean.dims))}: "
            "at most two others make lines and panels. Select or average some first."
        )
    series, panel = [*rest, None, None][:2]
    panels = range(shown.mean.sizes[panel]) if panel else [None]
    titles = [f"{_spaced(name)}" for name in labels_along(shown.mean, panel)] if panel else [""]
    views = [
        _view(shown if i is None else shown.isel(**{str(panel): i}), along, series, t, words)
        for i, t in zip(panels, titles, strict=True)
    ]
    return share_limits(views)


def _along(mean: xr.DataArray, x: str | None) -> str:
    dims = [str(dim) for dim in mean.dims]
    if x is not None and x in dims:
        return x
    found = [dim for dim in _X if dim in dims]
    if x is not None or not found:
        raise OptionError(
            f"lines run along one axis, and {x or 'none of ' + ', '.join(_X)} is not among "
            f"{tuple(dims)}. Name one with x=..."
        )
    longer = [dim for dim in found if mean.sizes[dim] > 1]
    return (longer or found)[0]


def _view(
    shown: Average, along: str, series: str | None, title: str, words: dict[str, Any]
) -> GridView:
    def grid(of: xr.DataArray) -> np.ndarray[Any, Any]:
        order = [along, series] if series else [along]
        values: np.ndarray[Any, Any] = of.transpose(*order).values.astype(np.float32)
        if limits != (0.0, 0.0):
            values = values.clip(*limits)  # a share has no interval beyond 0 and 1
        return values.reshape(len(values), -1)

    kind, limits = kind_of(shown.mean)
    names = labels_along(shown.mean, series) if series else [str(words["metric"])]
    return GridView(
        values=grid(shown.mean),
        row_labels=tuple(labels_along(shown.mean, along)),
        col_labels=tuple(_spaced(name) for name in names),
        row_name=along,
        col_name=series or "line",
        kind=kind,
        limits=limits,
        title=title,
        ci_low=grid(shown.low) if shown.has_interval else None,
        ci_high=grid(shown.high) if shown.has_interval else None,
        **words,
    )


def _spaced(name: str) -> str:
    return name.replace("_", " ")


# --- the figure -----------------------------------------------------------------------------------


def _figure(views: Sequence[GridView], other: Sequence[GridView], title: str | None) -> "go.Figure":
    from plotly.subplots import make_subplots

    across = min(len(views), _ACROSS)
    rows = -(-len(views) // across)
    figure = make_subplots(
        rows=rows,
        cols=across,
        shared_yaxes=True,
        subplot_titles=[escape(view.title, "html") for view in views],
        horizontal_spacing=0.05,
        vertical_spacing=0.28 / rows,
    )
    names = list(dict.fromkeys(label for view in views for label in view.col_labels))
    for index, view in enumerate(views):
        place = {"row": index // across + 1, "col": index % across + 1}
        same = [o for o in other if o.title == view.title]
        for trace in _traces(view, names, same, first=index == 0):
            figure.add_trace(trace, **place)
        figure.update_xaxes(**_x_axis(view), **place)
        figure.update_yaxes(**_y_axis(view, first=place["col"] == 1), **place)
    first = views[0]
    heading = [title] if title else [first.subject or first.metric, first.facts]
    figure.update_layout(
        **figure_layout(heading, meta=title or first.metric, height=150 + 300 * rows),
        legend={"title": {"text": escape(_spaced(first.col_name), "html")}, "x": 1.01, "y": 1},
        showlegend=len(names) > 1 or bool(other),
    )
    return figure


def _traces(
    view: GridView, names: list[str], other: Sequence[GridView], *, first: bool
) -> list[Any]:
    """Return the lines of a panel, bands below them, dashed ones of the comparison."""
    import plotly.graph_objects as go

    x = _numbers(view.row_labels)
    bands, drawn = [], []
    for column, name in enumerate(view.col_labels):
        color = QUALITATIVE[names.index(name) % len(QUALITATIVE)]
        if view.ci_low is not None and view.ci_high is not None:
            low, high = view.ci_low[:, column], view.ci_high[:, column]
            bands.append(interval_band(x, low, high, color, name))
        words = [escape(view.describe(row, column), "html") for row in range(len(x))]
        drawn.append(
            go.Scatter(
                x=x, y=view.values[:, column], mode="lines+markers", name=escape(name, "html"),
                legendgroup=name, showlegend=first,
                line={"color": color, "width": _width(column, view)},
                marker={"size": 6, "color": color},
                text=words, hovertemplate="%{text}<extra></extra>",
            )
        )  # fmt: skip
    for view_ in other:
        for column, name in enumerate(view_.col_labels):
            color = QUALITATIVE[names.index(name) % len(QUALITATIVE)] if name in names else "#777"
            drawn.append(
                go.Scatter(
                    x=_numbers(view_.row_labels), y=view_.values[:, column], mode="lines",
                    name=escape(f"{name}, control", "html"), legendgroup=f"{name} control",
                    showlegend=first, line={"color": color, "width": 1.5, "dash": "dash"},
                    hovertemplate="control: %{y:.4f}<extra></extra>",
                )
            )  # fmt: skip
    return [*bands, *drawn]


def _width(column: int, view: GridView) -> float:
    """Return a width that lets a line be seen below a later one that covers it."""
    return 4.0 - 2.4 * column / max(view.shape[1] - 1, 1)


def interval_band(x: list[float], low: Any, high: Any, color: str, name: str) -> Any:
    """Return the faint area between two lines, left out where either is not known."""
    import plotly.graph_objects as go

    there = np.isfinite(low) & np.isfinite(high)
    edges = np.flatnonzero(np.diff(there.astype(np.int8), prepend=0, append=0))
    xs: list[float | None] = []
    ys: list[float | None] = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):  # an area per unbroken stretch
        part = slice(start, stop)
        xs += [*x[part], *x[part][::-1], None]
        ys += [*high[part], *low[part][::-1], None]
    return go.Scatter(
        x=xs[:-1], y=ys[:-1], mode="none", fill="toself",
        fillcolor=_faint(color), name=f"{name} interval", showlegend=False, hoverinfo="skip",
    )  # fmt: skip


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def _numbers(labels: Sequence[str]) -> list[float]:
    """Return the labels as numbers, or their places where they are words."""
    try:
        return [float(label) for label in labels]
    except ValueError:
        return [float(place) for place in range(len(labels))]


def _x_axis(view: GridView) -> dict[str, Any]:
    numbers = _numbers(view.row_labels)
    step = max(1, -(-len(numbers) // 16))
    return {
        "title": {"text": _spaced(view.row_name), "standoff": 8},
        "tickmode": "array",
        "tickvals": numbers[::step],
        "ticktext": [escape(label, "html") for label in view.row_labels[::step]],
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "linecolor": "#8a8a8a",
    }


def _y_axis(view: GridView, *, first: bool) -> dict[str, Any]:
    unit, top = f" ({view.unit})" if view.unit else "", view.limits[1]
    return {
        "title": {"text": escape(view.metric + unit, "html"), "standoff": 6} if first else None,
        "range": [-0.03 * top, 1.03 * top] if view.limits in ((0.0, 1.0), (0.0, 100.0)) else None,
        "gridcolor": "#ececec",
        "zeroline": True,
        "zerolinecolor": "#8a8a8a",
        "automargin": True,
    }
