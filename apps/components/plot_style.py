"""How small plotly charts look, so that all pages agree; plotly is imported when one is drawn."""

from typing import Any

import streamlit as st

__all__ = ["CONFIG", "draw", "faint", "figure", "ink", "layout"]

CONFIG = {"displayModeBar": False}
"""For `st.plotly_chart`."""


def figure() -> Any:
    """Return an empty figure."""
    import plotly.graph_objects as go

    return go.Figure()


def draw(chart: Any, *, key: str, alt: str) -> None:
    """Draw a figure; `alt` says in words what it shows."""
    st.plotly_chart(chart, theme=None, key=key, config=CONFIG, alt=alt)


def layout(height: int) -> dict[str, Any]:
    """Return the layout that all small charts start from."""
    return {
        "template": "none",
        "height": height,
        "margin": {"l": 50, "r": 10, "t": 30, "b": 30},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": ink(), "size": 12, "family": '"Source Sans", sans-serif'},
    }


def _dark() -> bool:
    return st.context.theme.type == "dark"


def ink() -> str:
    """Return the colour of text and lines."""
    return "#e6e6e6" if _dark() else "#262730"


def faint() -> str:
    """Return the colour of grid lines."""
    return "rgba(200,200,200,0.2)" if _dark() else "rgba(0,0,0,0.1)"
