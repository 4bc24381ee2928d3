"""Retrieval heads: the grid, the scores in order, where needles are found, and heads masked."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

import mechlab as ml
import retrieval_view
import runs
from components.cell_grid import cell_grid
from components.color_scale import color_scale
from components.exports import export_menu, table_twin
from components.head_panel import head_panel
from components.retrieval_charts import scores_chart, trace_strip
from components.retrieval_masks import curve_alone, masking
from components.selection import clicked, link_problems, select, warn_of_link
from retrieval_request import RetrievalRequest
from retrieval_view import Read
from text import words

__all__ = ["picture"]

_KEY = "grid.retrieval"
_CHARTS = {"scores": "Sorted scores", "found": "Length × depth", "mask": "Mask heads"}


@st.fragment
def picture(result: Any, run: str, request: RetrievalRequest, link: Mapping[str, str]) -> None:
    """Draw a stored result: heads on the left, the chosen head on the right."""
    scores = result
    if "retrieval_score" not in result:  # heads masked: the scores beside them, if they are known
        found = runs.find(request)
        scores, run = (None, run) if found is None else (runs.load(found), found)
    if scores is None:
        curve_alone(result, run, request)
        return
    view = retrieval_view.grid(scores)
    counts = {"layer": view.shape[0], "head": view.shape[1]}
    warn_of_link(link_problems(link, **counts))
    left, right = st.columns([6, 5], gap="large")
    with right:
        chosen = select(**counts)
    layer, head = chosen["layer"], chosen["head"]
    there = layer is not None and head is not None
    with left:
        _grid(scores, run, request, replace(view, selected=(layer, head) if there else None))
        _charts(scores, result if result is not scores else None, request)
    with right:
        if layer is None or head is None:
            st.info(
                "Click a head to see what it copied and where it looked.",
                icon=":material/ads_click:",
            )
        else:
            _head(scores, request, layer, head)


def _grid(scores: Any, run: str, request: RetrievalRequest, view: Any) -> None:
    right, there = retrieval_view.answered(scores)
    st.markdown(
        f"**{words(view.title)}** &nbsp; :small[:gray[{words(view.facts, 300)} · answered {right} "
        f"of {there}]]",
        help="Share of the needle's tokens that a head copies into the answer: at that step it "
        "attends most to the token being written. Wu et al. 2024, section 2.",
    )
    cell_grid(view, key=_KEY, on_open=clicked(_KEY, "layer", "head"))
    color_scale([view])
    with st.container(horizontal=True, vertical_alignment="center", key="menus"):
        export_menu(scores, [view], request, run)
    table_twin([view])


def _charts(scores: Any, curve: Any | None, request: RetrievalRequest) -> None:
    """Draw one of the pictures below the grid."""
    st.session_state.setdefault("chart", "scores" if curve is None else "mask")
    shown = st.segmented_control(
        "Picture", list(_CHARTS), key="chart", format_func=_CHARTS.__getitem__, required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    if shown == "scores":
        _sorted(scores)
    elif shown == "found":
        _found(scores)
    else:
        masking(scores, request, curve)


def _sorted(scores: Any) -> None:
    threshold = st.number_input(
        "Threshold", 0.01, 1.0, 0.1, 0.05, key="threshold", bind="query-params", width=140,
        help="Mean score from which a head counts as a retrieval head; 0.1 is published.",
    )  # fmt: skip
    view, count = retrieval_view.sorted_heads(scores, threshold)
    scores_chart(scores, retrieval_view.score_name(scores), threshold, count)
    bins = ml.retrieval_histogram(scores, score=retrieval_view.score_name(scores))
    told = " · ".join(
        f"{int(n)} heads: {words(str(name))}"
        for n, name in zip(bins.values, bins["bin"].values, strict=True)
    )
    st.caption(f"{told}. Whiskers: 95 % t intervals over prompts.")
    table_twin([view], key=".scores")


def _found(scores: Any) -> None:
    views = ml.plots.length_by_depth_views(scores, value="success")
    st.markdown(":small[**Share of needles answered**, by length and depth (nothing masked)]")
    for index, view in enumerate(views):
        cell_grid(view, key=f"grid.found.{index}", on_open=lambda: None)
    color_scale(views, key="scale.found")
    table_twin(views, key=".found")


def _head(scores: Any, request: RetrievalRequest, layer: int, head: int) -> None:
    """Draw what one head copied on one prompt, and the panel that all pages share."""
    names = retrieval_view.prompt_names(scores)
    at = st.selectbox(
        "Needle", range(len(names)), key="needle",
        format_func=lambda i: ml.plots.show_text(names[i], longest=90),
    )  # fmt: skip
    prompt = at if at is not None and at < len(names) else 0
    read = retrieval_view.read_at(scores, prompt, layer, head)
    st.markdown(f"##### L{layer}H{head} on the haystack &nbsp; :small[{_told(read)}]")
    trace_strip(read)
    _legend(read)
    shown = [] if request.other_prompts else [request.prompts()[prompt]]
    st.caption("Below, the needle and its question alone, without the haystack.")
    head_panel(
        request, layer, head, [retrieval_view.head_prompt(one) for one in shown], key="needle_head"
    )


def _told(read: Read) -> str:
    answer = "answered" if read.success else "not answered"
    return f"copied {read.score:.0%} of the needle · {answer} · {read.tokens} tokens"


def _legend(read: Read) -> None:
    needle = " ".join(
        f":{'blue' if hit else 'gray'}-background[{words(token)}]"
        for token, hit in zip(read.needle, read.copied, strict=True)
    )
    far = [one.position for one in read.written if one.place == "elsewhere"]
    more = f" · {len(far)} of {len(read.written)} steps looked elsewhere" if far else ""
    st.markdown(f":small[needle {needle} :gray[(blue: copied){more}]]")
    st.caption("Squares: where the head looked most at each step; orange: the needle's answer.")
