"""One estimate against another: exact effects and a screen, cell by cell."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import figure_layout
from mechlab.plots.palette import QUALITATIVE
from mechlab.plots.tokens import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["scatter"]


def scatter(
    x: xr.DataArray,
    y: xr.DataArray,
    *,
    label: str | None = None,
    named: int = 8,
    title: str | None = None,
) -> "go.Figure":
    """Draw one array against another of the same axes, a point per cell, with the line of equality.

    Args:
        x: for instance the exact effect. An axis `prompt` is averaged in both.
        y: for instance its estimate; cells that only one of them has are left out.
        label: `head` names points `L9H6`; by default they are named by all their coordinates.
        named: how many points, the farthest from zero, carry their name in the picture.
        title: heading; default: names, number of points and correlations.

    Returns:
        A plotly figure, both axes on one scale.

    Raises:
        OptionError: when the axes differ, `label` is unknown, or no cell is in both.
    """
    import plotly.graph_objects as go

    first, second = _mean(x), _mean(y)
    if set(first.dims) != set(second.dims):
        raise OptionError(
            f"x has the axes {tuple(map(str, first.dims))}, y {tuple(map(str, second.dims))}. "
            "Allowed: the same axes in both. Select or average first."
        )
    first, second = xr.align(first, second.transpose(*first.dims), join="inner")
    both = np.isfinite(first.values) & np.isfinite(second.values)
    if not both.any():
        raise OptionError("no cell is in both arrays. Allowed: arrays that share cells.")
    names = _names(first, label)[both]
    a, b = first.values[both].astype(float), second.values[both].astype(float)
    reach = 1.08 * max(np.abs(a).max(), np.abs(b).max(), 1e-6)
    far = _apart(a / reach, b / reach, named)
    points = go.Scatter(
        x=a, y=b, mode="markers+text", name="cells",
        marker={"size": 7, "color": QUALITATIVE[0], "opacity": 0.7},
        text=[escape(str(n), "html") if i in far else "" for i, n in enumerate(names)],
        textposition=["middle right" if i in far and v < 0.6 * reach else "middle left"
                      for i, v in enumerate(a)],
        textfont={"size": 11},
        customdata=[escape(str(name), "html") for name in names],
        hovertemplate="%{customdata}: %{x:.4f}, %{y:.4f}<extra></extra>",
    )  # fmt: skip
    equal = go.Scatter(
        x=[-reach, reach], y=[-reach, reach], mode="lines", name="equal", hoverinfo="skip",
        line={"color": "#9a9a9a", "width": 1, "dash": "dash"},
    )  # fmt: skip
    heading = [title] if title else [f"{_name(y, 'y')} against {_name(x, 'x')}", _facts(a, b)]
    figure = go.Figure([equal, points])
    axis = {
        "range": [-reach, reach],
        "constrain": "domain",
        "gridcolor": "#ececec",
        "zerolinecolor": "#8a8a8a",
    }
    figure.update_layout(
        **(figure_layout(heading, meta=title or "scatter", height=620) | {"width": 680}),
        xaxis={**axis, "title": {"text": escape(_axis(x, "x"), "html")}},
        yaxis={**axis, "title": {"text": escape(_axis(y, "y"), "html")}, "scaleanchor": "x"},
        showlegend=False,
    )
    return figure


def _mean(array: xr.DataArray) -> xr.DataArray:
    return array.mean("prompt", skipna=True) if "prompt" in array.dims else array


def _names(array: xr.DataArray, label: str | None) -> np.ndarray[Any, Any]:
    dims = [str(dim) for dim in array.dims]
    if label not in (None, "head") or (label == "head" and not {"layer", "head"} <= set(dims)):
        raise OptionError(
            f"label={label!r} of points with the axes {tuple(dims)}. Allowed: 'head' where there "
            "are layer and head, or none. Leave it out."
        )
    values = [array[d].values if d in array.coords else np.arange(array.sizes[d]) for d in dims]
    names = np.empty(array.shape, dtype=object)
    for place in np.ndindex(array.shape):
        at = {dim: values[i][place[i]] for i, dim in enumerate(dims)}
        head = f"L{at.pop('layer')}H{at.pop('head')}" if {"layer", "head"} <= at.keys() else ""
        names[place] = " ".join(filter(None, [head, *(f"{dim} {v}" for dim, v in at.items())]))
    return names


def _apart(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], most: int) -> set[int]:
    """Return the points to name: far from zero, and not where another name already stands."""
    chosen: list[int] = []
    for i in np.argsort(-np.maximum(np.abs(a), np.abs(b)), kind="stable").tolist():
        if len(chosen) == most:
            break
        if all(abs(a[i] - a[j]) > 0.25 or abs(b[i] - b[j]) > 0.06 for j in chosen):
            chosen.append(i)
    return set(chosen)


def _facts(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> str:
    """Return the number of points, Pearson's and Spearman's correlation where they exist."""
    from scipy import stats

    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return f"{len(a)} cells"
    r, rank = float(np.corrcoef(a, b)[0, 1]), float(stats.spearmanr(a, b).statistic)
    return f"{len(a)} cells · r = {r:.3f} · rank correlation {rank:.3f} · dashed: equal"


def _name(array: xr.DataArray, otherwise: str) -> str:
    return str(array.name).replace("_", " ") if array.name is not None else otherwise


def _axis(array: xr.DataArray, otherwise: str) -> str:
    unit = array.attrs.get("units")
    return f"{_name(array, otherwise)} ({unit})" if unit else _name(array, otherwise)
