"""Induction heads: the grid, the loss of each copy, and one head's attention by lag."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

import induction_view
import loaded
import mechlab as ml
from components.cell_grid import cell_grid
from components.color_scale import color_scale
from components.exports import export_menu, table_twin
from components.head_panel import head_panel, look_or_offer
from components.induction_charts import lag_chart, loss_chart
from components.selection import clicked, link_problems, select, warn_of_link
from induction_request import InductionRequest
from induction_view import SCORES, HeadFacts, Parts
from text import words

__all__ = ["picture"]

_KEY = "grid.induction"
_HELP = (
    "Prefix matching: attention from a token that stood before to the token that followed it "
    "there. Previous token: attention to the position before. Duplicate token: attention to the "
    "token's own earlier occurrence. CMR distance: how far a head's attention by lag is from the "
    "shape of human recall as the context maintenance and retrieval model gives it."
)


@st.fragment
def picture(result: Any, run: str, request: InductionRequest, link: Mapping[str, str]) -> None:
    """Draw stored results: heads and losses on the left, the chosen head on the right."""
    parts = induction_view.parts_of(result, run, request)
    if gone := induction_view.missing(parts):
        st.info(f"Not run yet: {', '.join(gone)}. Run adds it.", icon=":material/info:")
    if why := induction_view.wrong_baseline(parts):
        st.warning(words(why), icon=":material/report:")
    left, right = st.columns([6, 5], gap="large")
    with left:
        score = _score_chosen(parts)
    view = induction_view.grid(parts, score)
    if view is None:
        _losses(parts, request)
        return
    counts = {"layer": view.shape[0], "head": view.shape[1]}
    warn_of_link(link_problems(link, **counts))
    with right:
        chosen = select(**counts)
    layer, head = chosen["layer"], chosen["head"]
    there = layer is not None and head is not None
    with left:
        _grid(parts, score, request, replace(view, selected=(layer, head) if there else None))
        _losses(parts, request)
    with right:
        if layer is None or head is None:
            st.info(
                "Click a head to see its attention by lag and its fit by the context model.",
                icon=":material/ads_click:",
            )
        else:
            _head(parts, request, layer, head)
    _table(parts)


def _score_chosen(parts: Parts) -> str:
    known = [name for name in SCORES if name != "cmr_distance" and parts.scores is not None]
    known += ["cmr_distance"] if parts.fit is not None else []
    if not known:
        return "prefix_matching"
    if st.session_state.get("score") not in known:
        st.session_state["score"] = known[0]
    chosen = st.segmented_control(
        "Score", known, key="score", format_func=SCORES.__getitem__, required=True,
        label_visibility="collapsed", help=_HELP,
    )  # fmt: skip
    return str(chosen or known[0])


def _grid(parts: Parts, score: str, request: InductionRequest, view: Any) -> None:
    st.markdown(
        f"**{words(view.title)}** &nbsp; :small[:gray[{words(view.facts, 300)}]]", help=_HELP
    )
    cell_grid(view, key=_KEY, on_open=clicked(_KEY, "layer", "head"))
    color_scale([view])
    part = "attention_by_lag" if score == "cmr_distance" else "induction_scores"
    data = parts.fit if part == "attention_by_lag" else parts.scores
    with st.container(horizontal=True, vertical_alignment="center", key="menus"):
        export_menu(data, [view], request.beside(part), parts.ids[part])
    table_twin([view])


def _losses(parts: Parts, request: InductionRequest) -> None:
    if parts.losses is None:
        return
    losses, length, copies, gain = induction_view.loss_line(parts)
    st.markdown(
        f"**Loss by position** &nbsp; :small[:gray[mean over {request.count} lists · gain "
        f"{gain:.2f} nats]]",
        help="The drop in the second copy is what the model gains from having read the list.",
    )
    loss_chart(losses, length, copies)


def _head(parts: Parts, request: InductionRequest, layer: int, head: int) -> None:
    """Draw one head: attention by lag, the fit, and the panel that all pages share."""
    facts = induction_view.facts_of(parts, layer, head)
    if parts.lags is not None:
        curve = induction_view.lag_curve(parts, layer, head)
        st.markdown(
            f"##### {facts.name}: attention by lag &nbsp; :small[:gray[from a token of the second "
            "copy to the first]]",
            help="Lag 0 is the token itself, +1 the one that followed it (induction), −1 the one "
            "before it. Ji-An et al. 2024.",
        )
        lag_chart(curve, facts.name)
        _fit_line(facts, curve.status)
        if curve.interval != "ok":
            st.caption(f"No interval: {words(curve.interval)}.")
        _lag_export(parts, request, layer, head)
    _panel(request, facts)


def _fit_line(facts: HeadFacts, status: str) -> None:
    """Draw the fit; a small distance alone is no sign of memory, so what qualifies it is there."""
    beside = (
        f"prefix matching **{facts.prefix_matching:.2f}** · peak lag **{facts.peak_lag:+.0f}** · "
        f"asymmetry **{facts.asymmetry:+.2f}**"
    ).replace("-", "−")
    if status != "ok":
        st.markdown(f":small[no fit: {words(status)} · prefix matching "
                    f"**{facts.prefix_matching:.2f}**]")  # fmt: skip
        return
    st.markdown(
        f"CMR distance **{facts.cmr_distance:.3f}**, p **{facts.p_value:.3f}** &nbsp; {beside}",
        help="p: how often smooth noise with the curves' own autocorrelation fits as well. A head "
        "that attends to the same token again (peak at lag 0) fits perfectly, so the distance is "
        "never read alone.",
    )
    st.markdown(
        f":small[β enc **{facts.beta_enc:.2f}** · β rec **{facts.beta_rec:.2f}** · γ "
        f"**{facts.gamma_ft:.2f}** · scale **{facts.scale:.3g}** · :gray[{facts.near_optimal:.0f} "
        "cells of the table fit within 5 per cent]]"
    )


def _lag_export(parts: Parts, request: InductionRequest, layer: int, head: int) -> None:
    curve = parts.lags["curve"].isel(layer=[layer], head=[head])  # type: ignore[index]
    fit = parts.fit.isel(layer=[layer], head=[head])  # type: ignore[union-attr]
    with st.container(horizontal=True, vertical_alignment="center", key="menus.lags"):
        export_menu(
            parts.lags, [], request.beside("attention_by_lag"), parts.ids["attention_by_lag"],
            figure=lambda: ml.plots.lag_fits(curve, fit), key="lags",
        )  # fmt: skip


def _panel(request: InductionRequest, facts: HeadFacts) -> None:
    if not loaded.is_loaded(request.load_arguments):
        look_or_offer(request, ml.prompts.Fact("a b", subject="a"), [facts.name])
        return
    model = loaded.load(request.load_arguments)
    shown = induction_view.demonstration(model, request)
    if shown is None:
        st.caption("This tokenizer does not read the list back as the same tokens: no pattern.")
        return
    st.caption(
        "Below, a short list read twice. Dots: where a head looks that continues the list, one "
        "token behind the earlier copy."
    )
    marks = induction_view.stripe(request, len(model.token_strings(shown.prompt)))
    head_panel(request, facts.layer, facts.head, [shown], key="induction_head", marks=marks)


def _table(parts: Parts) -> None:
    with st.expander("All heads as a table"):
        st.dataframe(induction_view.table(parts), hide_index=True, key="heads_table", height=360)
