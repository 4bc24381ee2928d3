"""Ways from one page to another: a link that carries the selection along."""

from typing import Any

import streamlit as st

from pages import page_at, page_of_method

__all__ = ["go", "open_run"]

_KEPT_KEYS = ("layer", "head", "pos")
_TOKENS = ("target", "foil")


def go(address: str, label: str, *, key: str, **query: Any) -> None:
    """Draw a button that opens another page; nothing when there is no such page.

    Target and foil of the URL go along.

    Args:
        address: of the page, e.g. `heads`.
        label: what the button says.
        key: the button's key.
        query: what the page's URL is given, e.g. `layer=9`; None is left out.
    """
    page = page_at(address)
    if page is None:
        return
    if st.button(label, key=key, icon=f":material/{page.icon}:", type="tertiary"):
        wanted = {name: value for name in _TOKENS if (value := st.query_params.get(name))}
        wanted |= {name: str(value) for name, value in query.items() if value is not None}
        for name in (*_KEPT_KEYS, *_TOKENS):  # a value in the session would win over the URL's
            st.session_state.pop(name, None)
        st.switch_page(page.file, query_params=wanted)


def open_run(record: Any) -> tuple[str, dict[str, str]] | None:
    """Return the file of the page that shows a stored result and its query, or None."""
    page = page_of_method(record.method)
    return None if page is None else (page.file, {"run": record.id})
