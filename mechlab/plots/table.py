"""Grids as tables: the numbers behind a picture, for reading aloud, sorting and spreadsheets."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from mechlab.plots.grid_view import VALUE, GridView

__all__ = ["rows_to_csv", "to_csv", "to_rows"]

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def to_rows(views: GridView | Sequence[GridView]) -> list[dict[str, Any]]:
    """Return one row per cell that has a value.

    Args:
        views: one grid or several.

    Returns:
        Dicts with `grid` (its title), the row and column dimension, `label` (the column's label),
        `value`, and `ci_low` and `ci_high` where the grid has intervals. Cells that were not
        computed have no row.
    """
    grids = [views] if isinstance(views, GridView) else list(views)
    return [_row(view, r, c) for view in grids for r, c in _cells(view)]


def to_csv(views: GridView | Sequence[GridView], *, run_id: str = "") -> str:
    """Return the rows as CSV text with a `run` column.

    Text that a spreadsheet would execute as a formula starts with a quote mark.

    Args:
        views: one grid or several.
        run_id: which run the numbers come from.
    """
    rows = [{"run": run_id, **row} for row in to_rows(views)]
    return rows_to_csv(rows, ("run", "grid", "value"))


def rows_to_csv(rows: Sequence[Mapping[str, Any]], empty: Sequence[str] = ()) -> str:
    """Return rows as CSV text; what a spreadsheet would run as a formula starts with a quote mark.

    Args:
        rows: one mapping per row, from names of columns to contents.
        empty: names of columns where there are no rows.
    """
    names = list(dict.fromkeys(name for row in rows for name in row)) or list(empty)
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: _harmless(v) for k, v in row.items()} for row in rows)
    return text.getvalue()


def _cells(view: GridView) -> list[tuple[int, int]]:
    rows, cols = view.shape
    return [(r, c) for r in range(rows) for c in range(cols) if view.state[r, c] == VALUE]


def _row(view: GridView, row: int, col: int) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "grid": view.title,
        view.row_name: view.row_labels[row],
        view.col_name: col,
        "label": view.col_labels[col],
        "value": float(view.values[row, col]),
    }
    if view.ci_low is not None and view.ci_high is not None:
        cell |= {"ci_low": float(view.ci_low[row, col]), "ci_high": float(view.ci_high[row, col])}
    return cell


def _harmless(content: Any) -> Any:
    # A spreadsheet runs text that starts like a formula; tokens are text from outside.
    if isinstance(content, str) and content.startswith(_FORMULA_STARTS):
        return f"'{content}"
    return content
