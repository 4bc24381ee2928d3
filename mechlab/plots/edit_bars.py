"""Bars of an edit: what holds before and after it, or with several methods, with intervals."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import figure_layout
from mechlab.plots.grid_view import GridView
from mechlab.plots.palette import QUALITATIVE
from mechlab.plots.reading import average
from mechlab.plots.tokens import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["EDIT_METRICS", "edit_bars", "edit_bars_view"]

EDIT_METRICS = (
    "score",
    "efficacy",
    "paraphrase",
    "neighbourhood",
    "other_relations",
    "languages",
    "two_hop",
)
"""What is drawn when nothing is named, as far as a result holds it."""

_NAMES = {"score": "score S", "two_hop": "two-hop"}
_BEFORE = "#b4b4b4"

Results = xr.Dataset | Mapping[str, xr.Dataset]


def edit_bars(
    data: Results,
    *,
    before: xr.Dataset | None = None,
    metrics: Sequence[str] | None = None,
    interval: xr.Dataset | None = None,
    title: str | None = None,
) -> "go.Figure":
    """Draw the averages of an edit's evaluation as bars, one group per metric.

    Args:
        data: an evaluation (`evaluate_edit`, `evaluate_each_edit`) or its `edit_summary`; several
            of them by name to compare methods.
        before: the same without the edit, drawn beside it in grey. Without it the column `before`
            of a summary is drawn, which has no intervals.
        metrics: names of metrics; by default the shares of successes and the score S.
        interval: unused; intervals come from the summary, or are t intervals over cases.
        title: heading; default: the model and how the intervals are made.

    Returns:
        A plotly figure. Whiskers are 95 % intervals, within 0 and 1 where the metric is a share.

    Raises:
        OptionError: data of another kind, or metrics that it does not hold.
    """
    import plotly.graph_objects as go

    view = edit_bars_view(data, before=before, metrics=metrics)
    figure = go.Figure()
    for column, name in enumerate(view.col_labels):
        figure.add_traces([_bars(view, column, name), _numbers(view, column)])
    heading = [title] if title else [view.subject]
    figure.update_layout(
        **figure_layout([*heading, view.facts], meta=title or view.subject, height=460),
        barmode="group",
        bargap=0.28,
        bargroupgap=0.06,
        scattermode="group",
        scattergap=0.28,
        width=min(max(620, 220 + 62 * view.shape[0] * (1 + view.shape[1])), 1240),
        xaxis={"showgrid": False, "showline": True, "linecolor": "#8a8a8a", "automargin": True},
        yaxis=_value_axis(view),
        legend={"x": 1.01, "y": 1},
        showlegend=view.shape[1] > 1,
    )
    return figure


def edit_bars_view(
    data: Results, *, before: xr.Dataset | None = None, metrics: Sequence[str] | None = None
) -> GridView:
    """Return the bars as plain data, a row per metric and a column per series.

    Arguments and errors are those of `edit_bars`.
    """
    series = {"after": data} if isinstance(data, xr.Dataset) else dict(data)
    tables = {name: _averages(one) for name, one in series.items()}
    first = next(iter(tables.values()))
    if before is not None:
        tables = {"before": _averages(before), **tables}
    elif "before" in first and bool(first["before"].notnull().any()):
        bare = first[["before"]].rename(before="mean")
        tables = {"before": bare.assign(low=bare["mean"] * np.nan, high=bare["mean"] * np.nan,
                                        n=first["n"]), **tables}  # fmt: skip
    chosen = _chosen(tables, metrics)

    def grid(column: str) -> Any:
        rows = [one.reindex(metric=list(chosen))[column].values for one in tables.values()]
        return np.stack(rows, axis=1).astype(np.float32)

    low, high = grid("low"), grid("high")
    shares = not any(name.endswith("_magnitude") for name in chosen)
    if shares:
        low, high = low.clip(0, 1), high.clip(0, 1)
    has = bool(np.isfinite(low).any())
    names = list(tables)
    model = str(first.attrs.get("model_name", ""))
    count = int(np.nanmax(grid("n")))
    return GridView(
        values=grid("mean"),
        row_labels=tuple(_NAMES.get(name, name.replace("_", " ")) for name in chosen),
        row_name="metric",
        row_order="down",
        col_labels=tuple(names) if len(names) > 1 else (model or "now",),
        col_name="series",
        kind="sequential" if shares else "diverging",
        limits=(0.0, 1.0) if shares else (0.0, 0.0),
        subject="Before and after the edit"
        if names[0] == "before"
        else "Edits compared"
        if len(names) > 1
        else f"Evaluation of {model}",
        metric="mean over cases",
        unit="share" if shares else "probability",
        n=count,
        n_unit="cases" if count != 1 else "case",
        note=", ".join(filter(None, [model, "whiskers: 95 % intervals" if has else ""])),
        ci_low=low if has else None,
        ci_high=high if has else None,
        hover={"cases": grid("n")},
    )


def _averages(data: object) -> xr.Dataset:
    """Return `mean`, `low`, `high`, `n` of (metric): a summary as it is, cases averaged.

    Raises:
        OptionError: for anything else.
    """
    if isinstance(data, xr.Dataset) and {"mean", "low", "high", "n"} <= set(data.data_vars):
        return data
    if not isinstance(data, xr.Dataset) or "efficacy" not in data or "case" not in data.dims:
        held = ", ".join(map(str, data.data_vars)) if isinstance(data, xr.Dataset) else ""
        raise OptionError(
            f"bars of an edit cannot be drawn of {held or type(data).__name__}. Allowed: results "
            "of evaluate_edit or evaluate_each_edit, their edit_summary, or several by name."
        )
    of_case = [str(name) for name, one in data.data_vars.items() if one.dims == ("case",)]
    names = [name for name in of_case if data[name].dtype.kind in "fiu"]
    found = [average(data[name].rename(case="prompt")) for name in names]
    columns = {
        "mean": [float(one.mean) for one in found],
        "low": [float(one.low) for one in found],
        "high": [float(one.high) for one in found],
        "n": [int(data[name].count()) for name in names],
    }
    variables = {name: ("metric", values) for name, values in columns.items()}
    return xr.Dataset(variables, {"metric": names}, data.attrs)


def _chosen(tables: Mapping[str, xr.Dataset], metrics: Sequence[str] | None) -> tuple[str, ...]:
    held = {
        str(name): bool(one["mean"].sel(metric=name).notnull())
        for one in tables.values()
        for name in one["metric"].values
    }
    if metrics is None:
        return tuple(name for name in EDIT_METRICS if held.get(name))
    if missing := [name for name in metrics if name not in held]:
        raise OptionError(
            f"no metric {', '.join(missing)} in this evaluation. It holds: {', '.join(held)}. "
            "Name some of these."
        )
    return tuple(metrics)


def _bars(view: GridView, column: int, name: str) -> Any:
    import plotly.graph_objects as go

    values = view.values[:, column].astype(float)
    words = [escape(view.describe(row, column), "html") for row in range(len(values))]
    error = None
    if view.ci_low is not None and view.ci_high is not None:
        up, down = view.ci_high[:, column] - values, values - view.ci_low[:, column]
        error = {
            "type": "data", "array": np.nan_to_num(up).clip(min=0), "symmetric": False,
            "arrayminus": np.nan_to_num(down).clip(min=0), "thickness": 1.2, "width": 4,
            "color": "#3a3a3a",
        }  # fmt: skip
    return go.Bar(
        x=[escape(label, "html") for label in view.row_labels], y=values, error_y=error,
        name=escape(name, "html"), marker={"color": _color(view, column, name)},
        offsetgroup=str(column),
        hovertext=words, hovertemplate="%{hovertext}<extra></extra>",
    )  # fmt: skip


def _color(view: GridView, column: int, name: str) -> str:
    if name == "before" and len(view.col_labels) > 1:
        return _BEFORE
    place = column - (view.col_labels[0] == "before" and len(view.col_labels) > 1)
    return QUALITATIVE[place % len(QUALITATIVE)]


def _numbers(view: GridView, column: int) -> Any:
    """Return the numbers that stand above bars and whiskers."""
    import plotly.graph_objects as go

    values = view.values[:, column].astype(float)
    tops = values if view.ci_high is None else np.fmax(values, view.ci_high[:, column])
    shares = view.limits == (0.0, 1.0)
    words = [
        "" if not np.isfinite(value) else f"{100 * value:.0f}" if shares else f"{value:.2f}"
        for value in values
    ]
    return go.Scatter(
        x=[escape(label, "html") for label in view.row_labels], y=np.fmax(tops, 0),
        mode="text", text=words, textposition="top center", textfont={"size": 10},
        offsetgroup=str(column), showlegend=False, hoverinfo="skip", cliponaxis=False,
    )  # fmt: skip


def _value_axis(view: GridView) -> dict[str, Any]:
    shares = view.limits == (0.0, 1.0)
    return {
        "title": {"text": "successes" if shares else "right − other probability", "standoff": 6},
        "range": [0, 1.08] if shares else None,
        "tickvals": [0, 0.2, 0.4, 0.6, 0.8, 1] if shares else None,
        "tickformat": ".0%" if shares else None,
        "gridcolor": "#ececec",
        "zeroline": True,
        "zerolinecolor": "#8a8a8a",
        "automargin": True,
    }
