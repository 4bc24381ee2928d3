"""The bar on top of every page: model, prompt, run, pinned run, link, jobs."""

import time
from typing import Any

import streamlit as st

import loaded
import mechlab as ml
import runs
from components.copy_link import copy_link
from components.progress import progress_words
from request import Request
from text import ago, signed, words

__all__ = ["announce", "pinned_run", "shared_bar", "signed", "words"]

_ANNOUNCED = "announced"


def announce(request: Request) -> None:
    """Tell the bar what the open page is about; every page calls this once it has settled."""
    st.session_state[_ANNOUNCED] = request


def pinned_run() -> str | None:
    """Return the run that every page compares with, from the URL; None when none is pinned."""
    pinned = st.query_params.get("b", "")
    return pinned if runs.is_run_id(pinned) else None


def shared_bar(model: Request) -> None:
    """Draw the bar; the same on every page.

    Args:
        model: a request that names the model that the fields hold.
    """
    shown = st.session_state.pop(_ANNOUNCED, None) or model
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _model_chip(shown)
        if shown.PAGE and shown.label:
            label = words(f"“{shown.label}”", 50)
            st.badge(label, icon=":material/short_text:", color="gray")
        run = st.query_params.get("run", "")
        if runs.is_run_id(run):
            _run_chip(run)
        _pin(run if runs.is_run_id(run) else "")
        copy_link()
        _jobs()


def _model_chip(request: Request) -> None:
    ready = loaded.is_loaded(request.load_arguments)
    st.badge(
        words(f"{request.model} · {request.dtype} · {request.device}", 60),
        icon=":material/memory:",
        color="green" if ready else "gray",
        help="The model is loaded." if ready else "Not loaded yet; the first run loads it.",
    )


def _run_chip(run: str) -> None:
    record = runs.entry(run)
    if record is not None:
        age = ago(time.time() - record.when.timestamp())
        st.badge(
            words(f"run {run} · {age}", 40), icon=":material/inventory_2:", color="blue",
            help=words(f"{record.method}, {record.wall_seconds:.1f} s"),
        )  # fmt: skip


def _pin(run: str) -> None:
    pinned = pinned_run()
    if pinned is not None:
        st.button(
            f"B {pinned} ✕", key="unpin", type="tertiary", on_click=_set_pin, args=(None,),
            icon=":material/keep:", help="Stop comparing with this run.",
        )  # fmt: skip
    elif run:
        st.button(
            "Pin B", key="pin", type="tertiary", on_click=_set_pin, args=(run,),
            icon=":material/keep:", help="Compare what you look at next with this run (B − A).",
        )  # fmt: skip


def _set_pin(run: str | None) -> None:
    if run is None:
        st.query_params.pop("b", None)
    else:
        st.query_params["b"] = run


def _jobs() -> None:
    if any(job.active for job in ml.jobs.TABLE.jobs()):
        _following_light()
    else:
        _light()


@st.fragment(run_every=1.0)
def _following_light() -> None:
    _light()


def _light() -> None:
    jobs = ml.jobs.TABLE.jobs()
    active = [job for job in jobs if job.active]
    if not jobs:
        return
    label = f"{len(active)} running" if active else "Jobs"
    icon = ":material/progress_activity:" if active else ":material/task_alt:"
    with st.popover(label, icon=icon, key="jobs", type="tertiary"):
        for job in reversed(jobs[-8:]):
            _job_row(job)


def _job_row(job: Any) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        state = progress_words(job) if job.active else job.state
        st.markdown(f"{words(job.label, 80)}  \n:small[:gray[{words(state, 100)}]]")
        if job.active:
            st.button(
                "Stopping…" if job.cancelling else "Cancel", key=f"cancel.{job.id}",
                disabled=job.cancelling, on_click=ml.jobs.TABLE.cancel, args=(job.id,),
                type="tertiary",
            )  # fmt: skip
