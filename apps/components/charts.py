"""Small plotly charts beside the grids: probabilities of one cell, and its row and column."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st

import mechlab as ml
from trace_view import Cell

__all__ = ["probability_bars", "profile_lines"]

# Okabe and Ito's colours suit every kind of colour vision; dashes tell lines apart in grey.
_LINES = {
    "resid_post": ("#0072b2", "solid"),
    "mlp_out": ("#d55e00", "dash"),
    "attn_out": ("#009e73", "dot"),
    "mixer_out": ("#cc79a7", "dashdot"),
}
_CONFIG = {"displayModeBar": False}


def probability_bars(cell: Cell) -> None:
    """Draw the clean, restored and corrupted probability of the scored token."""
    values = [cell.corrupted, cell.restored, cell.clean]
    figure = go.Figure(
        go.Bar(
            x=values,
            y=["corrupted", "restored", "clean"],
            orientation="h",
            text=[f"{value:.3f}" for value in values],
            textposition="auto",
            insidetextfont={"color": ["#000000", "#ffffff", "#000000"]},
            marker_color=["#9a9a9a", "#2166ac", "#5aae61"],
            hoverinfo="skip",
            cliponaxis=False,
        )
    )
    figure.update_layout(**_layout(150))
    figure.update_xaxes(range=[0, 1], dtick=0.5, gridcolor=_faint())
    figure.update_yaxes(automargin=True, ticksuffix=" ")
    figure.update_layout(margin_l=80, margin_t=10)
    st.plotly_chart(
        figure, theme=None, key="bars", config=_CONFIG,
        alt="Probabilities: " + ", ".join(
            f"{name} {value:.3f}" for name, value in zip(figure.data[0].y, values, strict=True)
        ),
    )  # fmt: skip


def profile_lines(views: list[Any], sites: list[str], *, layer: int, column: int) -> None:
    """Draw every site's effect along the chosen layer and along the chosen token."""
    first = views[0]
    by_token, by_layer = st.columns(2)
    span = _span(views)
    along = [view.values[layer] for view in views]
    token_figure = _lines(along, sites, first.col_labels, column, span)
    with by_token:
        st.markdown(f"**Layer {first.row_labels[layer]}** across the tokens")
        st.plotly_chart(
            token_figure, theme=None, key="by_token", config=_CONFIG,
            alt=f"Effect at layer {first.row_labels[layer]} for every token, one line per site",
        )  # fmt: skip
    up = [view.values[:, column] for view in views]
    layer_figure = _lines(up, sites, first.row_labels, layer, span)
    with by_layer:
        st.markdown(
            f"**{ml.plots.escape(first.col_labels[column], 'markdown')}** through the layers"
        )
        st.plotly_chart(
            layer_figure, theme=None, key="by_layer", config=_CONFIG,
            alt="Effect at the chosen token for every layer, one line per site",
        )  # fmt: skip


def _span(views: list[Any]) -> list[float]:
    """Return one range for both charts, of all that the grids show: flat lines then look flat."""
    values = np.concatenate([view.values.ravel() for view in views])
    low, high = min(0.0, float(np.nanmin(values))), max(0.0, float(np.nanmax(values)))
    room = 0.06 * ((high - low) or 1.0)
    return [low - room, high + room]


def _lines(
    series: list[Any], sites: list[str], labels: tuple[str, ...], chosen: int, span: list[float]
) -> go.Figure:
    figure = go.Figure()
    places = list(range(len(labels)))
    for site, values in zip(sites, series, strict=True):
        color, dash = _LINES.get(site, ("#777777", "solid"))
        figure.add_scatter(
            x=places, y=values, name=site, mode="lines+markers",
            line={"color": color, "dash": dash, "width": 2}, marker={"size": 5},
            customdata=[ml.plots.escape(label, "html") for label in labels],
            hovertemplate="%{customdata}: %{y:+.4f}<extra>" + site + "</extra>",
        )  # fmt: skip
    step = max(1, -(-len(labels) // 20))
    figure.update_layout(
        **_layout(230), legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    )
    figure.add_vline(x=chosen, line_width=1, line_dash="dot", line_color=_ink())
    figure.update_xaxes(
        tickmode="array", tickvals=places[::step], showgrid=False, zeroline=False, automargin=True,
        ticktext=[ml.plots.escape(label, "html") for label in labels[::step]],
        tickangle=-60 if max(map(len, labels)) > 3 else 0,
    )  # fmt: skip
    figure.update_yaxes(gridcolor=_faint(), zerolinecolor=_ink(), zerolinewidth=1, range=span)
    return figure


def _layout(height: int) -> dict[str, Any]:
    return {
        "template": "none",
        "height": height,
        "margin": {"l": 50, "r": 10, "t": 30, "b": 30},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": _ink(), "size": 12, "family": '"Source Sans", sans-serif'},
    }


def _dark() -> bool:
    return st.context.theme.type == "dark"


def _ink() -> str:
    return "#e6e6e6" if _dark() else "#262730"


def _faint() -> str:
    return "rgba(200,200,200,0.2)" if _dark() else "rgba(0,0,0,0.1)"
