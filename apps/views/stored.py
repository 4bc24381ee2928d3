"""Runs & compare: everything that is stored, to open, compare, export, import and delete.

This page loads no model and imports no torch.
"""

import streamlit as st

import mechlab as ml
import runs
from compare_view import views_of
from components.compare import side_by_side
from components.selection import warn_of_link
from components.states import cannot_be_read
from components.store_table import forget_ticks_not_here, table, ticked
from components.store_tools import import_menu, running_now, ticked_menu, whole_store_menu
from components.stored_run import code_of_comparison, one_run, spec_table
from store_view import filtered, megabytes

_MOST = 6


def page() -> None:
    """Draw filters, table, tools, and what is ticked."""
    records = runs.recent(most=1_000_000)
    running_now()
    forget_ticks_not_here(records)
    if not records:
        st.info(
            f"Nothing is stored in {ml.Store().root} yet. Run something on another page, or import "
            "a bundle.",
            icon=":material/inventory_2:",
        )
        import_menu()
        return
    remarks = ml.Store().remarks()
    shown = _filters(records, remarks)
    with st.container(horizontal=True, vertical_alignment="center", key="store_tools"):
        size = megabytes(sum(record.size for record in shown))
        st.caption(f"{len(shown)} of {len(records)} runs · {size}", width="content")
        import_menu()
        ticked_menu(ticked(records))
        whole_store_menu()
    table(shown, records, remarks)
    _below(ticked(records), remarks)


def _filters(records: list, remarks: dict) -> list:
    kinds = sorted({record.method for record in records})
    models = sorted({record.model_name for record in records})
    tags = sorted({tag for said in remarks.values() for tag in said.tags})
    known = {"kind": kinds, "of_model": models, "tag": tags}
    link = st.query_params.to_dict()  # before any field: what a field cannot use, it drops silently
    warn_of_link(
        [f"{name} {link[name]!r}: no run has it" for name in known
         if link.get(name) not in (None, *known[name])]
    )  # fmt: skip
    kind, model, tag, text = st.columns([2, 2, 2, 4])
    chosen = {
        "kind": kind.selectbox(
            "Kind", kinds, index=None, key="kind", bind="query-params", placeholder="all",
            format_func=lambda name: name.replace("_", " "),
        ),
        "model": model.selectbox(
            "Model", models, index=None, key="of_model", bind="query-params", placeholder="all"
        ),
        "tag": tag.selectbox(
            "Tag", tags, index=None, key="tag", bind="query-params", disabled=not tags,
            placeholder="all" if tags else "none yet",
        ),
        "text": text.text_input(
            "Search", key="search", bind="query-params",
            placeholder="words in run id, prompts, options, notes",
        ),
    }  # fmt: skip
    return filtered(records, **chosen, remarks=remarks)


def _below(chosen: list, remarks: dict) -> None:
    """Draw what is ticked: one run by itself, two to six side by side."""
    if not chosen:
        st.caption("Tick one run to look at it, two to six to compare them.")
        return
    if len(chosen) > _MOST:
        st.warning(f"{len(chosen)} runs are ticked; the first {_MOST} are compared.")
        chosen = chosen[:_MOST]
    try:
        results = [runs.load(record.id) for record in chosen]
    except ml.StoreError as error:
        cannot_be_read(error)
        return
    if len(chosen) == 1:
        one_run(chosen[0], results[0], remarks.get(chosen[0].key))
        return
    names = [f"{letter} · {r.id}" for letter, r in zip("ABCDEF", chosen, strict=False)]
    spec_table(chosen)
    if len({record.method for record in chosen}) > 1:
        st.info("These are results of different kinds; only one kind can be laid side by side.")
        return
    side_by_side([views_of(result) for result in results], names, key="runs")
    code_of_comparison(chosen)


page()
