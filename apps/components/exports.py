"""What every picture can be taken away as: a page, a table, a record, a script."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import streamlit as st

import mechlab as ml
from request import Request

__all__ = ["export_menu", "html_page", "record_json"]


def export_menu(trace: Any, views: list[Any], request: Request, run: str) -> None:
    """Draw the export and code menus; files are made when they are asked for."""
    with st.popover("Export", icon=":material/download:"):
        _file("Figure (HTML, works offline)", lambda: html_page(views), run, "html", "text/html")
        _file("Numbers (CSV)", lambda: ml.plots.to_csv(views, run_id=run), run, "csv", "text/csv")
        _file("Record (JSON)", lambda: record_json(trace, run), run, "json", "application/json")
        _file("Script (Python)", lambda: request.code(run), run, "py", "text/x-python")
        _file("Notebook", lambda: request.notebook(run), run, "ipynb", "application/x-ipynb+json")
    with st.popover("Code", icon=":material/code:"):
        st.caption("The same result from Python; the store answers at once if it has it.")
        st.code(request.code(run), language="python")


def html_page(views: list[Any]) -> bytes:
    """Return the grids as one self-contained page."""
    with TemporaryDirectory() as folder:
        path = ml.plots.write_html(ml.plots.to_plotly(views), Path(folder) / "figure.html")
        return path.read_bytes()


def record_json(trace: Any, run: str) -> str:
    """Return where the result comes from, and its coordinates and numbers, as JSON.

    Cells that were not computed are null.
    """
    about = {str(name): _plain(value) for name, value in trace.attrs.items()}
    for name in ("options", "versions", "checks"):
        if isinstance(about.get(name), str):
            about[name] = json.loads(about[name])
    arrays = {
        str(name): {"dims": [str(d) for d in array.dims], "values": _listed(array.values.tolist())}
        for name, array in {**trace.coords, **trace.data_vars}.items()
    }
    return json.dumps(
        {"run": run, "about": about, "arrays": arrays}, ensure_ascii=False, allow_nan=False
    )


def _file(label: str, content: Callable[[], str | bytes], run: str, ending: str, mime: str) -> None:
    def deferred() -> io.BytesIO:
        made = content()
        return io.BytesIO(made.encode("utf-8") if isinstance(made, str) else made)

    st.download_button(
        label, deferred, f"trace-{run or 'result'}.{ending}", mime,
        key=f"export.{ending}", on_click="ignore", type="tertiary",
    )  # fmt: skip


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _listed(value: Any) -> Any:
    if isinstance(value, list):
        return [_listed(part) for part in value]
    if isinstance(value, float) and value != value or value in (float("inf"), float("-inf")):
        return None
    return value
