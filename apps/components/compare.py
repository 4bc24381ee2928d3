"""Results side by side: A, B, … on one scale, and each minus A on a scale of its own."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

import mechlab as ml
from compare_view import Comparison, compare
from components.cell_grid import cell_grid
from components.color_scale import color_scale
from components.plot_style import draw, faint, figure, ink, layout
from text import words

__all__ = ["against_pinned", "comparison", "side_by_side"]

_LETTERS = "ABCDEF"


def against_pinned(views: list[Any], pinned: list[Any]) -> None:
    """Draw a page's grids against those of the pinned run: A is the run on the page, B the pinned.

    The difference is always B − A.
    """
    st.markdown("##### Compared with the pinned run")
    side_by_side([views, pinned], ["A · this run", "B · pinned"], key="pinned")


def side_by_side(of_each: Sequence[list[Any]], names: Sequence[str], *, key: str) -> None:
    """Draw every grid that all results have; a key tells several comparisons of a page apart."""
    found = compare(of_each)
    if not found:
        st.info("These results have no grids in common to lay side by side.")
        return
    same = st.toggle("Same scale", value=True, key=f"same_scale.{key}")
    if not same:
        st.warning("Each grid has its own scale: equal colours are not equal numbers.")
    for place, one in enumerate(found):
        comparison(one, names, key=f"{key}.{place}", same_scale=same)


def comparison(one: Comparison, names: Sequence[str], *, key: str, same_scale: bool = True) -> None:
    """Draw one grid of all results, the differences, and how well cells agree."""
    views = one.views if same_scale else one.own
    minus = [f"{_LETTERS[n]} − A" for n in range(1, len(one.differences) + 1)]
    labels = [*names, *minus]
    drawn = [*views, *one.differences]
    st.markdown(f"**{words(views[0].title or views[0].metric, 80)}**")
    wide = sum(view.shape[1] for view in drawn) > 130
    places = [st.container()] * len(drawn) if wide else st.columns(len(drawn), gap="small")
    for number, (place, view, label) in enumerate(zip(places, drawn, labels, strict=True)):
        with place:
            st.markdown(f":small[{words(label, 60)}]")
            cell_grid(view, key=f"compare.{key}.{number}", on_open=lambda: None)
    with st.container(horizontal=True, gap="large"):
        if same_scale:
            color_scale(views, key=f"scale.{key}")
        if one.differences:
            color_scale(one.differences, key=f"scale.{key}.minus")
    if one.problem:
        st.caption(words(one.problem, 300))
    _agreement(one, minus, key)


def _agreement(one: Comparison, minus: Sequence[str], key: str) -> None:
    told = [
        f"{name.removesuffix(' − A')} with A: r = {r:.3f} (n = {n:,} cells)"
        for name, (r, n) in zip(minus, one.agreements, strict=False)
        if r == r
    ]
    if not told:
        return
    st.caption(" · ".join(told))
    with st.expander("Cell by cell", key=f"scatter.{key}"):
        draw(_scatter(one), key=f"points.{key}", alt=f"One point per cell. {'; '.join(told)}")


def _scatter(one: Comparison) -> Any:
    """Return B (and C, …) against A, a point per cell, with the line of equality."""
    chart = figure()
    first = one.views[0]
    flat = first.values.ravel()
    names = [first.place(r, c) for r in range(first.shape[0]) for c in range(first.shape[1])]
    for number, view in enumerate(one.views[1:], 1):
        add = chart.add_scattergl if flat.size > 2000 else chart.add_scatter
        add(
            x=flat, y=view.values.ravel(), mode="markers", name=_LETTERS[number],
            marker={"size": 5, "opacity": 0.6},
            customdata=[ml.plots.escape(name, "html") for name in names],
            hovertemplate="%{customdata}: A %{x:.4f}, %{y:.4f}<extra></extra>",
        )  # fmt: skip
    low, high = first.limits
    chart.add_scatter(
        x=[low, high], y=[low, high], mode="lines", name="equal", hoverinfo="skip",
        line={"color": ink(), "width": 1, "dash": "dash"},
    )  # fmt: skip
    chart.update_layout(**layout(320))
    chart.update_xaxes(title="A", gridcolor=faint())
    chart.update_yaxes(title=", ".join(_LETTERS[1 : len(one.views)]), gridcolor=faint())
    return chart
