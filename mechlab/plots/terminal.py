"""Grids in a terminal: one line per token, one coloured cell per layer.

Tokens (or heads) stand down the side, where they stay readable; layers run to the right. Cells
carry a number or a shade as well as a colour, so the picture survives without colours; cells near 0
keep the terminal's own background, so it suits light and dark ones.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mechlab.plots.grid_view import NOT_COMPUTED, VALUE, GridView, share_limits
from mechlab.plots.palette import ink, rgb

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

__all__ = ["TerminalGrid", "to_terminal"]

_SHADES = " ░▒▓█"
_BELOW = " -=≡#"  # of negative numbers where no colour tells them from positive ones
_FAINT = 0.04  # share of the scale below which a cell keeps the terminal's own background
_NUMBER_WIDTH = 4


class TerminalGrid:
    """Something `rich` can print; made by `to_terminal`, fits itself to the terminal's width."""

    def __init__(self, views: list[GridView], most_rows: int) -> None:
        """Keep grids that share one colour scale."""
        self._views = views
        self._most_rows = most_rows

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """Yield one block of lines per grid, then the legend."""
        from rich.text import Text

        plain = console.no_color or console.color_system is None
        if self._views[0].subject:
            yield Text(self._views[0].subject, style="bold", no_wrap=False)
        for view in self._views:
            if view.title:
                yield Text(view.title, style="bold")
            yield from _grid_lines(view, options.max_width, self._most_rows, plain)
        yield Text(self._views[0].facts, style="dim")
        widths = {_layout(view, options.max_width)[1] for view in self._views}
        yield Text(_legend(self._views, widths, plain), style="dim")


def to_terminal(views: GridView | Sequence[GridView], *, most_rows: int = 40) -> TerminalGrid:
    """Return grids as a picture that `rich.print` shows in a terminal.

    Args:
        views: one grid or several, drawn one below the other on one colour scale.
        most_rows: tokens shown per grid; of longer prompts the weakest are left out, and a line
            says how many.

    Returns:
        A rich renderable. Cells show the value in hundredths where there is room, else a shade (in
        a terminal without colours, with other signs below zero); `·` is a cell that was not
        computed.

    Raises:
        OptionError: when the grids mix diverging and sequential scales.
    """
    shared = share_limits([views] if isinstance(views, GridView) else list(views))
    return TerminalGrid(shared, most_rows)


def _layout(view: GridView, width: int) -> tuple[int, int, int]:
    """Return (width of the labels, width of a cell, step between the layers shown)."""
    from rich.cells import cell_len

    widest = max((cell_len(label) for label in view.col_labels), default=0)
    label_width = max(min(widest, 22, width // 3), len(_corner(view)))
    return label_width, *_fit(view.shape[0], width - label_width - 1, _hundredths(view))


def _grid_lines(view: GridView, width: int, most_rows: int, plain: bool) -> "list[Text]":
    label_width, cell_width, step = _layout(view, width)
    layers = range(0, view.shape[0], step)
    shown = _strongest(view, most_rows)
    lines = [_header(view, layers, label_width, cell_width)]
    previous = -1
    for column in shown:
        if column > previous + 1:
            lines.append(_gap(view, previous + 1, column))
        lines.append(_line(view, column, layers, label_width, cell_width, plain))
        previous = column
    if step > 1:
        lines.append(
            _dim(f"one {view.row_name} in {step} is shown: the terminal is {width} columns wide")
        )
    return lines


def _fit(layers: int, room: int, hundredths: bool) -> tuple[int, int]:
    """Return (width of a cell, step between the layers shown)."""
    widths = (_NUMBER_WIDTH, 2, 1) if hundredths else (_NUMBER_WIDTH + 1, _NUMBER_WIDTH, 2, 1)
    for cell in widths:
        if layers * cell <= room:
            return cell, 1
    return 1, -(-layers // max(room, 1))


def _strongest(view: GridView, most: int) -> list[int]:
    """Return the columns to show in reading order: the strongest, and always the last."""
    count = view.shape[1]
    if count <= most:
        return list(range(count))
    strength = np.max(np.nan_to_num(np.abs(view.values), nan=0.0), axis=0)
    strength[-1] = np.inf
    return sorted(int(column) for column in np.argsort(-strength, kind="stable")[:most])


def _gap(view: GridView, start: int, stop: int) -> "Text":
    hidden = np.nan_to_num(np.abs(view.values[:, start:stop]), nan=0.0).max()
    return _dim(f"⋮ {stop - start} more, all within ±{hidden:.3f}")


def _header(view: GridView, layers: range, label_width: int, cell_width: int) -> "Text":
    every = 1 if cell_width >= _NUMBER_WIDTH else -(-4 // cell_width)
    text = _corner(view).rjust(label_width) + " "
    for index, layer in enumerate(layers):
        if index % every == 0:
            text += (
                view.row_labels[layer].rjust(cell_width)
                if every == 1
                else (view.row_labels[layer].ljust(cell_width * every))
            )
    return _dim(text.rstrip())


def _corner(view: GridView) -> str:
    """Return what stands over the labels: which axis runs down, which to the right."""
    down = "" if view.col_name in ("pos", "token_role", "line") else view.col_name
    right = view.row_name if view.row_labels != ("",) else ""
    return " \\ ".join(filter(None, [down, right])).replace("_", " ")


def _line(
    view: GridView, column: int, layers: range, label_width: int, cell_width: int, plain: bool
) -> "Text":
    from rich.text import Text

    line = Text(_fitted(view.col_labels[column], label_width) + " ")
    for layer in layers:
        line.append(*_cell(view, layer, column, cell_width, plain))
    return line


def _cell(view: GridView, row: int, col: int, width: int, plain: bool) -> tuple[str, str]:
    state, value = int(view.state[row, col]), float(view.values[row, col])
    if state != VALUE:
        return ("·" if state == NOT_COMPUTED else "?" if state == 2 else " ").rjust(width), "dim"
    share = abs(value) / max(abs(limit) for limit in view.limits)
    shades = _BELOW if plain and value < 0 else _SHADES
    text = _number(view, value) if width >= _NUMBER_WIDTH else shades[round(4 * min(share, 1))]
    text = text.rjust(width) if width >= _NUMBER_WIDTH else text * width
    if share < _FAINT:
        return text, ""
    color = rgb(value, view.limits, view.kind)
    if width < _NUMBER_WIDTH:
        return text, "rgb({},{},{})".format(*rgb(_deeper(value, view), view.limits, view.kind))
    return text, f"{ink(color)} on rgb({color[0]},{color[1]},{color[2]})"


def _deeper(value: float, view: GridView) -> float:
    """Return a value whose colour is strong enough to be seen as a thin glyph on any background."""
    top = max(abs(limit) for limit in view.limits)
    return float(np.copysign(min(max(abs(value), 0.55 * top), 0.8 * top), value))


def _number(view: GridView, value: float) -> str:
    if _hundredths(view):
        return f"{round(100 * value):d}"
    text = f"{value:.1f}" if abs(value) < 99.5 else f"{value:.0f}"
    return "0" if float(text) == 0 else text


def _hundredths(view: GridView) -> bool:
    return max(abs(limit) for limit in view.limits) <= 1.0


def _legend(views: list[GridView], widths: set[int], plain: bool) -> str:
    """Say what cells of these widths show, in a terminal with colours or a plain one."""
    low, high = views[0].limits
    empty = any((view.state == NOT_COMPUTED).any() for view in views)
    parts = []
    if max(widths) >= _NUMBER_WIDTH and high <= 1.0:
        parts.append("cells in hundredths")
    if min(widths) < _NUMBER_WIDTH:
        below = f", {_BELOW[1:]} down to {low:.3f}" if plain and low < 0 else ""
        parts.append(f"{_SHADES[1:]} up to {high:.3f}{below}")
    if not plain:
        parts.append(
            f"colours {low:+.3f} (blue) to {high:+.3f} (red)"
            if low < 0
            else f"colours 0 to {high:.3f}"
        )
    return "; ".join([*parts, *(["“·” not computed"] if empty else [])])


def _fitted(label: str, width: int) -> str:
    """Return the label in exactly `width` terminal cells, right-aligned; some glyphs take two."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(label) > width:
        label = set_cell_size(label, width - 1) + "…"
    return " " * (width - cell_len(label)) + label


def _dim(text: str) -> "Text":
    from rich.text import Text

    return Text(text, style="dim")
