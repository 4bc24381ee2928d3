"""Sorted head scores with the threshold from which a head counts: how few do the copying."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import figure_layout
from mechlab.plots.grid_view import VALUE, GridView
from mechlab.plots.palette import QUALITATIVE
from mechlab.plots.reading import average, labels_along, plotted, words_of
from mechlab.plots.tokens import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["score_view", "sorted_scores"]

_BELOW = "#9a9a9a"
_FEW = 12
_ROUNDING = 1e-9  # of means in float64: a threshold holds its own value


def sorted_scores(
    data: xr.Dataset | xr.DataArray,
    *,
    value: str = "retrieval_score",
    prompt: int | str | None = None,
    threshold: float = 0.1,
    most: int = 40,
    title: str | None = None,
) -> "go.Figure":
    """Draw the scores of all heads in falling order, with a line at the threshold.

    Args:
        data: a result, or an array with the axes layer and head. An axis `prompt` is averaged over
            the prompts that have a score.
        value: the variable to draw when `data` is a Dataset.
        prompt: label or index of one prompt, to be shown instead of the mean.
        threshold: the score from which a head counts, that score included.
        most: heads drawn at most, those that score nothing only as far as they fill up the first
            few; the heading counts them all.
        title: heading; default: what is scored, of what model, and the counts.

    Returns:
        A plotly figure; heads that reach the threshold are coloured, whiskers are 95 % t intervals
        over prompts.

    Raises:
        OptionError: when the axes are others, no head has a score, or an option is out of range.
    """
    import plotly.graph_objects as go

    view = score_view(data, value=value, prompt=prompt)
    _check(threshold, most)
    drawn = _drawn(view, most)
    scores = view.values[:drawn, 0]
    reach = scores >= threshold - _ROUNDING
    figure = go.Figure(
        go.Bar(
            x=list(range(drawn)), y=scores, name="score",
            marker_color=[QUALITATIVE[0] if high else _BELOW for high in reach],
            error_y=_whiskers(view, drawn),
            customdata=[escape(view.describe(row, 0), "html") for row in range(drawn)],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )  # fmt: skip
    count = int((view.values[view.state == VALUE] >= threshold - _ROUNDING).sum())
    line = {"color": QUALITATIVE[1], "width": 1.5, "dash": "dash"}
    figure.add_shape(
        type="line", xref="paper", x0=0, x1=1, y0=threshold, y1=threshold, line=line, name="limit"
    )
    figure.add_annotation(
        text=f"{count} {'head' if count == 1 else 'heads'}<br>≥ {threshold:g}",
        xref="paper", x=1.008, xanchor="left", y=threshold, yanchor="middle", showarrow=False,
        align="left",
    )  # fmt: skip
    heading = [title] if title else [view.subject or view.metric, view.facts]
    heading.append(_counts(view, drawn))
    figure.update_layout(
        **figure_layout(heading, meta=title or view.metric, height=430),
        xaxis=_names_axis(view.row_labels[:drawn]),
        yaxis=_score_axis(view, threshold),
        bargap=0.25,
        showlegend=False,
    )
    figure.update_layout(margin={"t": 112, "r": 90})
    return figure


def score_view(
    data: xr.Dataset | xr.DataArray,
    *,
    value: str = "retrieval_score",
    prompt: int | str | None = None,
) -> GridView:
    """Return all heads in falling order of their score as plain data, a row per head.

    Heads without a score are left out; equal ones stand by layer and head. Arguments and errors are
    those of `sorted_scores`.
    """
    array = plotted(data, value)
    shown = average(array, prompt=prompt)
    if {str(dim) for dim in shown.mean.dims} != {"layer", "head"}:
        raise OptionError(
            f"scores of heads cannot be sorted with the axes {tuple(map(str, shown.mean.dims))}. "
            "Allowed: layer and head, and prompt, which is averaged. Select or average the others."
        )
    mean, low, high = (
        of.transpose("layer", "head").values.astype(float).ravel()
        for of in (shown.mean, shown.low, shown.high)
    )
    if not np.isfinite(mean).any():
        raise OptionError(
            "no head has a score: no prompt succeeded, or nothing was computed. Allowed: at least "
            "one. Draw the unconditional scores, or prompts that the model answers."
        )
    order = np.argsort(-np.nan_to_num(mean, nan=-np.inf), kind="stable")
    order = order[np.isfinite(mean[order])]
    layers, heads = labels_along(shown.mean, "layer"), labels_along(shown.mean, "head")
    names = [f"L{layers[i // len(heads)]}H{heads[i % len(heads)]}" for i in order.tolist()]
    view = GridView(
        values=mean[order, None].astype(np.float32),
        row_labels=tuple(names),
        row_name="head",
        row_order="down",
        col_labels=(str(array.name).replace("_", " "),),
        col_name="score",
        kind="sequential",
        ci_low=low[order, None].astype(np.float32) if shown.has_interval else None,
        ci_high=high[order, None].astype(np.float32) if shown.has_interval else None,
        **words_of(array, shown),
    )
    return replace(view, n=_scored(array)) if view.n is not None else view


def _scored(array: xr.DataArray) -> int:
    """Return the number of prompts that have a score at all."""
    others = [dim for dim in array.dims if dim != "prompt"]
    return int(array.notnull().any(others).sum())


def _check(threshold: float, most: int) -> None:
    if isinstance(threshold, bool) or not np.isfinite(threshold):
        raise OptionError(f"threshold={threshold!r}. Allowed: finite numbers, such as 0.1.")
    if isinstance(most, bool) or int(most) != most or most < 1:
        raise OptionError(f"most={most!r} heads. Allowed: whole numbers from 1. Give one.")


def _drawn(view: GridView, most: int) -> int:
    """Return how many heads to draw: a long tail of nothing tells no more than its number."""
    something = int((view.values != 0).sum())
    return min(most, len(view.values), max(something, _FEW))


def _counts(view: GridView, drawn: int) -> str:
    """Say what the picture leaves out: heads not drawn, strong ones, those without any score."""
    scores = view.values[view.state == VALUE]
    strong, none = int((scores >= 0.5 - _ROUNDING).sum()), int((scores == 0).sum())
    return f"{drawn} of {len(scores)} heads drawn · {strong} ≥ 0.5 · {none} exactly 0"


def _whiskers(view: GridView, drawn: int) -> dict[str, Any] | None:
    if view.ci_low is None or view.ci_high is None:
        return None
    score = view.values[:drawn, 0]
    # A score is no less than nothing, whatever the t interval says.
    low = np.maximum(view.ci_low[:drawn, 0], np.minimum(score, 0))
    return {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(view.ci_high[:drawn, 0] - score),
        "arrayminus": np.nan_to_num(score - low),
        "color": "#6b6b6b",
        "thickness": 1,
        "width": 2,
    }


def _names_axis(names: Sequence[str]) -> dict[str, Any]:
    step = max(1, -(-len(names) // 40))
    return {
        "tickmode": "array",
        "tickvals": list(range(0, len(names), step)),
        "ticktext": list(names[::step]),
        "tickangle": -60 if len(names) > 12 else 0,
        "range": [-0.7, max(len(names) - 0.3, 8.0)],
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
    }


def _score_axis(view: GridView, threshold: float) -> dict[str, Any]:
    top = float(np.nanmax(view.values))
    if view.ci_high is not None and np.isfinite(view.ci_high).any():
        top = max(top, float(np.nanmax(view.ci_high)))
    unit = f" ({view.unit})" if view.unit else ""
    return {
        "title": {"text": escape(view.metric + unit, "html"), "standoff": 6},
        "range": [min(0.0, float(np.nanmin(view.values))), 1.08 * max(top, threshold)],
        "gridcolor": "#ececec",
        "zeroline": True,
        "zerolinecolor": "#8a8a8a",
        "automargin": True,
    }
