"""A run under way: how far it is, a picture of what is there, and a way to stop it."""

from typing import Any

import streamlit as st

import mechlab as ml
from components.bar import words
from components.cell_grid import cell_grid
from components.trace_picture import grid_title
from cost import duration

__all__ = ["follow", "progress_words"]


def follow(id: str) -> None:
    """Show a running job, twice a second, until it ends; then rerun the page."""
    _poll(id)


@st.fragment(run_every=0.5)
def _poll(id: str) -> None:
    job = ml.jobs.TABLE.job(id)
    if job is None or not job.active:
        if job is not None and job.state == "done" and isinstance(job.result, str):
            st.query_params["run"] = job.result[:12]
        st.rerun()
    else:
        _show(job)


def _show(job: Any) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        share = min(job.done / job.total, 1.0) if job.total else 0.0
        st.progress(share, text=words(progress_words(job)))
        st.button(
            "Stopping after this batch…" if job.cancelling else "Cancel",
            key="cancel", icon=":material/stop_circle:", disabled=job.cancelling,
            on_click=ml.jobs.TABLE.cancel, args=(job.id,),
        )  # fmt: skip
    if (views := partial_views(job.partial)) is not None:
        st.caption("What is there so far; colours keep one scale from 0 to 1.")
        for index, (view, column) in enumerate(zip(views, st.columns(len(views)), strict=True)):
            with column:
                st.markdown(grid_title(view, view.title.partition(" · ")[0]))
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
        parts.append(f"{job.per_second:,.0f} per second")
    if job.seconds_left is not None:
        parts.append(f"about {duration(job.seconds_left)} left")
    return " · ".join(parts)


def partial_views(partial: Any) -> list[Any] | None:
    """Return grids of the probabilities restored so far; None when there is nothing to draw.

    Probabilities rather than effects: they exist before the corrupted baseline is known, and their
    scale from 0 to 1 does not move while cells fill in.
    """
    if partial is None or partial.sizes.get("prompt") != 1:
        return None
    if "restored_probability" not in partial:
        return None
    mean = partial["restored_probability"].mean("sample", skipna=False)
    return list(ml.plots.grid_views(mean.isel(prompt=0).assign_attrs(partial.attrs)))
