"""A request taken along to another page: its fields are filled there, before they are drawn."""

import streamlit as st

from components.picker import adopt
from pages import page_at
from request import Request

__all__ = ["arrive", "carry", "leave"]

_WAITING = "leaving_for"


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
