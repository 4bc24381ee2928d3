"""What can be done with stored runs: import, export, delete, verify, tidy up."""

import io
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec

import streamlit as st

import mechlab as ml
from components.store_table import tick
from store_view import megabytes
from text import lines, words

__all__ = ["import_menu", "remark_menu", "running_now", "ticked_menu", "whole_store_menu"]

_SAID = "store_said"
P = ParamSpec("P")


def _told(work: Callable[P, None]) -> Callable[P, None]:
    """Make a callback say why the store let it down: broken, read-only, full."""

    @wraps(work)
    def guarded(*args: P.args, **options: P.kwargs) -> None:
        try:
            work(*args, **options)
        except ml.StoreError as error:
            _say("error", str(error))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            _say("error", f"The store {ml.Store().root} cannot be used: {why}.")

    return guarded


def running_now() -> None:
    """Say what is being computed into this store, in this process or another one."""
    said = st.session_state.pop(_SAID, None)
    if said is not None:
        kind, text = said
        (st.success if kind == "ok" else st.error)(text)
    for one in ml.Store().running():
        count = f"{one.done:,} of {one.total:,} {one.unit}" if one.total else "starting"
        st.caption(
            f":material/progress_activity: {words(one.method.replace('_', ' '))} on "
            f"{words(one.model_name)}: {words(count)} (process {one.pid})"
        )


def import_menu() -> None:
    """Draw the field that takes a bundle."""
    with st.popover("Import", icon=":material/upload:"):
        st.caption("A bundle that Export made. It is checked whole before anything is kept.")
        file = st.file_uploader("Bundle (.zip)", type="zip", key="bundle", max_upload_size=5)
        st.button("Import it", key="import_now", disabled=file is None, on_click=_take)


def ticked_menu(records: Sequence[Any]) -> None:
    """Draw what can be done with the ticked runs."""
    ids = [record.id for record in records]
    with st.popover("Export ticked", icon=":material/download:", disabled=not records):
        st.caption("Results with their records, for the store of somebody else.")
        st.download_button(
            "Bundle (.zip)", lambda: io.BytesIO(ml.Store().bundle(ids)),
            f"mechlab-{len(ids)}-runs.zip", "application/zip", key="export_bundle",
            on_click="ignore",
        )  # fmt: skip
    with st.popover("Delete ticked…", icon=":material/delete:", disabled=not records):
        size = megabytes(sum(record.size for record in records))
        count = "this run" if len(ids) == 1 else f"these {len(ids)} runs"
        st.markdown(f"Delete {count}? Up to {size} is freed. This cannot be undone.")
        st.button(
            f"Delete {count}", key="delete_now", type="primary", on_click=_delete, args=(ids,)
        )


def remark_menu(record: Any, remark: Any) -> None:
    """Draw the fields of what is said of one run, and the button that keeps it.

    Args:
        record: of the run.
        remark: what is said of it now; None for nothing.
    """
    tags, note = f"tags.{record.id}", f"note.{record.id}"
    if tags not in st.session_state:
        st.session_state[tags] = "" if remark is None else " ".join(remark.tags)
        st.session_state[note] = "" if remark is None else remark.note
    with st.popover("Tags and note", icon=":material/sell:", key="remark"):
        st.text_input(
            "Tags", key=tags, placeholder="paper to-check",
            help="Words with spaces between them: letters, digits and _ . : + / -",
        )  # fmt: skip
        st.text_area("Note", key=note, height=120, max_chars=1000)
        st.caption("Kept beside the result, which does not change; goes along in bundles.")
        st.button("Keep", key="remark_now", type="primary", on_click=_remark, args=(record.id,))


@_told
def _remark(run: str) -> None:
    tags, note = (str(st.session_state[f"{name}.{run}"] or "") for name in ("tags", "note"))
    ml.Store().remark(run, tags=tags.replace(",", " ").split(), note=note)
    _say("ok", f"Tags and note of {run} are kept.")


def whole_store_menu() -> None:
    """Draw what concerns all that is stored."""
    with st.popover("Store", icon=":material/database:"):
        st.caption(words(ml.Store().root))
        st.button("Verify checksums", key="verify", on_click=_verify)
        st.button("Remove remains of killed runs", key="prune", on_click=_prune)


@_told
def _take() -> None:
    file = st.session_state.get("bundle")
    if file is None:
        return
    keys = ml.Store().add_bundle(file.getvalue())
    tick([key[:12] for key in keys])
    _say("ok", f"{_runs(len(keys))} {'is' if len(keys) == 1 else 'are'} here now.")


@_told
def _delete(ids: Sequence[str]) -> None:
    store, freed, problems = ml.Store(), 0, []
    for run in ids:
        try:
            freed += store.delete(run)
        except (ml.StoreError, OSError) as error:
            problems.append(str(error).splitlines()[0])
    tick([])
    told = f"{_runs(len(ids) - len(problems))} deleted, {megabytes(freed)} freed."
    _say("error" if problems else "ok", "\n".join([told, *problems]))


@_told
def _verify() -> None:
    damages = ml.Store().verify()
    if damages:
        _say("error", "\n".join(damage.problem for damage in damages[:5]))
    else:
        _say("ok", "Every file has its checksum.")


@_told
def _prune() -> None:
    removed = ml.Store().clean(older_than=timedelta(days=1))
    _say("ok", f"Remains of killed runs removed: {len(removed)}. Results stay.")


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def _say(kind: str, text: str) -> None:
    """Show a message once, on the rerun that follows."""
    st.session_state[_SAID] = (kind, lines(text))
