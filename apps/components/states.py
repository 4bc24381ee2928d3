"""States that every page shares: no model, bad link, stale, failed, stopped, baseline broken.

Loading, queued, running and partial are in `components.progress`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

import loaded
import mechlab as ml
import runs
from components.go import go
from pages import page_of_method
from request import Request
from text import lines, words

__all__ = [
    "Refusal", "bad_link", "cannot_be_read", "elsewhere", "failed", "no_model", "refusal",
    "shown_although", "stale_notice", "stopped",
]  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """Why a stored result means nothing, and what would go on regardless."""

    reason: str
    """A sentence, e.g. `the clean run does not predict ' Paris' (p = 0.020 for ' Rome')`."""
    button: str = ""
    """What goes on anyway; empty when nothing does."""
    fields: dict[str, Any] | None = None
    """Fields for a run that goes on regardless, and records so in its options.

    None where the stored result is shown as it is, which the remark on it then records.
    """
    shown: bool = False
    """Whether the result's own options say that it goes on regardless: then this is a notice."""

    @property
    def reruns(self) -> bool:
        """Whether going on takes another run."""
        return bool(self.fields)


def no_model(request: Request, load: Callable[[], None]) -> bool:
    """Say that no model is in memory, with ways on; return whether one is.

    For panels that need a model now. Pages that run jobs need none: a job loads it.
    """
    if loaded.is_loaded(request.load_arguments):
        return True
    with st.container(horizontal=True, vertical_alignment="center"):
        st.info(f"{words(request.model)} is not loaded.", icon=":material/memory:")
        st.button("Load it", key="load_here", icon=":material/download:", on_click=load)
        go("setup", "Choose another", key="to_setup")
    return False


def bad_link(run: str, wanted: type[Request]) -> None:
    """Say what a link asked for and what there is instead."""
    record = runs.entry(run)
    if record is not None:
        page = page_of_method(record.method)
        name = record.method.replace("_", " ")
        st.warning(
            f"Run {words(run)} is a result of another kind ({words(name)}).",
            icon=":material/link_off:",
        )
        if page is not None:
            go(page.address, f"Open it on {page.title}", key="other_page", run=run)
        return
    known = runs.recent(wanted.METHODS)
    newest = f" The newest is {known[0].id}." if known else ""
    why = "is not in this store" if runs.is_run_id(run) else "is not a run id (12 hex digits)"
    st.warning(
        f"The link asked for run {words(run, 40)}, which {why}. It holds {len(known)} results of "
        f"this kind.{newest} Import a bundle on Runs & compare, or run it here.",
        icon=":material/link_off:",
    )


def stale_notice(differences: list[str], back: Callable[[], None]) -> None:
    """Veil the picture drawn in `st.container(key="stale")` and offer the way back."""
    st.html("<style>.st-key-stale { opacity: 0.45; }</style>")
    with st.container(horizontal=True, vertical_alignment="center", key="stale_notice"):
        st.warning(
            "The inputs changed; the picture below belongs to the old ones. "
            + words("; ".join(differences), 300),
            icon=":material/history:",
        )
        st.button("Back to the result's inputs", key="back", on_click=back)


def refusal(why: Refusal, go_on: Callable[[], None]) -> None:
    """Say why a result is not meaningful (its baseline is broken), and offer to go on."""
    st.warning(
        f"This result would not be meaningful: {words(why.reason, 400)}. Correct the inputs, or "
        "try another example.",
        icon=":material/report:",
    )
    if why.button:
        where = "in the options of the new run" if why.reruns else "beside the result"
        st.button(why.button, key="anyway", on_click=go_on, help=f"Recorded {where}.")


def shown_although(reason: str) -> None:
    """Say on a picture that it means little: its baseline is broken, and it is shown anyway."""
    st.warning(
        f"Shown although its baseline is broken: {words(reason, 400)}.", icon=":material/report:"
    )


def failed(job: Any, request: Request) -> None:
    """Say in a sentence why a job failed; details, specification and code are folded."""
    why = lines(job.error) or "no reason was given"
    st.error(f"The run failed.  \n{why}", icon=":material/error:")
    with st.expander("Details"):
        st.code(job.error, language=None, wrap_lines=True)
        st.code(job.details, language=None)
        st.code(request.code(), language="python")


def stopped(job: Any) -> None:
    """Say that a job was cancelled and how to go on."""
    st.info(
        f"Stopped: {words(job.error)}. Run again to go on; finished batches are kept.",
        icon=":material/pause_circle:",
    )


def elsewhere(one: Any, follow: Callable[[], None]) -> None:
    """Say that another process computes this very request, and offer to follow it."""
    count = f"{one.done:,} of {one.total:,} {one.unit}" if one.total else "starting"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.info(
            f"Another process ({one.pid}) computes this now: {words(count)}.",
            icon=":material/sync:",
        )
        st.button("Follow it", key="follow", on_click=follow)


def cannot_be_read(error: ml.StoreError) -> None:
    """Say that a stored result is damaged."""
    st.error(lines(str(error)), icon=":material/broken_image:")
