"""A run under way: how far it is, a picture of what is there, and a way to stop it."""

from collections.abc import Callable
from typing import Any

import streamlit as st

import mechlab as ml
from components.cell_grid import cell_grid
from text import duration, words

__all__ = ["PartialViews", "follow", "progress_words"]

PartialViews = Callable[[Any], list[Any] | None]
"""What a page draws of an unfinished Dataset: grids, or None while there is nothing to draw."""


def follow(id: str, partial_views: PartialViews) -> None:
    """Show a running job, twice a second, until it ends; then rerun the page."""
    _poll(id, partial_views)


@st.fragment(run_every=0.5)
def _poll(id: str, partial_views: PartialViews) -> None:
    job = ml.jobs.TABLE.job(id)
    if job is None or not job.active:
        if job is not None and job.state == "done" and isinstance(job.result, str):
            st.query_params["run"] = job.result[:12]
        st.rerun()
    else:
        _show(job, partial_views)


def _show(job: Any, partial_views: PartialViews) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        share = min(job.done / job.total, 1.0) if job.total else 0.0
        st.progress(share, text=words(progress_words(job)))
        st.button(
            "Stopping after this batch…" if job.cancelling else "Cancel",
            key="cancel", icon=":material/stop_circle:", disabled=job.cancelling,
            on_click=ml.jobs.TABLE.cancel, args=(job.id,),
        )  # fmt: skip
    views = None if job.partial is None else partial_views(job.partial)
    if views:
        st.caption("What is there so far.")
        for index, (view, column) in enumerate(zip(views, st.columns(len(views)), strict=True)):
            with column:
                st.markdown(f":small[**{words(view.title, 80)}**]")
                cell_grid(view, key=f"partial.{index}", on_open=lambda: None)


def progress_words(job: Any) -> str:
    """Say how far a job is, e.g. `640 of 1,200 rows · 12 per second · about 40 s left`."""
    if job.state == "queued":
        before = ml.jobs.TABLE.position(job.id) or 0
        return f"waiting for {before} other {'run' if before == 1 else 'runs'} on {job.device}"
    if not job.total:
        return job.unit or "starting"
    parts = [f"{job.done:,} of {job.total:,} {job.unit}"]
    if job.per_second is not None:
        parts.append(f"{job.per_second:,.1f}".removesuffix(".0") + " per second")
    if job.seconds_left is not None:
        parts.append(f"about {duration(job.seconds_left)} left")
    return " · ".join(parts)
