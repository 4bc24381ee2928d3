"""The colour scale under a row of grids: one strip for all of them, with its limits."""

from typing import Any

import streamlit as st

import mechlab as ml
from text import signed

__all__ = ["color_scale"]


def color_scale(views: list[Any], *, key: str = "scale") -> None:
    """Draw the scale that the grids share; the strip is text-free, its words are ordinary text."""
    view = views[0]
    stops = ml.plots.DIVERGING if view.kind == "diverging" else ml.plots.SEQUENTIAL
    low, high = view.limits
    both = view.kind == "diverging"  # a scale from 0 carries no signs
    first, last = (signed(low, 3), signed(high, 3)) if both else (f"{low:.0f}", f"{high:.3g}")
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=key):
        st.markdown(f":small[{first}]", width="content")
        # Only colours of our own palette enter this markup.
        st.html(
            f'<div style="width:180px;height:12px;border-radius:3px;border:1px solid #8888;'
            f'background:linear-gradient(to right,{",".join(stops)})"></div>',
            width=182,
        )
        st.markdown(f":small[{last}]", width="content")
        same = f"one scale for all {len(views)} grids · " if len(views) > 1 else ""
        hatched = {v.gap for v in views if (v.state == 0).any()}
        gaps = f"hatched = {', '.join(sorted(hatched))}" if hatched else ""
        st.caption(f"{same}{gaps}".removesuffix(" · "), width="content")
