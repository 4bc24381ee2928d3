"""The table of stored runs; which rows are ticked stands in the URL."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

import runs
from store_view import newest_versions, rows

__all__ = ["forget_ticks_not_here", "table", "tick", "ticked"]

_PARAMETER = "ticked"


def ticked(records: Sequence[Any]) -> list[Any]:
    """Return the records that are ticked, in the order of the URL."""
    by_id = {record.id: record for record in records}
    return [by_id[run] for run in _ids() if run in by_id]


def forget_ticks_not_here(records: Sequence[Any]) -> None:
    """Say how many ticked runs of a link this store does not have, and untick them."""
    text = st.query_params.get(_PARAMETER, "")
    asked = [run for run in dict.fromkeys(text.split(",")) if run]
    here = {record.id for record in records}
    kept = [run for run in asked if run in here]
    if lost := len(asked) - len(kept):
        runs_are = "run, which is" if lost == 1 else "runs, which are"
        st.warning(
            f"The link asked for {lost} {runs_are} not in this store.", icon=":material/link_off:"
        )
        if kept:
            st.query_params[_PARAMETER] = ",".join(kept)
        else:
            del st.query_params[_PARAMETER]


def tick(ids: Sequence[str]) -> None:
    """Tick these runs and no others."""
    if ids:
        st.query_params[_PARAMETER] = ",".join(ids)
    else:
        st.query_params.pop(_PARAMETER, None)
    st.session_state["ticks"] = st.session_state.get("ticks", 0) + 1  # the table starts anew


def table(shown: Sequence[Any], records: Sequence[Any], remarks: Mapping[str, Any]) -> None:
    """Draw the rows with boxes to tick.

    Args:
        shown: what passes the filters.
        records: all, to tell what is out of date.
        remarks: what is said of runs, by key.
    """
    ids = [record.id for record in shown]
    before = [ids.index(run) for run in _ids() if run in ids]
    # A new key for other rows: ticks are places in the table, which mean other runs then.
    about = f"{st.session_state.get('ticks', 0)} {' '.join(ids)}"
    key = f"table.{hashlib.sha256(about.encode()).hexdigest()[:12]}"
    st.dataframe(
        rows(shown, newest_versions(records), remarks),
        key=key,
        hide_index=True,
        height=min(420, 40 + 36 * max(1, len(shown))),
        on_select=lambda: _selected(key, ids),
        selection_mode="multi-row",
        selection_default={"selection": {"rows": before}},
        column_config={
            "created": st.column_config.DatetimeColumn("created", format="YYYY-MM-DD HH:mm"),
            "prompts": st.column_config.TextColumn("prompts", width="medium"),
            # Nothing takes their place while nobody has written any.
            "tags": st.column_config.TextColumn("tags", width=120) if remarks else None,
            "note": st.column_config.TextColumn("note", width="medium") if remarks else None,
        },
        alt="Stored runs, the newest first",
    )


def _selected(key: str, ids: Sequence[str]) -> None:
    chosen = [ids[row] for row in st.session_state[key]["selection"]["rows"]]
    kept = [run for run in _ids() if run in chosen or run not in ids]
    new = [run for run in chosen if run not in kept]
    if kept + new:
        st.query_params[_PARAMETER] = ",".join(kept + new)
    else:
        st.query_params.pop(_PARAMETER, None)


def _ids() -> list[str]:
    text = st.query_params.get(_PARAMETER, "")
    return [run for run in dict.fromkeys(text.split(",")) if runs.is_run_id(run)]
