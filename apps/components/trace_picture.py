"""The causal trace itself: grids on one scale, the chosen cell, its profiles, tables and exports.

One fragment: a click reruns this part of the page only. The chosen cell lives in three fields that
are bound to the URL, so that a link, a click, the keyboard and typing all do the same thing.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import streamlit as st

import mechlab as ml
import trace_view
from components.carry import whole_page_if_asked
from components.cell_grid import cell_grid, opened_cell
from components.charts import probability_bars, profile_lines
from components.color_scale import color_scale
from components.exports import export_menu, table_twin
from components.go import go
from components.lens_panel import lens_panel
from components.picker import adopt, current
from components.selection import clicked, link_problems, select, warn_of_link
from text import signed, words
from trace_request import TraceRequest
from trace_view import (
    AVERAGE,
    TITLES,
    Cell,
    cell_of,
    fact_choices,
    grids,
    little_to_restore,
    outlined,
    request_of,
    status_of,
    token_strip,
)

__all__ = ["grid_title", "picture"]

_WIDEST = 30  # columns that stay readable when three grids stand side by side


@st.fragment
def picture(trace: Any, run: str, request: TraceRequest, link: Mapping[str, str]) -> None:
    """Draw a stored trace.

    Target and foil of the URL are read for by the lens at the chosen cell; the grids stay those of
    the token that the trace scored.

    Args:
        trace: the result.
        run: its run id.
        request: what it answers, for the code export.
        link: the page's parameters before any field was drawn, to tell what a link got wrong.
    """
    whole_page_if_asked()
    fact = _fact_field(trace)
    if (status := status_of(trace, fact)) != "ok":
        st.warning(f"This fact was left out: {words(status, 300)}", icon=":material/report:")
        return
    sites = [str(site) for site in trace["site"].values]
    views = grids(trace, fact)
    layers, tokens = views[0].shape
    warn_of_link(trace_view.link_problems(link, trace))
    warn_of_link(link_problems(link, layer=layers, pos=tokens))
    _heading(trace, fact, views)
    if little_to_restore(trace, fact):
        st.warning(
            "The noise took away less than a tenth of the answer's probability, so there is little "
            "to bring back: these colours show small differences. Is the subject named twice?",
            icon=":material/report:",
        )
    left, right = st.columns([3, 1], gap="medium")
    with right:
        site, layer, column = _selection_fields(sites, views[0].shape)
        site = site or sites[0]
    chosen = layer is not None and column is not None
    with left:
        _grids(outlined(views, sites, site, (layer, column)) if chosen else views, sites)
        color_scale(views)
        _menus(trace, views, request, run)
        lines = st.container()
    with right:  # before the lines, which take longest: this is what the click asked for
        if chosen:
            _cell(cell_of(trace, fact, views, site=site, layer=layer, column=column))
            if fact != AVERAGE:
                lens_panel(request, site, layer, column)
            _ways_on(run, layer)
        else:
            st.info(
                "Click a cell to see what restoring it brings back.", icon=":material/ads_click:"
            )
    if chosen:
        with lines:
            profile_lines(views, sites, layer=layer, column=column)


def _fact_field(trace: Any) -> str:
    choices = fact_choices(trace)
    if len(choices) == 1:
        return choices[0]
    labels = [str(label) for label in trace["prompt"].values]
    name = {AVERAGE: "average over facts, by token role"}
    name |= {str(index): f"{index} · {label}" for index, label in enumerate(labels)}
    linked = st.query_params.get("fact")
    return st.selectbox(
        "Fact", choices, key="fact_choice", on_change=_fact_chosen, args=(trace,),
        index=choices.index(linked) if linked in choices else 0,
        format_func=lambda choice: ml.plots.show_text(name[choice], longest=100),
    )  # fmt: skip


def _fact_chosen(trace: Any) -> None:
    # Not bound to the URL: a bound field writes its words there, and these are a whole prompt.
    st.query_params["fact"] = st.session_state["fact_choice"]
    adopt(request_of(trace, st.session_state["fact_choice"], current(TraceRequest).model))


def _heading(trace: Any, fact: str, views: list[Any]) -> None:
    st.caption(words(views[0].facts, 300))
    if fact != AVERAGE:
        one = trace.isel(prompt=int(fact))
        said = words(ml.plots.show_token(str(one["scored_token"].item())))
        strip = " ".join(
            f":blue-background[{token}]" if subject else token
            for token, subject in token_strip(trace, fact)
        )
        st.markdown(
            f"{strip} → **{said}** &nbsp; :small[p = {float(one['clean_probability']):.3f} clean, "
            f"{float(one['corrupted_probability'].mean()):.3f} with the subject noised]"
        )


def _selection_fields(
    sites: list[str], shape: tuple[int, int]
) -> tuple[str | None, int | None, int | None]:
    """Draw the fields that hold the chosen cell; `None` means that nothing is chosen."""
    if st.session_state.get("site") not in (None, *sites):
        st.session_state["site"] = None
    site = st.selectbox(
        "State", sites, index=None, key="site", bind="query-params", placeholder="–"
    )
    chosen = select(layer=shape[0], pos=shape[1])
    return site, chosen["layer"], chosen["pos"]


def grid_title(view: Any, site: str) -> str:
    """Return a grid's heading as Markdown, short enough for a third of a laptop's screen."""
    window = re.search(r"windows of (\d+)", view.title)
    more = " · ".join([words(site), *([f"window {window[1]}"] if window else [])])
    return f"**{TITLES.get(site, words(site))}** :small[:gray[{more}]]"


def _grids(views: list[Any], sites: list[str]) -> None:
    side_by_side = sum(view.shape[1] for view in views) <= 3 * _WIDEST
    places = st.columns(len(views), gap="small") if side_by_side else [st.container()] * len(views)
    for place, view, site in zip(places, views, sites, strict=True):
        with place:
            st.markdown(grid_title(view, site))
            key = f"grid.{site}"
            cell_grid(view, key=key, on_open=partial(_opened, key, site))


def _opened(key: str, site: str) -> None:
    """Callback of a click: only writes the fields, from which everything else follows."""
    if opened_cell(key) is not None:
        st.session_state["site"] = site
    clicked(key, "layer", "pos")()


def _cell(cell: Cell) -> None:
    st.markdown(f"##### Layer {cell.layer} · {ml.plots.escape(cell.column, 'markdown')}")
    if cell.first_layer is not None and cell.first_layer != cell.last_layer:
        st.caption(f"{cell.site}, layers {cell.first_layer} to {cell.last_layer} restored together")
    else:
        st.caption(f"{cell.site} restored")
    if not cell.computed:
        st.info("This cell was not computed.")
        return
    band = (
        f"95 % interval {signed(cell.low)} to {signed(cell.high)}" if cell.low is not None else None
    )
    st.metric("Indirect effect", signed(cell.effect), help="Restored minus corrupted probability.")
    if band:
        st.caption(band)
    if cell.restored is not None:
        token = ml.plots.escape(ml.plots.show_token(cell.scored), "markdown")
        st.markdown(f"Probability of **{token}**")
        probability_bars(cell)
        st.caption(f"Role of this token: {words(cell.role)}")


def _ways_on(run: str, layer: int) -> None:
    go(
        "heads", f"Heads in layer {layer}", key="to_heads", layer=layer,
        fields={"in.heads.source": "fact"},
    )  # fmt: skip
    go(
        "edit", f"Edit at layer {layer}", key="to_edit", trace=run,
        fields={"edit.asked_layer": str(layer)},
    )  # fmt: skip


def _menus(trace: Any, views: list[Any], request: TraceRequest, run: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="menus"):
        export_menu(trace, views, request, run)
    table_twin(views)
