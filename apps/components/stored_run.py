"""One stored run by itself, and what differs between several."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from compare_view import spec_differences, views_of
from components.cell_grid import cell_grid
from components.color_scale import color_scale
from components.exports import table_twin
from components.go import go
from components.states import shown_although
from components.store_tools import remark_menu
from pages import page_of_method
from text import words

__all__ = ["code_of_comparison", "one_run", "spec_table"]


def one_run(record: Any, result: Any, remark: Any) -> None:
    """Draw a run's grids, the way to its page, what is said of it, and how it was made.

    Args:
        record: of the run.
        result: the run.
        remark: what is said of it; None for nothing.
    """
    with st.container(horizontal=True, vertical_alignment="center"):
        name = record.method.replace("_", " ")
        st.markdown(f"##### {words(record.id)} · {words(name)} on {words(record.model_name)}")
        page = page_of_method(record.method)
        if page is not None:
            go(page.address, f"Open on {page.title}", key="open_run", run=record.id)
        remark_menu(record, remark)
    if remark is not None and remark.shown_although:
        shown_although(remark.shown_although)
    views = views_of(result)
    if views:
        st.caption(words(views[0].facts, 300))
        for place, view in zip(st.columns(len(views[:3])), views[:3], strict=True):
            with place:
                st.markdown(f":small[{words(view.title, 80)}]")
                cell_grid(view, key=f"one.{view.title}", on_open=lambda: None)
        color_scale(views)
        table_twin(views)
    else:
        st.caption("This kind of result has no grid; its numbers are in the exports.")
    with st.expander("How it was made"):
        st.json({"source": dict(record.source), **dict(record.provenance)}, expanded=1)
    _code([record], f'result = store.get("{record.id}")')


def spec_table(records: Sequence[Any]) -> None:
    """Draw only what differs in how the runs were made."""
    differs = spec_differences(records)
    if differs:
        st.markdown("**What differs**")
        st.dataframe(differs, hide_index=True, key="spec_diff")
    else:
        st.caption("These runs were asked for in the same way.")


def code_of_comparison(records: Sequence[Any]) -> None:
    """Draw the Python that reads the runs and takes the difference."""
    lines = [
        f'{letter} = store.get("{r.id}")' for letter, r in zip("abcdef", records, strict=False)
    ]
    _code(records, "\n".join([*lines, "difference = b - a  # cell by cell, for every variable"]))


def _code(records: Sequence[Any], lines: str) -> None:
    with st.popover("Code", icon=":material/code:", key=f"code.{len(records)}"):
        st.code(f"import mechlab as ml\n\nstore = ml.Store()\n{lines}\n", language="python")
