"""Ways from one page to another: a link that carries the selection along."""

from typing import Any

import streamlit as st

from components.selection import COUNTED, TOKENS
from pages import page_at, page_of_method

__all__ = ["arrive_selected", "go", "open_run"]

_SELECTED = (*COUNTED, *TOKENS)
"""What fields hold that are bound to the URL: Streamlit takes these from the session alone."""
_ARRIVING = "arriving"


def go(
    address: str, label: str, *, key: str, fields: dict[str, Any] | None = None, **query: Any
) -> None:
    """Draw a button that opens another page; nothing when there is no such page.

    Target and foil of the URL go along.

    Args:
        address: of the page, e.g. `heads`.
        label: what the button says.
        key: the button's key.
        fields: session keys of fields of that page with what they shall hold.
        query: what the page selects, e.g. `layer=9`, or is told in its URL; None is left out.
    """
    page = page_at(address)
    if page is None:
        return
    if st.button(label, key=key, icon=f":material/{page.icon}:", type="tertiary"):
        wanted = {name: value for name in TOKENS if (value := st.query_params.get(name))}
        wanted |= {name: value for name, value in query.items() if value is not None}
        selected = {name: wanted.pop(name) for name in _SELECTED if name in wanted}
        for name in _SELECTED:
            st.session_state.pop(name, None)
        st.session_state[_ARRIVING] = {**selected, **(fields or {})}
        st.switch_page(page.file, query_params={n: str(value) for n, value in wanted.items()})


def arrive_selected() -> None:
    """Select on the page that `go` opened what it was told; call this before any field."""
    for name, value in st.session_state.pop(_ARRIVING, {}).items():
        st.session_state[name] = value


def open_run(record: Any) -> tuple[str, dict[str, str]] | None:
    """Return the file of the page that shows a stored result and its query, or None."""
    page = page_of_method(record.method)
    return None if page is None else (page.file, {"run": record.id})
