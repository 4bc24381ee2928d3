"""Layer sweep: how well an edit at each layer works, over what tracing says of that layer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import figure_layout
from mechlab.plots.grid_view import GridView
from mechlab.plots.lines import interval_band
from mechlab.plots.palette import QUALITATIVE
from mechlab.plots.reading import average, words_of
from mechlab.plots.tokens import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["layer_sweep", "layer_sweep_views"]

SWEPT = ("efficacy", "paraphrase", "neighbourhood", "case_score")
"""What is drawn of a sweep when nothing is named."""

_NAMES = {"case_score": "score S", "trace_effect": "tracing effect"}
_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x")


def layer_sweep(
    data: xr.Dataset,
    *,
    metrics: Sequence[str] = SWEPT,
    trace: xr.DataArray | None = None,
    title: str | None = None,
) -> "go.Figure":
    """Draw the success of an edit against the layer that it is made at, and the tracing effect.

    Args:
        data: result of `edit_sweep` or `localize_edit_verify`: metrics of (case, layer).
        metrics: which of them are lines; shares of successes.
        trace: tracing effect of (layer) or (case, layer), drawn below on the same axis of layers;
            by default the result's own `trace_effect`, if it has one.
        title: heading; default: what is drawn, the model, the cases.

    Returns:
        A plotly figure. Bands and whiskers are 95 % t intervals over cases. A layer that the
        result has chosen is marked.

    Raises:
        OptionError: data or metrics that are not of (layer) or (case, layer).
    """
    from plotly.subplots import make_subplots

    views = layer_sweep_views(data, metrics=metrics, trace=trace)
    rows = len(views)
    figure = make_subplots(
        rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.09,
        row_heights=[0.64, 0.36] if rows == 2 else None,
    )  # fmt: skip
    for drawn in _lines(views[0]):
        figure.add_trace(drawn, row=1, col=1)
    if rows == 2:
        figure.add_trace(_trace_bars(views[1]), row=2, col=1)
    for row, view in enumerate(views, start=1):
        figure.update_xaxes(**_layer_axis(view, last=row == rows), row=row, col=1)
        figure.update_yaxes(**_value_axis(view), row=row, col=1)
    for layer in _chosen(data):
        figure.add_vline(x=layer, line={"color": "#5a5a5a", "width": 1, "dash": "dot"})
        figure.add_annotation(
            x=layer,
            y=1,
            yref="y domain",
            yanchor="bottom",
            showarrow=False,
            text="edited layer",
            font={"size": 11, "color": "#5a5a5a"},
        )
    heading = [title] if title else ["Where an edit works, and where tracing points"][: rows - 1]
    heading = heading or ["Where an edit works"]
    figure.update_layout(
        **figure_layout([*heading, views[0].facts], meta=heading[0], height=370 + 190 * (rows - 1)),
        width=min(max(780, 300 + 34 * views[0].shape[0]), 1240),
        legend={"x": 1.01, "y": 1},
        showlegend=True,
    )
    return figure


def layer_sweep_views(
    data: xr.Dataset,
    *,
    metrics: Sequence[str] = SWEPT,
    trace: xr.DataArray | None = None,
) -> list[GridView]:
    """Return the lines, and the tracing effect if there is one, as plain data: a row per layer.

    Arguments and errors are those of `layer_sweep`.
    """
    held = [name for name in metrics if name in data] if isinstance(data, xr.Dataset) else []
    wrong = [name for name in metrics if name not in held or not _swept(data[name])]
    if wrong or not held:
        raise OptionError(
            f"a layer sweep cannot be drawn of {', '.join(wrong) or 'no metric'}: not there, or "
            "not of (layer) or (case, layer). Allowed: results of edit_sweep or "
            "localize_edit_verify, and their metrics. Name others with metrics=..."
        )
    if trace is None and "trace_effect" in data:
        trace = data["trace_effect"]
    arrays = [data[name].assign_attrs({**data.attrs, **data[name].attrs}) for name in held]
    found = [_view(data, arrays, held, "edit success", shares=True)]
    if trace is not None and _swept(trace):
        known = trace.sel(layer=data["layer"]) if "layer" in trace.coords else trace
        found.append(_view(data, [known], ["trace_effect"], "tracing effect", shares=False))
    return found


def _swept(array: xr.DataArray) -> bool:
    return "layer" in array.dims and set(map(str, array.dims)) <= {"case", "layer"}


def _view(
    data: xr.Dataset, arrays: Sequence[xr.DataArray], names: Sequence[str], metric: str, *,
    shares: bool,
) -> GridView:  # fmt: skip
    averages = [average(one.rename(case="prompt") if "case" in one.dims else one) for one in arrays]

    def grid(which: str) -> Any:
        columns = [getattr(one, which).transpose("layer").values for one in averages]
        values = np.stack(columns, axis=1).astype(np.float32)
        return values.clip(0, 1) if shares else values

    has = any(one.has_interval for one in averages)
    words = words_of(arrays[0], averages[0]) | {"subject": "", "metric": metric, "unit": ""}
    words |= {"unit": "probability"} if not shares else {}
    count = int(data.sizes.get("case", 1))
    words |= {"n": count, "n_unit": "cases" if count != 1 else "case"}
    if has:
        words["note"] = ", ".join(filter(None, [words["note"], "bands: 95 % intervals"]))
    return GridView(
        values=grid("mean"),
        row_labels=tuple(str(int(layer)) for layer in data["layer"].values),
        row_name="layer",
        col_labels=tuple(_NAMES.get(name, name.replace("_", " ")) for name in names),
        col_name="metric",
        kind="sequential" if shares else "diverging",
        limits=(0.0, 1.0) if shares else (0.0, 0.0),
        ci_low=grid("low") if has else None,
        ci_high=grid("high") if has else None,
        **words,
    )  # fmt: skip


def _chosen(data: xr.Dataset) -> list[int]:
    if "chosen" not in data or data["chosen"].dims != ("layer",):
        return []
    return [int(layer) for layer in data["layer"].values[data["chosen"].values.astype(bool)]]


def _lines(view: GridView) -> list[Any]:
    import plotly.graph_objects as go

    layers = [float(label) for label in view.row_labels]
    bands, drawn = [], []
    for column, name in enumerate(view.col_labels):
        color, score = QUALITATIVE[column % len(QUALITATIVE)], name == _NAMES["case_score"]
        color = "#1f1f1f" if score else color
        if view.ci_low is not None and view.ci_high is not None and not score:
            low, high = view.ci_low[:, column], view.ci_high[:, column]
            bands.append(interval_band(layers, low, high, color, name))
        words = [escape(view.describe(row, column), "html") for row in range(len(layers))]
        drawn.append(
            go.Scatter(
                x=layers, y=view.values[:, column].astype(float), mode="lines+markers",
                name=escape(name, "html"), text=words, hovertemplate="%{text}<extra></extra>",
                line={"color": color, "width": 2.6 if score else 1.8,
                      "dash": "dash" if score else "solid"},
                marker={"size": 7, "color": color, "symbol": _SYMBOLS[column % len(_SYMBOLS)]},
            )
        )  # fmt: skip
    return [*bands, *drawn]


def _trace_bars(view: GridView) -> Any:
    import plotly.graph_objects as go

    values, error = view.values[:, 0].astype(float), None
    if view.ci_low is not None and view.ci_high is not None:
        error = {
            "type": "data", "symmetric": False, "thickness": 1.2, "width": 4, "color": "#3a3a3a",
            "array": np.nan_to_num(view.ci_high[:, 0] - values),
            "arrayminus": np.nan_to_num(values - view.ci_low[:, 0]),
        }  # fmt: skip
    words = [escape(view.describe(row, 0), "html") for row in range(len(values))]
    return go.Bar(
        x=[float(label) for label in view.row_labels], y=values, error_y=error, width=0.6,
        name="tracing effect", marker={"color": "#9a9a9a"}, showlegend=False,
        text=words, textposition="none", hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _layer_axis(view: GridView, *, last: bool) -> dict[str, Any]:
    layers = [float(label) for label in view.row_labels]
    step = max(1, -(-len(layers) // 24))
    return {
        "title": {"text": "layer", "standoff": 8} if last else None,
        "tickmode": "array",
        "tickvals": layers[::step],
        "ticktext": list(view.row_labels[::step]),
        "showticklabels": True,
        "range": [min(layers) - 0.6, max(layers) + 0.6],
        "showgrid": False,
        "zeroline": False,
    }


def _value_axis(view: GridView) -> dict[str, Any]:
    shares = view.limits == (0.0, 1.0)
    unit = f"<br>({view.unit})" if view.unit and not shares else ""
    return {
        "title": {"text": escape(view.metric, "html") + unit, "standoff": 6},
        "range": [-0.03, 1.04] if shares else None,
        "tickformat": ".0%" if shares else None,
        "gridcolor": "#ececec",
        "zeroline": True,
        "zerolinecolor": "#8a8a8a",
        "automargin": True,
    }
