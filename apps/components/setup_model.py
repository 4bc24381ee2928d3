"""The model on Setup: where it is, what it needs, loading it, and what it lets us see."""

import streamlit as st

import loaded
import runs
from components.progress import follow
from model_view import about, free_memory, in_words
from request import Request
from text import lines, words

__all__ = ["model_state"]


def model_state(request: Request) -> None:
    """Draw everything about the chosen model."""
    known = about(request.model)
    st.caption(words(in_words(known, request.dtype, free_memory()), 300))
    facts = loaded.summary(request.load_arguments)
    job = runs.loading(request)
    under_way = job is not None and job.active
    with st.container(horizontal=True):
        st.button(
            "Load", key="load", on_click=runs.start_loading, args=(request,),
            disabled=bool(facts) or under_way, icon=":material/download:",
            type="secondary" if facts else "primary",
        )  # fmt: skip
        st.button("Unload all", key="unload", on_click=loaded.drop_all, disabled=not facts)
    if under_way and job is not None:
        follow(job.id, lambda partial: None)
    elif facts:
        st.table([{"loaded model": name, "value": value} for name, value in facts.items()])
        _support(request)
    elif job is not None and job.state == "failed":
        st.error(lines(job.error), icon=":material/error:")
    else:
        st.info(
            "This model is not loaded. The first run loads it.", icon=":material/hourglass_empty:"
        )


def _support(request: Request) -> None:
    """Draw which sites were proven, each with the reason if it was not."""
    found = loaded.support(request.load_arguments)
    if found is None:
        st.caption("What it lets us see is checked by the first run.")
        return
    proven = [site for site, state in found.items() if state == "ok"]
    st.markdown("Checked: " + " ".join(f":green-badge[{words(site)} ✓]" for site in proven))
    missing = {site: why for site, why in found.items() if why != "ok"}
    if missing:
        with st.expander(f"{len(missing)} states that cannot be used"):
            st.table([{"state": site, "why": why} for site, why in missing.items()])
