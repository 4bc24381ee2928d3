"""Pictures of results: `DataArray -> GridView (plain data) -> plotly figure | terminal | table`.

Nothing here imports torch, reads the store, or changes a global plotting default; plotly and rich
are imported when something is drawn, and each kind of picture when it is first asked for. Effects
use a diverging scale with white at 0, probabilities a sequential one from 0 to 1; a cell that was
not computed is hatched, never 0.
"""

from typing import TYPE_CHECKING

from mechlab.lazy import lazily

if TYPE_CHECKING:
    from mechlab.plots.ablations import ablation_bars
    from mechlab.plots.attention import attention, attention_views
    from mechlab.plots.context_fits import HUMAN_BETAS, beta_scatter, lag_fits
    from mechlab.plots.copies import copied_tokens, copied_views
    from mechlab.plots.drift import drift, drift_views
    from mechlab.plots.edit_bars import edit_bars, edit_bars_view
    from mechlab.plots.effects import grid_view, grid_views
    from mechlab.plots.emergence import emergence
    from mechlab.plots.figure import layer_by_token, to_plotly, write_html
    from mechlab.plots.graph import path_edges, path_graph
    from mechlab.plots.grid_view import GridView, share_limits
    from mechlab.plots.haystacks import length_by_depth, length_by_depth_views
    from mechlab.plots.heads import head_grid, head_views
    from mechlab.plots.layer_sweep import layer_sweep, layer_sweep_views
    from mechlab.plots.lines import control_views, line_views, lines
    from mechlab.plots.masking import mask_curve, mask_view
    from mechlab.plots.palette import DIVERGING, QUALITATIVE, SEQUENTIAL, color_limits
    from mechlab.plots.reading import main_variable
    from mechlab.plots.recall import recall_curves
    from mechlab.plots.scatter import scatter
    from mechlab.plots.scores import score_view, sorted_scores
    from mechlab.plots.senders import sender_grid, sender_views
    from mechlab.plots.sequential import sequential_curve, sequential_views
    from mechlab.plots.table import rows_to_csv, to_csv, to_rows
    from mechlab.plots.terminal import to_terminal
    from mechlab.plots.tokens import escape, show_text, show_token
    from mechlab.plots.written import written_tokens, written_view

__all__ = [
    "DIVERGING",
    "HUMAN_BETAS",
    "QUALITATIVE",
    "SEQUENTIAL",
    "GridView",
    "ablation_bars",
    "beta_scatter",
    "attention",
    "attention_views",
    "color_limits",
    "control_views",
    "copied_tokens",
    "copied_views",
    "drift",
    "drift_views",
    "edit_bars",
    "edit_bars_view",
    "emergence",
    "escape",
    "grid_view",
    "grid_views",
    "head_grid",
    "head_views",
    "lag_fits",
    "layer_by_token",
    "layer_sweep",
    "layer_sweep_views",
    "length_by_depth",
    "length_by_depth_views",
    "line_views",
    "lines",
    "main_variable",
    "mask_curve",
    "mask_view",
    "path_edges",
    "path_graph",
    "recall_curves",
    "rows_to_csv",
    "scatter",
    "score_view",
    "sender_grid",
    "sender_views",
    "sequential_curve",
    "sequential_views",
    "share_limits",
    "show_text",
    "show_token",
    "sorted_scores",
    "to_csv",
    "to_plotly",
    "to_rows",
    "to_terminal",
    "write_html",
    "written_tokens",
    "written_view",
]

_NAMES = {
    "mechlab.plots.ablations": ("ablation_bars",),
    "mechlab.plots.attention": ("attention", "attention_views"),
    "mechlab.plots.context_fits": ("HUMAN_BETAS", "beta_scatter", "lag_fits"),
    "mechlab.plots.copies": ("copied_tokens", "copied_views"),
    "mechlab.plots.drift": ("drift", "drift_views"),
    "mechlab.plots.edit_bars": ("edit_bars", "edit_bars_view"),
    "mechlab.plots.effects": ("grid_view", "grid_views"),
    "mechlab.plots.emergence": ("emergence",),
    "mechlab.plots.figure": ("layer_by_token", "to_plotly", "write_html"),
    "mechlab.plots.graph": ("path_edges", "path_graph"),
    "mechlab.plots.grid_view": ("GridView", "share_limits"),
    "mechlab.plots.haystacks": ("length_by_depth", "length_by_depth_views"),
    "mechlab.plots.heads": ("head_grid", "head_views"),
    "mechlab.plots.layer_sweep": ("layer_sweep", "layer_sweep_views"),
    "mechlab.plots.lines": ("control_views", "line_views", "lines"),
    "mechlab.plots.masking": ("mask_curve", "mask_view"),
    "mechlab.plots.palette": ("DIVERGING", "QUALITATIVE", "SEQUENTIAL", "color_limits"),
    "mechlab.plots.reading": ("main_variable",),
    "mechlab.plots.recall": ("recall_curves",),
    "mechlab.plots.scatter": ("scatter",),
    "mechlab.plots.scores": ("score_view", "sorted_scores"),
    "mechlab.plots.senders": ("sender_grid", "sender_views"),
    "mechlab.plots.sequential": ("sequential_curve", "sequential_views"),
    "mechlab.plots.table": ("rows_to_csv", "to_csv", "to_rows"),
    "mechlab.plots.terminal": ("to_terminal",),
    "mechlab.plots.tokens": ("escape", "show_text", "show_token"),
    "mechlab.plots.written": ("written_tokens", "written_view"),
}
"""Public names by the module that each lives in."""

if not TYPE_CHECKING:  # hidden, so that the type checker reports a name that is not listed
    __getattr__ = lazily(__name__, _NAMES)
