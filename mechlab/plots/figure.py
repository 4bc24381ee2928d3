"""Grids as plotly figures, and figures as self-contained HTML files."""

import html
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mechlab.plots.effects import grid_views
from mechlab.plots.grid_view import NOT_COMPUTED, UNDEFINED, VALUE, GridView, share_limits
from mechlab.plots.palette import DIVERGING, SEQUENTIAL, Kind, clipped_cells
from mechlab.plots.tokens import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["figure_layout", "layer_by_token", "to_plotly", "write_html"]

_WIDEST_ROW = 72  # columns that fit side by side in a browser window with readable labels
_MOST_TICKS = 40
_MOST_NUMBERS = 240  # so many cells still hold a readable number
_WITH_NUMBERS = 24  # so many columns side by side are wide enough for them
_MOST_ACROSS = 3
_TOKENS = ("pos", "token_role")
_FONT = "system-ui, sans-serif"
# Plotly 4 otherwise shows a button that uploads the figure to a third party.
_CONFIG = {"showSendToCloud": False, "displaylogo": False, "responsive": True}


def layer_by_token(
    data: xr.Dataset | xr.DataArray,
    *,
    site: str | Sequence[str] | None = None,
    prompt: int | str | None = None,
    value: str = "indirect_effect",
    kind: Kind | Literal["auto"] = "auto",
    clip: Literal["none", "p99"] = "none",
    title: str | None = None,
) -> "go.Figure":
    """Draw layer × token heat maps of a causal trace, one per site, on one colour scale.

    Args:
        data: a causal trace, or an array with dims layer × pos or layer × token_role, and
            optionally site.
        site: one site, several, or all of them (default).
        prompt: label or index of the prompt, when the data hold several.
        value: the variable to draw when `data` is a Dataset.
        kind: colour scale; `auto` is `sequential` for probabilities, else `diverging`.
        clip: `p99` ends the colour scale at the 99th percentile of |value|.
        title: heading; default: metric, prompt and how it was made.

    Returns:
        A plotly figure; `.show()` displays it. NaN cells are hatched (not computed), never 0.

    Raises:
        OptionError: when a site or prompt is unknown, or the dims do not make a grid.
    """
    views = grid_views(data, sites=site, prompt=prompt, value=value, kind=kind, clip=clip)
    return to_plotly(views, title=title)


def to_plotly(views: GridView | Sequence[GridView], *, title: str | None = None) -> "go.Figure":
    """Draw one grid or several on one colour scale.

    Args:
        views: the grids, side by side; one above the other when they are too wide for that.
        title: heading; default: from the grids.

    Returns:
        A plotly figure whose appearance depends on no global template.
    """
    from plotly.subplots import make_subplots

    shared = share_limits([views] if isinstance(views, GridView) else list(views))
    cols = _across(shared)
    rows = -(-len(shared) // cols)
    figure = make_subplots(
        rows=rows,
        cols=cols,
        subplot_titles=[escape(view.title, "html") for view in shared],
        column_widths=[view.shape[1] for view in shared] if rows == 1 else None,
        vertical_spacing=(0.3 if shared[0].col_name in _TOKENS else 0.38) / rows,
        horizontal_spacing=0.12 / cols,
    )
    for index, view in enumerate(shared):
        place = {"row": index // cols + 1, "col": index % cols + 1}
        side_by_side = min(cols, len(shared)) * view.shape[1]
        figure.add_traces(_traces(view, side_by_side), rows=place["row"], cols=place["col"])
        figure.update_xaxes(**_column_axis(view, side_by_side), **place)
        figure.update_yaxes(**_row_axis(view, first=place["col"] == 1), **place)
        _outline_selected(figure, view, place)
    figure.update_layout(**_layout(shared, rows, cols, title))
    return figure


def _across(views: list[GridView]) -> int:
    """Return how many grids stand side by side."""
    if views[0].col_name in _TOKENS:
        return len(views) if sum(view.shape[1] for view in views) <= _WIDEST_ROW else 1
    widest = max(view.shape[1] for view in views)
    return max(1, min(len(views), _MOST_ACROSS, _WIDEST_ROW // max(widest, 1)))


def write_html(
    figure: "go.Figure", path: str | Path, *, plotlyjs: Literal["inline", "cdn"] = "inline"
) -> Path:
    """Write a figure as one HTML file.

    Args:
        figure: any plotly figure.
        path: where to write; missing folders are made.
        plotlyjs: `inline` works offline (about 5 MB), `cdn` is small and needs a network.

    Returns:
        The path, absolute. The file appears whole or not at all, and offers no upload.
    """
    target = Path(path).expanduser().absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    page = figure.to_html(
        include_plotlyjs=True if plotlyjs == "inline" else "cdn", full_html=True, config=_CONFIG
    )
    name = html.escape(str(figure.layout.meta or "mechlab figure"))
    page = page.replace("<head>", f"<head><title>{name}</title>", 1)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        draft.write_text(page, encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def _traces(view: GridView, side_by_side: int) -> list[Any]:
    import plotly.graph_objects as go

    rows, cols = view.shape
    heat = go.Heatmap(
        z=view.values,
        x=np.arange(cols),
        y=np.arange(rows),
        customdata=[[_hover(view, row, col) for col in range(cols)] for row in range(rows)],
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=True,
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        **(_numbers(view) if side_by_side <= _WITH_NUMBERS else {}),
    )
    hatches = [
        _hatch(view, NOT_COMPUTED, "/", view.gap),
        _hatch(view, UNDEFINED, ".", "undefined"),
    ]
    return [heat, *(hatch for hatch in hatches if hatch is not None), *_marks(view)]


def _numbers(view: GridView) -> dict[str, Any]:
    """Return what writes numbers into the cells of a small grid of heads or modules."""
    if view.col_name in _TOKENS or view.values.size > _MOST_NUMBERS:
        return {}
    places = np.ndindex(view.shape)
    shown = [
        _short(float(view.values[place])) if view.state[place] == VALUE else "" for place in places
    ]
    text = np.array(shown, dtype=object).reshape(view.shape)
    return {"text": text, "texttemplate": "%{text}", "textfont": {"size": 10}}


def _short(value: float) -> str:
    text = f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}"
    return "0" if float(text) == 0 else text


def _hover(view: GridView, row: int, col: int) -> str:
    lines = [view.describe(row, col), *(f"{k}: {v[row, col]}" for k, v in view.hover.items())]
    return "<br>".join(escape(line, "html") for line in lines)


def _hatch(view: GridView, state: int, pattern: str, name: str) -> Any | None:
    """Return one patterned area over all cells in `state`, or None when there are none."""
    import plotly.graph_objects as go

    x: list[float | None] = []
    y: list[float | None] = []
    for row, start, stop in _runs(view.state == state):
        left, right, low, high = start - 0.5, stop - 0.5, row - 0.5, row + 0.5
        x += [left, right, right, left, left, None]
        y += [low, low, high, high, low, None]
    if not x:
        return None
    return go.Scatter(
        x=x, y=y, mode="none", fill="toself", name=name, showlegend=False, hoverinfo="skip",
        fillpattern={"shape": pattern, "fgcolor": "#9a9a9a", "bgcolor": "#ececec", "size": 6},
    )  # fmt: skip


def _runs(mask: Any) -> list[tuple[int, int, int]]:
    """Return (row, start, stop) of every horizontal stretch of true cells."""
    runs = []
    for row, cells in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], cells.astype(np.int8), [0]])))
        runs += [(row, int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return runs


def _marks(view: GridView) -> list[Any]:
    """Return markers of clipped cells (open squares) and of corrected significance (dots)."""
    import plotly.graph_objects as go

    masks = [("square-open", clipped_cells(view.values, view.limits), "beyond the scale")]
    if view.dots is not None:
        masks.append(("circle", view.dots.astype(bool), "significant after correction"))
    return [
        go.Scatter(
            x=np.nonzero(mask)[1], y=np.nonzero(mask)[0], mode="markers", name=name,
            marker={"symbol": symbol, "color": "#000000", "size": 5},
            showlegend=False, hoverinfo="skip",
        )
        for symbol, mask, name in masks
        if mask.any()
    ]  # fmt: skip


def _column_axis(view: GridView, side_by_side: int) -> dict[str, Any]:
    # Positions are numbers with text beside them: as category names, equal tokens would merge.
    step = max(1, -(-view.shape[1] // _MOST_TICKS))
    ticks = list(range(0, view.shape[1], step))
    longest = max((len(label) for label in view.col_labels), default=0)
    flat = view.col_name not in _TOKENS and 8 * longest * side_by_side < 700 * step
    return {
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [escape(view.col_labels[tick], "html") for tick in ticks],
        "tickangle": 0 if flat else -60,
        "title": None if view.col_name in _TOKENS else _axis_title(view.col_name),
        "range": [-0.5, view.shape[1] - 0.5],
        "showgrid": False,
        "zeroline": False,
        "constrain": "domain",
        "automargin": True,
    }


def _axis_title(name: str) -> dict[str, Any]:
    return {"text": escape(name.replace("_", " "), "html"), "standoff": 6}


def _row_axis(view: GridView, *, first: bool) -> dict[str, Any]:
    count = view.shape[0]
    ticks = list(range(0, count, max(1, -(-count // 24))))
    span = [-0.5, count - 0.5]
    return {
        "title": _axis_title(view.row_name) if first and view.row_labels != ("",) else None,
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [escape(view.row_labels[tick], "html") for tick in ticks],
        "range": span if view.row_order == "up" else span[::-1],
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
    }


def _outline_selected(figure: "go.Figure", view: GridView, place: dict[str, int]) -> None:
    if view.selected is None:
        return
    row, col = view.selected
    figure.add_shape(
        type="rect", x0=col - 0.5, x1=col + 0.5, y0=row - 0.5, y1=row + 0.5,
        line={"color": "#000000", "width": 2}, **place,
    )  # fmt: skip


def _layout(views: list[GridView], rows: int, cols: int, title: str | None) -> dict[str, Any]:
    stops = DIVERGING if views[0].kind == "diverging" else SEQUENTIAL
    scale = [[index / (len(stops) - 1), color] for index, color in enumerate(stops)]
    low, high = views[0].limits
    heading = [views[0].subject or views[0].metric, views[0].facts] if title is None else [title]
    tallest = max(view.shape[0] for view in views)
    cell = 18 if views[0].col_name in _TOKENS else 30
    unit = f" ({views[0].unit})" if views[0].unit else ""
    bar = {
        "title": {
            "text": escape(views[0].metric + unit, "html"),
            "side": "right",
            "font": {"size": 11},
        },
        "tickfont": {"size": 11},
        "thickness": 14,
        "outlinewidth": 0,
    }
    meta = title or views[0].subject or views[0].metric
    height = 210 + rows * max(180, min(cell * tallest, 620))
    return {
        **figure_layout(heading, meta=meta, height=height),
        "coloraxis": {"colorscale": scale, "cmin": low, "cmax": high, "colorbar": bar},
        "width": _width(views, cols),
    }


def _width(views: list[GridView], cols: int) -> int | None:
    """Return a width in which a few heads do not become wide bars; `None` fills the window."""
    columns = cols * max(view.shape[1] for view in views)
    if views[0].col_name in _TOKENS or columns > _WIDEST_ROW // 3:
        return None
    return min(max(860, 48 * columns + 260), 1240)


def figure_layout(heading: Sequence[str], *, meta: str, height: int) -> dict[str, Any]:
    """Return what all figures have in common: heading, font, white ground, margins."""
    return {
        "template": "none",
        "meta": meta,
        "title": {
            "text": _heading(list(heading)),
            "x": 0.01,
            "xanchor": "left",
            "y": 1 - 24 / height,
            "yanchor": "top",
            "font": {"size": 15},
        },
        "font": {"family": _FONT, "size": 12, "color": "#1f1f1f"},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "margin": {"t": 96, "l": 60, "r": 20, "b": 90},
        "height": height,
    }


def _heading(lines: list[str]) -> str:
    first, *rest = (escape(line, "html") for line in lines)
    return "<br>".join(
        [f"<b>{first}</b>", *(f'<span style="font-size:12px">{r}</span>' for r in rest)]
    )
