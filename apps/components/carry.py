"""A request taken along to another page: its fields are filled there, before they are drawn."""

import streamlit as st

from components.picker import adopt
from pages import page_at
from request import Request

__all__ = ["arrive", "ask_whole_page", "carry", "leave", "whole_page_if_asked"]

_WAITING = "leaving_for"
_WHOLE = "whole_page"


def carry(request: Request) -> None:
    """Callback of a button: the request's page is opened with its fields filled from it."""
    st.session_state[f"carried.{request.PAGE}"] = request
    st.session_state[_WAITING] = request.PAGE


def leave() -> None:
    """Go where `carry` said, if it did; call this below the buttons."""
    page = page_at(st.session_state.pop(_WAITING, ""))
    if page is not None:
        st.switch_page(page.file, query_params={})


def arrive(kind: type[Request]) -> None:
    """Fill the fields from a request that was carried here; call this first on the page."""
    carried = st.session_state.pop(f"carried.{kind.PAGE}", None)
    if isinstance(carried, kind):
        adopt(carried)


def ask_whole_page() -> None:
    """Callback of a button in a fragment: fields outside of it were changed."""
    st.session_state[_WHOLE] = True


def whole_page_if_asked() -> None:
    """Rerun the whole page if a callback asked for it; call this first in a fragment."""
    if st.session_state.pop(_WHOLE, False):
        st.rerun()
