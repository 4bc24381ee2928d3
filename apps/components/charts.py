"""Small plotly charts beside a trace: probabilities of one cell, and its row and column."""

from typing import Any

import numpy as np
import streamlit as st

import mechlab as ml
from components.plot_style import draw, faint, figure, ink, layout
from trace_view import Cell

__all__ = ["probability_bars", "profile_lines"]

# Okabe and Ito's colours suit every kind of colour vision; dashes tell lines apart in grey.
_LINES = {
    "resid_post": ("#0072b2", "solid"),
    "mlp_out": ("#d55e00", "dash"),
    "attn_out": ("#009e73", "dot"),
    "mixer_out": ("#cc79a7", "dashdot"),
}


def probability_bars(cell: Cell) -> None:
    """Draw the clean, restored and corrupted probability of the scored token."""
    values = {"corrupted": cell.corrupted, "restored": cell.restored, "clean": cell.clean}
    chart = figure()
    chart.add_bar(
        x=[*values.values()],
        y=[*values],
        orientation="h",
        text=[f"{value:.3f}" for value in values.values()],
        textposition="auto",
        insidetextfont={"color": ["#000000", "#ffffff", "#000000"]},
        marker_color=["#9a9a9a", "#2166ac", "#5aae61"],
        hoverinfo="skip",
        cliponaxis=False,
    )
    chart.update_layout(**layout(150))
    chart.update_xaxes(range=[0, 1], dtick=0.5, gridcolor=faint())
    chart.update_yaxes(automargin=True, ticksuffix=" ")
    chart.update_layout(margin_l=80, margin_t=10)
    said = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    draw(chart, key="bars", alt=f"Probabilities: {said}")


def profile_lines(views: list[Any], sites: list[str], *, layer: int, column: int) -> None:
    """Draw every site's effect along the chosen layer and along the chosen token."""
    first = views[0]
    by_token, by_layer = st.columns(2)
    span = _span(views)
    along = [view.values[layer] for view in views]
    with by_token:
        st.markdown(f"**Layer {first.row_labels[layer]}** across the tokens")
        draw(
            _lines(along, sites, first.col_labels, column, span), key="by_token",
            alt=f"Effect at layer {first.row_labels[layer]} for every token, one line per site",
        )  # fmt: skip
    up = [view.values[:, column] for view in views]
    with by_layer:
        st.markdown(
            f"**{ml.plots.escape(first.col_labels[column], 'markdown')}** through the layers"
        )
        draw(
            _lines(up, sites, first.row_labels, layer, span), key="by_layer",
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
) -> Any:
    chart = figure()
    places = list(range(len(labels)))
    for site, values in zip(sites, series, strict=True):
        color, dash = _LINES.get(site, ("#777777", "solid"))
        chart.add_scatter(
            x=places, y=values, name=site, mode="lines+markers",
            line={"color": color, "dash": dash, "width": 2}, marker={"size": 5},
            customdata=[ml.plots.escape(label, "html") for label in labels],
            hovertemplate="%{customdata}: %{y:+.4f}<extra>" + site + "</extra>",
        )  # fmt: skip
    step = max(1, -(-len(labels) // 20))
    chart.update_layout(
        **layout(230), legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    )
    chart.add_vline(x=chosen, line_width=1, line_dash="dot", line_color=ink())
    chart.update_xaxes(
        tickmode="array", tickvals=places[::step], showgrid=False, zeroline=False, automargin=True,
        ticktext=[ml.plots.escape(label, "html") for label in labels[::step]],
        tickangle=-60 if max(map(len, labels)) > 3 else 0,
    )  # fmt: skip
    chart.update_yaxes(gridcolor=faint(), zerolinecolor=ink(), zerolinewidth=1, range=span)
    return chart
