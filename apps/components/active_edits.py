"""The banner of edits in force: this browser session's only, taken off again after every look."""

from typing import Any

import streamlit as st

import mechlab as ml
import runs
from components.progress import progress_words
from edit_view import delta_file, short
from edits_in_force import TryRequest, tried
from request import Request
from text import lines, words

__all__ = ["banner", "force_button"]

_KEY, _CHANGED = "edits.in_force", "edits.changed"


def _active() -> list[str]:
    """Return the runs whose edits this session has in force."""
    found: list[str] = st.session_state.setdefault(_KEY, [])
    return found


def force_button(run: str) -> None:
    """Draw the button that puts an edit in force for this session, or takes it back."""
    if run in _active():
        st.button(
            "Undo this edit", key="undo_here", icon=":material/undo:", on_click=_undo, args=(run,)
        )
    else:
        st.button(
            "Put in force", key="force", icon=":material/edit:", on_click=_put,
            args=(run,), help="For comparisons in this browser session; the model stays as it is.",
        )  # fmt: skip
    if st.session_state.pop(_CHANGED, False):
        st.rerun()  # the picture is a fragment; the banner is above it


def _put(run: str) -> None:
    _active().append(run)
    st.session_state[_CHANGED] = True


def _undo(run: str) -> None:
    if run in _active():
        _active().remove(run)
        st.session_state[_CHANGED] = True


def banner(model: Request) -> None:
    """Draw what is in force, with ways to compare, undo and save; nothing when nothing is.

    Args:
        model: a request that names the model of the page.
    """
    stories = {run: runs.load(run) for run in list(_active())}
    for run, story in stories.items():
        if story is None:  # deleted meanwhile
            _undo(run)
    stories = {run: story for run, story in stories.items() if story is not None}
    if not stories:
        return
    with st.container(border=True, key="edits_active"):
        st.markdown(
            f":orange-background[**EDITS ACTIVE: {len(stories)}**] &nbsp; :small[for comparisons "
            "here, until the page is loaded anew · other pages and tabs see the base weights]"
        )
        for run, story in stories.items():
            _row(run, story)
        if st.toggle("Compare off and on", key="edits_compare"):
            _compare(model, tuple(stories))


def _row(run: str, story: Any) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key=f"active.{run}"):
        st.markdown(words(short(story)), width="content")
        st.button(
            "Undo", key=f"undo.{run}", icon=":material/undo:", type="tertiary", on_click=_undo,
            args=(run,),
        )  # fmt: skip
        st.download_button(
            "Save delta", lambda: delta_file(story), f"edit-{run}.safetensors",
            "application/octet-stream", key=f"save.{run}", on_click="ignore", type="tertiary",
            icon=":material/download:",
        )  # fmt: skip


def _compare(model: Request, edits: tuple[str, ...]) -> None:
    prompt, go = st.columns([5, 1], vertical_alignment="bottom")
    text = prompt.text_input(
        "Any prompt", value=st.session_state.get("in.prompt", ""), key="edits_prompt"
    )
    names = ("model", "device", "dtype", "weights", "revision", "checkpoint")
    request = TryRequest(
        **{name: getattr(model, name) for name in names}, prompt=text.rstrip(), edits=edits
    )
    go.button(
        "Compare", key="edits_try", on_click=_start, args=(request,), disabled=not text.strip()
    )
    job: Any = runs.job_of(request)
    if job is not None and job.active:
        _wait(job.id)
    elif job is not None and job.state == "done":
        _told(*job.result)
    elif job is not None:
        st.error(lines(job.error or job.state), icon=":material/error:")


def _start(request: TryRequest) -> None:
    try:
        runs.start(request)
    except ml.MechlabError as error:
        st.toast(words(str(error), 300), icon=":material/error:")


@st.fragment(run_every=0.5)
def _wait(id: str) -> None:
    job = ml.jobs.TABLE.job(id)
    if job is None or not job.active:
        st.rerun()
    else:
        st.caption(words(progress_words(job)))


def _told(off: str, on: str) -> None:
    found = tried(off, on)
    for place, name, text, sure in zip(
        st.columns(2), ("off", "on"), (found.off, found.on),
        (found.log_probability_off, found.log_probability_on), strict=True,
    ):  # fmt: skip
        with place:
            st.markdown(f"**{name}** :small[:gray[{sure:.2f} nats per token, greedy]]")
            st.markdown(words(text, 400))
