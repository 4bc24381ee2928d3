"""The bar on top of every page: model, prompt, run, pinned run, link, export, jobs."""

import time
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import streamlit as st

import loaded
import mechlab as ml
import runs
from components.copy_link import copy_link
from components.exports import run_menu
from components.picker import cached_models, model_request
from components.progress import progress_words
from components.selection import warn_of_link
from request import Request
from text import ago, signed, words

__all__ = ["announce", "pinned_run", "shared_bar", "signed", "words"]

_ANNOUNCED, _PINNED = "announced", "pinned"
_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_MOST_OFFERED = 6


def announce(request: Request, answered: Request | None = None) -> None:
    """Tell the bar what the open page is about; every page calls this once it has settled.

    Args:
        request: what the fields ask for.
        answered: what the shown result answers, for its export; None when none is shown.
    """
    st.session_state[_ANNOUNCED] = request, answered


def pinned_run() -> str | None:
    """Return the run that every page compares with; None when none is pinned.

    It stands in the URL, and stays pinned on other pages of the session until it is let go.
    """
    pinned = str(st.query_params.get("b") or st.session_state.get(_PINNED, ""))
    return pinned if runs.is_run_id(pinned) else None


def _keep_pinned() -> None:
    """Hold the pinned run in URL and session; say so when the URL names none that could be."""
    asked = st.query_params.get("b")
    if asked and not runs.is_run_id(asked):
        warn_of_link([f"pinned run {asked!r}: a run has 12 hex digits"])
        del st.query_params["b"]
    elif (pinned := pinned_run()) is not None:
        st.session_state[_PINNED] = pinned
        if asked != pinned:
            st.query_params["b"] = pinned


def shared_bar(model: Request) -> None:
    """Draw the bar; the same on every page.

    Args:
        model: a request that names the model that the fields hold.
    """
    _keep_pinned()
    shown, answered = st.session_state.pop(_ANNOUNCED, None) or (model, None)
    run = st.query_params.get("run", "")
    record = runs.entry(run)
    with st.container(
        horizontal=True, vertical_alignment="center", gap="xsmall", wrap=False, key="chips"
    ):
        _model_chip(shown)
        if shown.PAGE and shown.label:
            st.badge(
                words(f"“{shown.label}”", 27), icon=":material/short_text:", color="gray",
                help=words(shown.label, 400),
            )  # fmt: skip
        if record is not None:
            _run_chip(record, stale=answered is not None and bool(shown.differences(answered)))
        _pin(run if runs.is_run_id(run) else "")
        copy_link()
        if record is not None and answered is not None:
            run_menu(answered, run)
        _jobs()


def _model_chip(request: Request) -> None:
    """Draw the model in use; where it is not loaded, with what can be done about it."""
    steps = [] if request.checkpoint is None else [f"step {request.checkpoint}"]
    dtype = _PRECISIONS.get(request.dtype, request.dtype)
    parts = [PurePath(request.model).name, *steps, dtype, request.device]
    label, icon = words(" · ".join(parts), 32), ":material/memory:"
    whole = f"{request.model} {' '.join(steps)} · {request.dtype} · {request.device}"
    if loaded.is_loaded(request.load_arguments):
        st.badge(label, icon=icon, color="green", help=f"{words(whole, 200)}: loaded.")
        return
    with st.popover(label, icon=icon, key="model_chip", type="tertiary"):
        _no_model(request)


def _no_model(request: Request) -> None:
    """Offer the chosen model, the shipped ones, those in the cache, and Setup."""
    job = runs.loading(request)
    under_way = job is not None and job.active
    st.markdown(f"**{words(request.model, 60)} is not loaded.** The first run loads it.")
    others = dict.fromkeys([*ml.organisms.names(), *cached_models()])
    others.pop(request.model, None)
    st.button(
        "Loading…" if under_way else "Load it now", key="load_chip", disabled=under_way,
        icon=":material/download:", on_click=runs.start_loading, args=(request,),
    )  # fmt: skip
    if others:
        st.caption("Or take another one, on all pages:")
    for name in list(others)[:_MOST_OFFERED]:
        st.button(
            words(name, 50), key=f"take_model.{name}", type="tertiary", on_click=_take, args=(name,)
        )
    st.page_link("views/setup.py", label="Open Setup", icon=":material/tune:")


def _take(name: str) -> None:
    """Callback: put another model into the fields and load it."""
    st.session_state.update(
        {"in.model": name, "in.revision": None, "in.checkpoint": None, "in.weights": "raw"}
    )
    runs.start_loading(replace(model_request(), model=name))


def _run_chip(record: Any, *, stale: bool) -> None:
    """Draw the run that is shown; `stale` when the fields ask for something else by now."""
    age = ago(time.time() - record.when.timestamp())
    told = "Other inputs than those in the fields. " if stale else ""
    st.badge(
        words(f"{'shown: ' if stale else ''}{record.id} · {age}", 40),
        icon=":material/inventory_2:", color="gray" if stale else "blue",
        help=words(f"{told}Run {record.id}: {record.method}, {record.wall_seconds:.1f} s"),
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
        st.session_state.pop(_PINNED, None)
    else:
        st.query_params["b"] = st.session_state[_PINNED] = run


def _jobs() -> None:
    if any(job.active for job in ml.jobs.TABLE.jobs()):
        _following_light()
    else:
        _light()


@st.fragment(run_every=1.0)
def _following_light() -> None:
    if not any(job.active for job in ml.jobs.TABLE.jobs()):
        st.rerun()  # what waited for it, such as the model's chip, shows that it is there
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
