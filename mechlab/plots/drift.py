"""Drift: how far predictions moved on held-out texts, by text and by position."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import figure_layout
from mechlab.plots.grid_view import GridView
from mechlab.plots.lines import interval_band
from mechlab.plots.palette import QUALITATIVE
from mechlab.plots.reading import average, words_of
from mechlab.plots.tokens import escape, show_text

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["drift", "drift_views"]

_MOST = 20  # texts that fit one under the other
_LEAST = 3  # texts that must reach a position for it to be drawn
_WORDS = {
    "kl": "KL(before ‖ after)",
    "nll_change": "rise of the loss",
    "same_top": "same top token",
}


def drift(
    data: xr.Dataset,
    *,
    value: str = "kl",
    longest: int = 40,
    title: str | None = None,
) -> "go.Figure":
    """Draw what an edit did to the predictions on texts that have nothing to do with it.

    Args:
        data: result of `prediction_drift`, with axes prompt (the texts) and pos.
        value: `kl` (nats), `nll_change` (nats) or `same_top` (share).
        longest: characters of a text that are shown.
        title: heading; default: what is drawn and the model.

    Returns:
        A plotly figure: on the left the mean of each text, those that moved most on top; on the
        right the mean over texts by position, with 95 % t intervals over texts, where three texts
        or more reach.

    Raises:
        OptionError: data of another kind.
    """
    from plotly.subplots import make_subplots

    texts, places = drift_views(data, value=value)
    shown = min(_MOST, texts.shape[0])
    figure = make_subplots(
        rows=1, cols=2, column_widths=[0.42, 0.58], horizontal_spacing=0.09,
        subplot_titles=[_which(texts, shown), "by position in the text"],
    )  # fmt: skip
    figure.add_trace(_by_text(texts, shown), row=1, col=1)
    for trace in _by_position(places):
        figure.add_trace(trace, row=1, col=2)
    axis = {"gridcolor": "#ececec", "zeroline": True, "zerolinecolor": "#8a8a8a"}
    unit = f"{places.metric} ({places.unit})" if places.unit else places.metric
    figure.update_xaxes(title={"text": escape(unit, "html"), "standoff": 8}, **axis, row=1, col=1)
    labels = [_short(label, longest) for label in texts.row_labels[:shown]]
    figure.update_yaxes(autorange="reversed", automargin=True, tickfont={"size": 11},
                        tickmode="array", tickvals=list(range(shown)), ticktext=labels,
                        showgrid=False, zeroline=False, row=1, col=1)  # fmt: skip
    figure.update_xaxes(title={"text": "position", "standoff": 8}, showgrid=False, showline=True,
                        linecolor="#8a8a8a", zeroline=False, row=1, col=2)  # fmt: skip
    figure.update_yaxes(title={"text": escape(unit, "html"), "standoff": 6}, rangemode="tozero",
                        automargin=True, **axis, row=1, col=2)  # fmt: skip
    figure.update_annotations(font_size=13)
    heading = [title] if title else ["Drift of predictions on held-out texts"]
    figure.update_layout(
        **figure_layout([*heading, places.facts], meta=title or heading[0],
                        height=max(400, 200 + 20 * shown)),
        showlegend=False,
    )  # fmt: skip
    return figure


def drift_views(data: xr.Dataset, *, value: str = "kl") -> list[GridView]:
    """Return two grids as plain data: texts, those that moved most first, and positions.

    Arguments and errors are those of `drift`.
    """
    if not isinstance(data, xr.Dataset) or value not in data or "pos" not in data[value].dims:
        raise OptionError(
            f"drift of {value!r} cannot be drawn of this. Allowed: a result of prediction_drift, "
            "and value 'kl', 'nll_change' or 'same_top'. Measure that first."
        )
    array = data[value].assign_attrs({**data.attrs, **data[value].attrs})
    by_text = array.mean("pos", skipna=True)
    order = np.argsort(-by_text.values if value != "same_top" else by_text.values, kind="stable")
    shown = average(array.where(array.notnull().sum("prompt") >= _LEAST))
    words = words_of(array, shown) | {
        "metric": _WORDS.get(value, value.replace("_", " ")),
        "subject": "held-out texts",
        "n_unit": "texts",
        "n": array.sizes["prompt"],
    }
    labels = [str(array["prompt"].values[index]) for index in order]
    texts = GridView(
        values=by_text.values[order][:, None].astype(np.float32), row_labels=tuple(labels),
        row_name="text", row_order="down", col_labels=("mean",), col_name="line",
        kind="sequential", title="by text", **words,
    )  # fmt: skip
    mean = f"mean {float(array.mean()):.2g}"
    note = ", ".join(filter(None, [words["note"], mean, "band: 95 % interval over texts"]))
    places = GridView(
        values=shown.mean.values[:, None].astype(np.float32),
        row_labels=tuple(str(place) for place in range(array.sizes["pos"])),
        row_name="pos", row_order="down", col_labels=("mean",), col_name="line",
        kind="sequential", title="by position",
        ci_low=shown.low.values[:, None].astype(np.float32) if shown.has_interval else None,
        ci_high=shown.high.values[:, None].astype(np.float32) if shown.has_interval else None,
        **(words | {"note": note}),
    )  # fmt: skip
    return [texts, places]


def _which(texts: GridView, shown: int) -> str:
    more = f", the {shown} that moved most of {texts.shape[0]}" if shown < texts.shape[0] else ""
    return f"by text{more}"


def _by_text(texts: GridView, shown: int) -> Any:
    import plotly.graph_objects as go

    words = [escape(show_text(label, longest=160), "html") for label in texts.row_labels[:shown]]
    return go.Bar(
        x=texts.values[:shown, 0].astype(float), y=list(range(shown)), orientation="h",
        marker={"color": QUALITATIVE[0]}, customdata=words,
        hovertemplate="%{customdata}<br>%{x:.3g}<extra></extra>",
    )  # fmt: skip


def _short(text: str, longest: int) -> str:
    line = " ".join(text.split())
    return escape(line if len(line) <= longest else f"{line[: longest - 1]}…", "html")


def _by_position(places: GridView) -> list[Any]:
    import plotly.graph_objects as go

    x = [float(label) for label in places.row_labels]
    found = []
    if places.ci_low is not None and places.ci_high is not None:
        low = places.ci_low[:, 0].clip(min=0) if places.metric != _WORDS["nll_change"] else (
            places.ci_low[:, 0])  # fmt: skip
        found.append(interval_band(x, low, places.ci_high[:, 0], QUALITATIVE[0], "mean"))
    words = [escape(places.describe(row, 0), "html") for row in range(len(x))]
    found.append(
        go.Scatter(
            x=x, y=places.values[:, 0].astype(float), mode="lines",
            line={"color": QUALITATIVE[0], "width": 2}, name="mean",
            text=words, hovertemplate="%{text}<extra></extra>",
        )
    )  # fmt: skip
    return found
