"""Heads masked: the best ones against random ones, as a second job that starts from the scores."""

from typing import Any

import streamlit as st

import loaded
import mechlab as ml
import retrieval_view
import runs
from components.exports import export_menu, table_twin
from components.picker import KEPT
from components.progress import follow
from components.retrieval_charts import mask_chart
from components.states import failed, stopped
from cost import like_last
from retrieval_request import MaskRequest, RetrievalRequest, mask_request_of
from text import words

__all__ = ["curve_alone", "masking"]

_PHASES = {"decode": "while writing", "all": "in the prompt too"}


def masking(scores: Any, request: RetrievalRequest, opened: Any | None) -> None:
    """Draw the curve that belongs to the scores; before it is run, its cost and a button.

    Args:
        scores: a result whose heads are masked, best first.
        request: what the scores answer.
        opened: a curve that a link named; it is shown instead.
    """
    if opened is not None:
        run = str(st.query_params.get("run", ""))
        _curve(opened, run, mask_request_of(opened, request.model))
        return
    wanted = MaskRequest.after(request, scores, **_options())
    job, run = runs.job_of(wanted), runs.find(wanted)
    if job is not None and job.active:
        follow(job.id, lambda partial: None)
    elif run is not None:
        _curve(runs.load(run), run, wanted)
    else:
        if job is not None and job.state == "failed":
            failed(job, wanted)
        elif job is not None and job.state == "cancelled":
            stopped(job)
        _offer(wanted)


def curve_alone(curve: Any, run: str, request: RetrievalRequest) -> None:
    """Draw a curve whose scores are not stored."""
    st.info(
        "These are masked heads. The scores of all heads on these needles are not stored; Run "
        "computes them.",
        icon=":material/info:",
    )
    _curve(curve, run, mask_request_of(curve, request.model))


def _options() -> dict[str, Any]:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        mask = st.selectbox(
            "Masked by", list(retrieval_view.MASKS), key="in.retrieval.mask", width=170,
            format_func=retrieval_view.MASKS.__getitem__,
            help="Uniform attention: queries are zero, as published. Zero output: the head writes "
            "nothing.", **KEPT,
        )  # fmt: skip
        phase = st.selectbox(
            "When", list(_PHASES), key="in.retrieval.phase", width=170,
            format_func=_PHASES.__getitem__, **KEPT,
        )  # fmt: skip
        draws = st.number_input(
            "Random draws", 1, 20, 3, key="in.retrieval.draws", width=120,
            help="Sets of random heads for each number of heads.", **KEPT,
        )  # fmt: skip
    return {"mask": mask, "phase": phase, "draws": draws}


def _offer(wanted: MaskRequest) -> None:
    problem = wanted.problem()
    if problem:
        st.caption(words(problem, 300))
        return
    cost = like_last(wanted, wanted.runs_of_the_model, _answers, "answers written")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Mask heads", key="mask_now", icon=":material/play_arrow:", on_click=_start,
            args=(wanted,),
        )  # fmt: skip
        st.caption(cost.in_words(detachable=False), width="content")
    new = "other needles of the same kind" if wanted.form != "text" else "the same needles"
    st.caption(
        f"Masks the {', '.join(map(str, wanted.k))} best heads of this result on {new}, against as "
        f"many of the heads that are no retrieval heads, drawn at random {wanted.draws} times."
    )


def _answers(record: Any) -> int:
    sets = int(record.sizes.get("head_set", 0))
    return len(record.labels) * (1 + sets)


def _start(wanted: MaskRequest) -> None:
    def work(progress: Any) -> None:  # returns no run: the page stays with its scores
        progress(ml.Progress(0, 0, f"loading {wanted.model}"))
        wanted.compute(loaded.load(wanted.load_arguments), progress, recompute=False)

    label = f"mask heads: “{wanted.label}” on {wanted.model}"
    ml.jobs.submit(wanted.id, work, device=runs.queue_of(wanted), label=label)


def _curve(curve: Any, run: str, request: MaskRequest) -> None:
    view = ml.plots.mask_view(curve)
    title = retrieval_view.mask_title(curve)
    st.markdown(f"**{words(title)}** &nbsp; :small[:gray[{words(view.facts, 300)}]]")
    mask_chart(curve)
    with st.container(horizontal=True, vertical_alignment="center", key="menus.mask"):
        export_menu(
            curve, [view], request, run, figure=lambda: ml.plots.mask_curve(curve), key="mask"
        )
    table_twin([view], key=".mask")
