"""Charts of the induction page: loss by position, and a head's attention by lag with its fit."""

from typing import Any

import mechlab as ml
from components.plot_style import draw, faint, figure, ink, layout
from induction_view import LagCurve

__all__ = ["lag_chart", "loss_chart"]

_HEAD, _FIT, _BAND = "#0072b2", "#d55e00", "rgba(0,114,178,0.22)"


def loss_chart(losses: list[float], length: int, copies: list[float]) -> None:
    """Draw the loss at every token of all copies, with a line where each copy starts."""
    chart = figure()
    chart.add_scatter(
        x=list(range(1, len(losses) + 1)), y=losses, mode="lines+markers",
        line={"color": _HEAD, "width": 2}, marker={"size": 4},
        hovertemplate="token %{x}: %{y:.2f} nats<extra></extra>",
    )  # fmt: skip
    chart.update_layout(**layout(230), showlegend=False)
    chart.update_layout(margin={"l": 50, "r": 10, "t": 26, "b": 40})
    for number, mean in enumerate(copies):
        start = number * length
        if number:
            chart.add_vline(x=start + 0.5, line_width=1, line_dash="dot", line_color=ink())
        chart.add_annotation(
            x=start + length / 2, y=1.02, yref="paper", yanchor="bottom", showarrow=False,
            text=f"copy {number + 1}: {mean:.2f}",
        )  # fmt: skip
    chart.update_xaxes(title={"text": "token", "standoff": 2}, showgrid=False, zeroline=False)
    chart.update_yaxes(
        title={"text": "loss (nats)", "standoff": 4}, gridcolor=faint(), zerolinecolor=ink(),
        rangemode="tozero",
    )  # fmt: skip
    said = ", ".join(f"copy {i + 1} {mean:.2f} nats" for i, mean in enumerate(copies))
    draw(chart, key="chart.loss", alt=f"Loss by position; mean of {said}")


def lag_chart(curve: LagCurve, name: str) -> None:
    """Draw a head's attention by lag with its interval, and the fit of the context model."""
    chart = figure()
    if curve.low:
        chart.add_scatter(
            x=[*curve.lags, *curve.lags[::-1]], y=[*curve.high, *curve.low[::-1]], mode="none",
            fill="toself", fillcolor=_BAND, hoverinfo="skip", name="95 % bootstrap",
        )  # fmt: skip
    chart.add_scatter(
        x=curve.lags, y=curve.mean, mode="lines+markers", name=name,
        line={"color": _HEAD, "width": 2.5}, hovertemplate="lag %{x:+d}: %{y:.3f}<extra></extra>",
    )  # fmt: skip
    if curve.status == "ok":
        chart.add_scatter(
            x=curve.lags, y=curve.fitted, mode="lines", name="context model",
            line={"color": _FIT, "width": 2, "dash": "dash"},
            hovertemplate="fit at lag %{x:+d}: %{y:.3f}<extra></extra>",
        )  # fmt: skip
    chart.update_layout(
        **layout(250), legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    )
    chart.update_layout(margin={"l": 50, "r": 10, "t": 30, "b": 40})
    chart.update_xaxes(
        title={"text": "lag", "standoff": 2}, dtick=1, showgrid=False, zeroline=True,
        zerolinecolor=faint(),
    )  # fmt: skip
    chart.update_yaxes(
        title={"text": ml.plots.escape(curve.units or "attention", "html"), "standoff": 4},
        gridcolor=faint(), zeroline=False,
    )  # fmt: skip
    peak = curve.lags[max(range(len(curve.mean)), key=lambda i: _number(curve.mean[i]))]
    draw(chart, key="chart.lags", alt=f"Attention of {name} by lag, highest at lag {peak:+d}")


def _number(value: Any) -> float:
    return float("-inf") if value != value else float(value)
