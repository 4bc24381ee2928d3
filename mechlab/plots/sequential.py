"""Sequential editing: what is left of a model, and of its edits, as more and more are made."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import figure_layout
from mechlab.plots.grid_view import GridView
from mechlab.plots.palette import QUALITATIVE
from mechlab.plots.tokens import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["sequential_curve", "sequential_views"]

FOLLOWED = (
    "efficacy_latest",
    "retention",
    "efficacy",
    "paraphrase",
    "neighbourhood",
    "nll_rise",
    "drift",
    "relative_norm",
)
"""What is drawn when nothing is named, as far as a result holds it."""

_NAMES = {
    "efficacy_latest": "latest edits hold",
    "retention": "earlier edits hold",
    "efficacy": "all edits hold",
    "paraphrase": "paraphrases of all edits",
    "neighbourhood": "neighbours kept",
    "nll_rise": "rise of the loss on other text (nats)",
    "drift": "KL on other text (nats)",
    "relative_norm": "norm of the change / of the weight",
    "cumulative_norm": "norm of the change",
    "largest_norm": "largest single change",
    "smallest_division_ratio": "smallest division ratio",
}
_SHARES = ("efficacy_latest", "retention", "efficacy", "paraphrase", "neighbourhood")
_ACROSS = 4
_WIDE = 50.0  # a largest value so many times the median needs a logarithmic axis

Results = xr.Dataset | Mapping[str, xr.Dataset]


def sequential_curve(
    data: Results,
    *,
    metrics: Sequence[str] | None = None,
    title: str | None = None,
) -> "go.Figure":
    """Draw metrics against the number of edits in force, one panel each.

    Args:
        data: result of `sequential_edits` or `batch_edits`; several by name, such as one for each
            variant, are lines of different colours.
        metrics: names of variables of (step); by default those of `FOLLOWED` that have a number.
        title: heading; default: what is drawn, model and layer.

    Returns:
        A plotly figure. Where a model has collapsed, a cross stands on each of its lines and a
        dotted line goes down. Axes over several orders of magnitude are logarithmic; what is not
        above 0 has no place on them and is left out.

    Raises:
        OptionError: data of another kind, or metrics that are not of (step).
    """
    from plotly.subplots import make_subplots

    series = _series(data)
    views = sequential_views(series, metrics=metrics)
    across = min(_ACROSS, -(-len(views) // (1 if len(views) <= 3 else 2)))
    rows = -(-len(views) // across)
    figure = make_subplots(
        rows=rows, cols=across, subplot_titles=[escape(view.title, "html") for view in views],
        horizontal_spacing=0.055, vertical_spacing=0.24 / rows,
    )  # fmt: skip
    collapsed = {name: _collapse(one) for name, one in series.items()}
    for index, view in enumerate(views):
        place = {"row": index // across + 1, "col": index % across + 1}
        for drawn in _lines(view, collapsed, first=index == 0):
            figure.add_trace(drawn, **place)
        for column, name in enumerate(view.col_labels):
            if collapsed[name] is not None:
                line = {"color": _color(column), "width": 1, "dash": "dot"}
                figure.add_vline(x=collapsed[name], line=line, **place)
        below = index + across >= len(views)
        figure.update_xaxes(**_step_axis(view, titled=below), **place)
        figure.update_yaxes(**_value_axis(view), **place)
    heading = [title] if title else [_heading(series)]
    figure.update_annotations(font_size=13)
    figure.update_layout(
        **figure_layout([*heading, _told(views[0], collapsed)], meta=heading[0],
                        height=140 + 260 * rows),
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1 + 0.16 / rows,
                "yanchor": "bottom"},
        showlegend=len(series) > 1,
    )  # fmt: skip
    return figure


def sequential_views(data: Results, *, metrics: Sequence[str] | None = None) -> list[GridView]:
    """Return one grid per metric as plain data: a row per number of edits, a column per series.

    Arguments and errors are those of `sequential_curve`.
    """
    series = _series(data)
    chosen = FOLLOWED if metrics is None else metrics
    if metrics is not None and (
        missing := [n for n in metrics if not any(_along_steps(one, n) for one in series.values())]
    ):
        raise OptionError(
            f"no {', '.join(missing)} of (step) in these results. They hold: "
            f"{', '.join(_steps_of(next(iter(series.values()))))}. Name some of these."
        )
    steps = sorted({int(step) for one in series.values() for step in one["step"].values})
    views = [_view(series, name, steps) for name in chosen]
    return [view for view in views if metrics is not None or np.isfinite(view.values).any()]


def _series(data: Results) -> dict[str, xr.Dataset]:
    """Return the results by name.

    Raises:
        OptionError: when one of them is not of a number of edits.
    """
    if isinstance(data, xr.Dataset):
        series = {str(data.attrs.get("variant", "edits")): data}
    else:
        series = {str(name): one for name, one in data.items()}
    wrong = [name for name, one in series.items() if not _steps_of(one)]
    if wrong or not series:
        raise OptionError(
            f"a sequential curve cannot be drawn of {', '.join(wrong) or 'nothing'}. Allowed: "
            "results of sequential_edits or batch_edits, or several of them by name."
        )
    return series


def _steps_of(one: object) -> list[str]:
    if not isinstance(one, xr.Dataset) or "step" not in one.coords:
        return []
    return [str(name) for name in one.data_vars if _along_steps(one, str(name))]


def _along_steps(one: xr.Dataset, name: str) -> bool:
    return name in one and one[name].dims == ("step",) and one[name].dtype.kind == "f"


def _view(series: Mapping[str, xr.Dataset], name: str, steps: Sequence[int]) -> GridView:
    def column(one: xr.Dataset) -> Any:
        known = one[name].reindex(step=list(steps)) if _along_steps(one, name) else None
        return np.full(len(steps), np.nan) if known is None else known.values

    first = next(iter(series.values()))
    shares = name in _SHARES
    at_once = first.attrs.get("method") == "batch_edits"
    return GridView(
        values=np.stack([column(one) for one in series.values()], axis=1).astype(np.float32),
        row_labels=tuple(map(str, steps)),
        row_name="edits at once" if at_once else "edits in force",
        row_order="down",
        col_labels=tuple(series),
        col_name="series",
        kind="sequential" if shares else "diverging",
        limits=(0.0, 1.0) if shares else (0.0, 0.0),
        title=_NAMES.get(name, name.replace("_", " ")),
        metric=name.replace("_", " "),
        unit="share" if shares else "",
        note=str(first.attrs.get("model_name", "")),
    )


def _collapse(one: xr.Dataset) -> int | None:
    step = int(one.attrs.get("collapse_step", -1))
    return step if step >= 0 else None


def _color(column: int) -> str:
    return QUALITATIVE[column % len(QUALITATIVE)]


def _lines(view: GridView, collapsed: Mapping[str, int | None], *, first: bool) -> list[Any]:
    import plotly.graph_objects as go

    steps, found = [int(label) for label in view.row_labels], []
    for column, name in enumerate(view.col_labels):
        values = view.values[:, column].astype(float)
        there = np.isfinite(values) & ((values > 0) | (not _is_wide(view)))
        xs = [step for step, known in zip(steps, there, strict=True) if known]
        fallen = [collapsed[name] is not None and step == collapsed[name] for step in xs]
        words = [escape(view.describe(int(row), column), "html") for row in np.flatnonzero(there)]
        found.append(
            go.Scatter(
                x=xs, y=values[there], mode="lines+markers", name=escape(name, "html"),
                legendgroup=name, showlegend=first,
                line={"color": _color(column), "width": 2.2 - 0.2 * column},
                marker={"color": _color(column), "size": [12 if f else 5 for f in fallen],
                        "symbol": ["x" if f else "circle" for f in fallen]},
                text=words, hovertemplate="%{text}<extra></extra>",
            )
        )  # fmt: skip
    return found


def _heading(series: Mapping[str, xr.Dataset]) -> str:
    first = next(iter(series.values()))
    at_once = first.attrs.get("method") == "batch_edits"
    return "Many edits at once" if at_once else "Edit after edit"


def _told(view: GridView, collapsed: Mapping[str, int | None]) -> str:
    fallen = [f"{name} collapses at {step} edits" for name, step in collapsed.items() if step]
    return " · ".join(
        filter(None, [view.note, *fallen, "× and dotted: collapse" if fallen else ""])
    )


def _step_axis(view: GridView, *, titled: bool) -> dict[str, Any]:
    return {
        "title": {"text": view.row_name, "standoff": 8} if titled else None,
        "showgrid": False,
        "zeroline": False,
        "nticks": 6,
    }


def _is_wide(view: GridView) -> bool:
    """Return whether values span orders of magnitude, so that a logarithmic axis is needed."""
    known = view.values[np.isfinite(view.values)]
    positive = known[known > 0]
    if view.limits == (0.0, 1.0) or positive.size < 3 or 2 * positive.size < known.size:
        return False
    return bool(positive.max() > _WIDE * np.median(positive))


def _value_axis(view: GridView) -> dict[str, Any]:
    shares = view.limits == (0.0, 1.0)
    return {
        "range": [-0.03, 1.04] if shares else None,
        "tickformat": ".0%" if shares else None,
        "type": "log" if _is_wide(view) else "linear",
        "exponentformat": "power",
        "nticks": 6,
        "gridcolor": "#ececec",
        "zeroline": True,
        "zerolinecolor": "#8a8a8a",
        "automargin": True,
    }
