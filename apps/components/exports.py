"""What every picture can be taken away as: a page, a table, a record, a script."""

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import streamlit as st

import mechlab as ml
import runs
from request import Scripted

__all__ = ["export_menu", "html_page", "record_json", "run_menu", "table_twin"]


def export_menu(
    result: Any, views: list[Any], request: Scripted, run: str, *, figure: Any = None, key: str = ""
) -> None:
    """Draw the export and code menus; files are made when they are asked for.

    Args:
        result: the Dataset.
        views: its grids, for the table and the figure.
        request: what it answers, for the code.
        run: its run id.
        figure: returns a plotly figure to export instead of the grids.
        key: tells several menus of one page apart.
    """
    draw = figure if figure is not None else lambda: ml.plots.to_plotly(views)
    name = f"{request.PAGE or 'result'}-{run or 'result'}{'-' if key else ''}{key}"
    files: list[tuple[str, Callable[[], str | bytes], str, str]] = [
        ("Figure (HTML, works offline)", lambda: html_page(draw()), "html", "text/html"),
        (
            "Record (JSON)",
            lambda: record_json(result, run, runs.remark(run)),
            "json",
            "application/json",
        ),
        ("Script (Python)", lambda: request.code(run), "py", "text/x-python"),
        ("Notebook", lambda: request.notebook(run), "ipynb", "application/x-ipynb+json"),
    ]
    if views:
        csv = ("Numbers (CSV)", lambda: ml.plots.to_csv(views, run_id=run), "csv", "text/csv")
        files.insert(1, csv)
    with st.popover("Export", icon=":material/download:", key=f"export{key}"):
        st.caption("A grid as PNG: point at it and press the button in its lower right corner.")
        for label, content, ending, mime in files:
            _file(label, content, f"{name}.{ending}", mime, f"export{key}.{ending}")
    with st.popover("Code", icon=":material/code:", key=f"code{key}"):
        st.caption("The same result from Python; the store answers at once if it has it.")
        st.code(request.code(run), language="python")


def run_menu(request: Scripted, run: str) -> None:
    """Draw the menu of the open run as a whole; files are made when they are asked for.

    Args:
        request: what the run answers, for the code.
        run: its run id.
    """
    name = f"{request.PAGE}-{run}"
    with st.popover("Export", icon=":material/download:", key="export_run", type="tertiary"):
        st.caption("This run, whole. Pictures and tables: Export below each of them.")
        bundle = f"mechlab-{run}.zip"
        about = "Bundle for another store (.zip)"
        _file(about, lambda: ml.Store().bundle([run]), bundle, "application/zip", "run.zip")
        record = "Record (JSON)"
        _file(record, lambda: _record(run), f"{name}.json", "application/json", "run.json")
        script, notebook = f"{name}.py", f"{name}.ipynb"
        _file("Script (Python)", lambda: request.code(run), script, "text/x-python", "run.py")
        mime = "application/x-ipynb+json"
        _file("Notebook", lambda: request.notebook(run), notebook, mime, "run.ipynb")


def _record(run: str) -> str:
    return record_json(ml.Store().get(run), run, runs.remark(run))


def table_twin(views: list[Any], *, key: str = "") -> None:
    """Draw the switch that shows the grids as a table: for keyboards, readers, and copying."""
    if st.toggle("Table", key=f"table{key}"):
        st.dataframe(ml.plots.to_rows(views), hide_index=True, key=f"rows{key}", height=300)


def html_page(figure: Any) -> bytes:
    """Return a plotly figure as one self-contained page."""
    with TemporaryDirectory() as folder:
        path = ml.plots.write_html(figure, Path(folder) / "figure.html")
        return path.read_bytes()


def record_json(result: Any, run: str, remark: Any = None) -> str:
    """Return where the result comes from, its coordinates and numbers, and the remark on it.

    JSON; cells that were not computed are null.
    """
    about = {str(name): _plain(value) for name, value in result.attrs.items()}
    for name in ("options", "versions", "checks"):
        if isinstance(about.get(name), str):
            about[name] = json.loads(about[name])
    arrays = {
        str(name): {"dims": [str(d) for d in array.dims], "values": _listed(array.values.tolist())}
        for name, array in {**result.coords, **result.data_vars}.items()
    }
    said = {"remark": asdict(remark)} if remark else {}
    whole = {"run": run, **said, "about": about, "arrays": arrays}
    return json.dumps(whole, ensure_ascii=False, allow_nan=False)


def _file(label: str, content: Callable[[], str | bytes], name: str, mime: str, key: str) -> None:
    """Draw a button that makes a file and hands it over."""

    def deferred() -> io.BytesIO:
        made = content()
        return io.BytesIO(made.encode("utf-8") if isinstance(made, str) else made)

    st.download_button(label, deferred, name, mime, key=key, on_click="ignore", type="tertiary")


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _listed(value: Any) -> Any:
    if isinstance(value, list):
        return [_listed(part) for part in value]
    if isinstance(value, float) and value != value or value in (float("inf"), float("-inf")):
        return None
    return value
