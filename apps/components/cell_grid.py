"""The clickable heat map: a canvas that draws one `GridView` and reports which cell was opened.

Streamlit's own charts cannot do this: a click on a plotly heat map reports nothing.
"""

import base64
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

import mechlab as ml

__all__ = ["cell_grid", "opened_cell", "payload"]

_NUMBERED = ("head", "kv_head", "component", "sender")
_MOST_NUMBERS = 240  # so many cells still hold a readable number

_HERE = Path(__file__).parent
_HTML = """
<div class="grid">
  <div class="scroll"><canvas tabindex="0" role="application"></canvas></div>
  <button class="png" type="button" title="Save as PNG">PNG</button>
  <div class="tip" aria-hidden="true"></div>
  <div class="live" aria-live="polite"></div>
</div>
"""

# Registered once, when this module is imported; text from outside goes in through `data` only.
_MOUNT = st.components.v2.component(
    "mechlab.cell_grid",
    html=_HTML,
    css=(_HERE / "cell_grid.css").read_text(encoding="utf-8"),
    js="".join(
        (_HERE / name).read_text(encoding="utf-8") for name in ("cell_grid_sure.js", "cell_grid.js")
    ),
)


def cell_grid(view: Any, *, key: str, on_open: Callable[[], None], faded: Any = None) -> None:
    """Draw a grid; a click or Enter on a cell calls `on_open`.

    Args:
        view: a `GridView`.
        key: the widget's key; `opened_cell(key)` returns the cell inside `on_open`.
        on_open: called before the rerun that a click causes.
        faded: cells (rows, columns) to draw pale, such as those that may well be 0.
    """
    seen = st.session_state.get(_seen(key))  # tells the browser which click has arrived
    data = {**payload(view), "faded": _packed(faded, np.uint8), "key": key, "seen": seen}
    _MOUNT(key=key, data=data, on_cell_change=partial(_once, key, on_open))


def opened_cell(key: str) -> tuple[int, int] | None:
    """Return the (row, column) that was opened just now, or None; the same cell may come again."""
    cell = st.session_state.get(key, {}).get("cell")
    return None if cell is None else (int(cell[0]), int(cell[1]))


def _once(key: str, on_open: Callable[[], None]) -> None:
    """Call `on_open`, but not again for a click that the browser has sent twice."""
    cell = st.session_state.get(key, {}).get("cell")
    if cell is None:
        return
    if (serial := str(cell[2])) != st.session_state.get(_seen(key)):
        st.session_state[_seen(key)] = serial
        on_open()


def _seen(key: str) -> str:
    return f"seen.{key}"


def payload(view: Any) -> dict[str, Any]:
    """Return the grid as JSON; arrays as base64 of float32 or uint8, row by row."""
    stops = ml.plots.DIVERGING if view.kind == "diverging" else ml.plots.SEQUENTIAL
    rows, cols = view.shape
    return {
        "values": _packed(view.values, np.float32),
        "state": _packed(view.state, np.uint8),
        "ci_low": _packed(view.ci_low, np.float32),
        "ci_high": _packed(view.ci_high, np.float32),
        "dots": _packed(view.dots, np.uint8),
        "row_labels": list(view.row_labels),
        "col_labels": list(view.col_labels),
        "row_name": view.row_name,
        "col_name": view.col_name,
        "numbers": _has_numbers(view),
        "row_order": view.row_order,
        "limits": [float(limit) for limit in view.limits],
        "stops": list(stops),
        "signed": view.kind == "diverging",
        "measured": view.metric,
        "gap": view.gap,
        "selected": None if view.selected is None else list(view.selected),
        "label": f"Heat map {view.title}: {rows} {view.row_name}s by {cols} columns. "
        "Arrow keys move, Enter opens a cell, plus and minus zoom.",
    }


def _has_numbers(view: Any) -> bool:
    """Return whether two decimals in every cell say something and can be read."""
    few = view.values.size <= _MOST_NUMBERS
    return view.col_name in _NUMBERED and few and max(map(abs, view.limits)) >= 0.05


def _packed(array: Any, dtype: type[np.generic]) -> str | None:
    if array is None:
        return None
    return base64.b64encode(np.ascontiguousarray(array, dtype=dtype).tobytes()).decode("ascii")
