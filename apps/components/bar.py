"""The bar on top of every page: which model, which prompt, which run, what is running, the link."""

import streamlit as st

import loaded
import mechlab as ml
from request import Request

__all__ = ["shared_bar", "signed", "words"]


def shared_bar(request: Request) -> None:
    """Draw the bar; the same on every page."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="bar"):
        ready = loaded.is_loaded(request.load_arguments)
        st.badge(
            words(f"{request.model} · {request.dtype} · {request.device}", 60),
            icon=":material/memory:",
            color="green" if ready else "gray",
            help="The model is loaded." if ready else "Not loaded yet; the first run loads it.",
        )
        if request.prompt:
            st.badge(words(f"“{request.prompt}”", 60), icon=":material/short_text:", color="gray")
        if run := st.query_params.get("run"):
            st.badge(words(f"run {run}", 20), icon=":material/inventory_2:", color="blue")
        _jobs()


def words(text: str, longest: int = 200) -> str:
    """Return text from outside so that Markdown shows it character by character."""
    return ml.plots.show_text(text, longest=longest, form="markdown")


def signed(number: float, digits: int = 4) -> str:
    """Return a number with its sign, a minus as wide as a plus; no sign where it rounds to 0."""
    text = f"{number:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def _jobs() -> None:
    active = [job for job in ml.jobs.TABLE.jobs() if job.active]
    if active:
        names = "\n".join(f"- {words(job.label, 80)}: {job.state}" for job in active)
        st.badge(
            f"{len(active)} running",
            icon=":material/progress_activity:",
            color="orange",
            help=names,
        )
