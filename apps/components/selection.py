"""The one selection: layer, head, position, bound to the URL and shared by all pages and panels.

A click, the keyboard, a link and typing all do the same thing: they set these fields.
"""

from collections.abc import Callable, Mapping

import streamlit as st

from components.cell_grid import opened_cell
from text import words

__all__ = [
    "COUNTED",
    "clicked",
    "forget_what_is_not_here",
    "link_problems",
    "select",
    "warn_of_link",
]

COUNTED = {"layer": "Layer", "head": "Head", "pos": "Token"}
"""Selections that count from 0, with the words of their fields."""


def select(**counts: int) -> dict[str, int | None]:
    """Draw one URL-bound field per selection; `None` means that nothing is chosen.

    Args:
        counts: how many there are of each, e.g. `layer=12, head=12`.
    """
    forget_what_is_not_here(**counts)
    chosen: dict[str, int | None] = {}
    for (name, count), place in zip(counts.items(), st.columns(len(counts)), strict=True):
        # No default: a bound field equal to its default leaves the URL, and 0 must stay there.
        chosen[name] = place.number_input(
            COUNTED[name], 0, count - 1, value=None, key=name, bind="query-params", placeholder="–"
        )
    return chosen


def clicked(key: str, *names: str) -> Callable[[], None]:
    """Return the callback of a grid: it writes the fields, from which everything else follows.

    Args:
        key: the grid's key.
        names: what its rows and its columns are, e.g. `"layer", "head"`.
    """

    def write() -> None:
        if (cell := opened_cell(key)) is not None:
            for name, value in zip(names, cell, strict=True):
                st.session_state[name] = value

    return write


def forget_what_is_not_here(**counts: int) -> None:
    """Clear a choice left over from another result, before a field refuses it."""
    for name, count in counts.items():
        if (chosen := st.session_state.get(name)) is not None and chosen >= count:
            st.session_state[name] = None


def link_problems(link: Mapping[str, str], **counts: int) -> list[str]:
    """Say what a link asked for that is not here; the fields have ignored it silently.

    Args:
        link: the page's parameters as they were before any field was drawn.
        counts: as in `select`.
    """
    return [
        f"{name} {link[name]!r}: this result has {name} 0 to {count - 1}"
        for name, count in counts.items()
        if name in link and not (link[name].isdecimal() and int(link[name]) < count)
    ]


def warn_of_link(problems: list[str]) -> None:
    """Show what `link_problems` found."""
    for problem in problems:
        st.warning(f"The link asked for {words(problem)}.", icon=":material/link_off:")
