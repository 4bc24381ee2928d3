"""Pictures of results: `DataArray -> GridView (plain data) -> plotly figure | terminal | table`.

Nothing here imports torch, reads the store, or changes a global plotting default; plotly and rich
are imported when something is drawn. Effects use a diverging scale with white at 0, probabilities a
sequential one from 0 to 1; a cell that was not computed is hatched, never 0.
"""

from mechlab.plots.effects import grid_view, grid_views
from mechlab.plots.figure import layer_by_token, to_plotly, write_html
from mechlab.plots.grid_view import GridView, share_limits
from mechlab.plots.palette import DIVERGING, SEQUENTIAL, color_limits
from mechlab.plots.table import to_csv, to_rows
from mechlab.plots.terminal import to_terminal
from mechlab.plots.tokens import escape, show_text, show_token

__all__ = [
    "DIVERGING",
    "SEQUENTIAL",
    "GridView",
    "color_limits",
    "escape",
    "grid_view",
    "grid_views",
    "layer_by_token",
    "share_limits",
    "show_text",
    "show_token",
    "to_csv",
    "to_plotly",
    "to_rows",
    "to_terminal",
    "write_html",
]
