"""Length × depth maps: in how long a text, and how deep in it, the model still finds the needle."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import to_plotly
from mechlab.plots.grid_view import GridView, share_limits
from mechlab.plots.reading import (
    average,
    is_along_prompts,
    kind_of,
    labels_along,
    plotted,
    spread_prompts,
    words_of,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["length_by_depth", "length_by_depth_views"]


def length_by_depth(
    data: xr.Dataset | xr.DataArray,
    *,
    value: str = "success",
    title: str | None = None,
) -> "go.Figure":
    """Draw the mean over needles for every length of the haystack and depth of the needle.

    Args:
        data: a result with the coordinates `length` and `depth` along `prompt`; at most one other
            axis (a set of masked heads), which makes one map each.
        value: the variable to draw when `data` is a Dataset, such as `success` or `recall`.
        title: heading; default: metric, model and how it was made.

    Returns:
        A plotly figure, the beginning of the text at the top. Cells without a prompt are hatched;
        hovering tells how many prompts a cell averages.

    Raises:
        OptionError: when length or depth is missing, or there are too many axes.
    """
    figure = to_plotly(length_by_depth_views(data, value=value), title=title)
    label_rows_once(figure)
    return figure


def label_rows_once(figure: "go.Figure") -> None:
    """Leave row labels to the first grid of each line, as the others have the same rows."""
    for axis in figure.select_yaxes():
        if axis.title.text is None:
            axis.update(showticklabels=False, ticks="")


def length_by_depth_views(
    data: xr.Dataset | xr.DataArray, *, value: str = "success"
) -> list[GridView]:
    """Return the maps of `length_by_depth` as plain data, on one colour scale.

    Arguments and errors are those of `length_by_depth`.
    """
    array = plotted(data, value)
    others = [str(dim) for dim in array.dims if dim != "prompt"]
    needed = [name for name in ("length", "depth") if not _known(array, name)]
    if needed or len(others) > 1:
        raise OptionError(
            f"a map of lengths and depths cannot be drawn of the axes {tuple(map(str, array.dims))}"
            f"{' without ' + ' and '.join(needed) if needed else ''}. Allowed: prompts with the "
            "coordinates length and depth, and at most one other axis. Select or average the rest."
        )
    if not others:
        return [_view(array, "")]
    (panel,) = others
    labels = labels_along(array, panel)
    return share_limits([_view(array.isel({panel: i}), label) for i, label in enumerate(labels)])


def _known(array: xr.DataArray, name: str) -> bool:
    return is_along_prompts(array, name) and bool(array[name].notnull().any())


def _view(array: xr.DataArray, title: str) -> GridView:
    cells = spread_prompts(spread_prompts(array, "length"), "depth")
    shown = average(cells)
    order = ("depth", "length")

    def grid(of: xr.DataArray) -> np.ndarray[Any, Any]:
        values: np.ndarray[Any, Any] = of.transpose(*order).values.astype(np.float32)
        return values

    kind, limits = kind_of(array)
    values = grid(shown.mean)
    if kind == "diverging" and (array.dtype == bool or _is_share(values)):
        kind, limits = "sequential", (0.0, 1.0)
    count = cells.notnull().sum("prompt")
    words = words_of(array, average(array.astype(float)))
    return GridView(
        values=values,
        row_labels=tuple(f"{label} %" for label in labels_along(shown.mean, "depth")),
        col_labels=tuple(labels_along(shown.mean, "length")),
        row_name="depth",
        row_order="down",
        col_name="length",
        kind=kind,
        limits=limits,
        title=title.replace("_", " "),
        hover={"prompts": grid(count).astype(int)},
        **words,
    )


def _is_share(values: np.ndarray[Any, Any]) -> bool:
    known = values[np.isfinite(values)]
    return bool(known.size and known.min() >= 0 and known.max() <= 1)
