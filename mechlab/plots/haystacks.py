"""Length × depth maps: in how long a text, and how deep in it, the model still finds the needle."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import to_plotly
from mechlab.plots.grid_view import GridView, share_limits
from mechlab.plots.reading import average, kind_of, labels_along, plotted, words_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["length_by_depth", "length_by_depth_views", "spread_prompts"]


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
    needed = [name for name in ("length", "depth") if not _along_prompts(array, name)]
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


def spread_prompts(array: xr.DataArray, name: str) -> xr.DataArray:
    """Return an array with a coordinate of its prompts as an axis of its own.

    Each prompt keeps its values at its own entry of the new axis, in rising order, and is NaN at
    the others: means and intervals over prompts then are those of every entry by itself.

    Raises:
        OptionError: when there is no such coordinate along `prompt` alone.
    """
    if not _along_prompts(array, name):
        known = [str(c) for c in array.coords if array[c].dims == ("prompt",) and c != "prompt"]
        raise OptionError(
            f"the prompts have no coordinate {name!r}. They have: {', '.join(known) or 'none'}. "
            "Name one of these."
        )
    own = array[name]
    entries = np.unique(own.values)
    axis = xr.DataArray(entries, dims=(name,), coords={name: entries})
    bare = array.astype(float).drop_vars(name)
    # In the midst of a computation DataArray.where would drop the attributes and the name.
    spread: xr.DataArray = bare.where(own.drop_vars(name) == axis)
    return spread.assign_attrs(array.attrs).rename(array.name)


def _along_prompts(array: xr.DataArray, name: str) -> bool:
    return name in array.coords and array[name].dims == ("prompt",)


def _view(array: xr.DataArray, title: str) -> GridView:
    cells = spread_prompts(spread_prompts(array, "length"), "depth")
    shown = average(cells)
    order = ("depth", "length")

    def grid(of: xr.DataArray) -> np.ndarray[Any, Any]:
        values: np.ndarray[Any, Any] = of.transpose(*order).values.astype(np.float32)
        return values

    kind, limits = kind_of(array)
    values = grid(shown.mean)
    if array.dtype == bool or _is_share(values):
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
