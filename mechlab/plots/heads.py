"""Head grids: one cell per layer and head, or per layer and module."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.effects import grid_views
from mechlab.plots.figure import to_plotly
from mechlab.plots.grid_view import MASKED, NOT_COMPUTED, VALUE, GridView, share_limits
from mechlab.plots.reading import (
    Average,
    average,
    kind_of,
    labels_along,
    plotted,
    words_of,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["head_grid", "head_views"]

_COLUMNS = ("head", "kv_head", "head_set", "source", "pos")
_FIRST = ("embed", "pos_embed")
_KINDS = (*_FIRST, "attn", "attn_bias", "mlp", "mixer", "final_norm_bias", "unembed_bias")


def head_grid(
    data: xr.Dataset | xr.DataArray,
    *,
    value: str | None = None,
    prompt: int | str | None = None,
    interval: xr.Dataset | None = None,
    title: str | None = None,
) -> "go.Figure":
    """Draw a layer × head heat map: attribution, patching, ablation, or any array of these axes.

    Args:
        data: a result, or an array with the axes layer and head (or kv_head), or layer alone;
            or `component`. An axis `prompt` is averaged.
        value: the variable to draw when `data` is a Dataset.
        prompt: label or index of one prompt, to be shown instead of the mean.
        interval: `low` and `high`, shown on hovering; by default the t interval over prompts.
        title: heading; default: metric, prompts and how it was made.

    Returns:
        A plotly figure, layer 0 at the bottom. NaN cells are hatched (not computed), never 0.

    Raises:
        OptionError: when the axes do not make a grid.
    """
    return to_plotly(head_views(data, value=value, prompt=prompt, interval=interval), title=title)


def head_views(
    data: xr.Dataset | xr.DataArray,
    *,
    value: str | None = None,
    prompt: int | str | None = None,
    interval: xr.Dataset | None = None,
) -> list[GridView]:
    """Return the grids of `head_grid` as plain data: one, or the screen and its exact check.

    Arguments and errors are those of `head_grid`.
    """
    if isinstance(data, xr.Dataset) and value is None and {"estimate", "effect"} <= set(data):
        both = [(name, plotted(data, name)) for name in ("estimate", "effect")]
        return share_limits([_view(a, prompt, None, title=n) for n, a in both])
    array = plotted(data, value)
    if "component" in array.dims:
        return [_components(array, average(array, prompt=prompt, interval=interval))]
    tokens = {"layer", "pos"} == set(map(str, array.dims)) - {"prompt"}
    if tokens and (prompt is not None or array.sizes.get("prompt", 1) == 1):
        views = grid_views(array, prompt=prompt or 0 if "prompt" in array.dims else None)
        return [_named(view, array, prompt) for view in views]
    return [_view(array, prompt, interval)]


def _view(
    array: xr.DataArray, prompt: int | str | None, interval: xr.Dataset | None, *, title: str = ""
) -> GridView:
    shown = average(array, prompt=prompt, interval=interval)
    words = words_of(array, shown)
    dims = [str(dim) for dim in shown.mean.dims]
    if "pos" in dims and len(dims) > 2:
        shown, words["note"] = _strongest_position(shown), f"{words['note']}, strongest position"
        dims.remove("pos")
    row = "layer" if "layer" in dims else None
    columns = [name for name in dims if name != row]
    if len(columns) > 1 or (columns and columns[0] not in _COLUMNS) or not dims:
        raise OptionError(
            f"a head grid cannot be drawn of dims {tuple(dims)}. It takes layer × head (or "
            "kv_head), layer alone, or component; select or average the others first, for "
            "instance array.sum('receiver')."
        )
    column = columns[0] if columns else None
    kind, limits = kind_of(array)

    def grid(of: xr.DataArray) -> np.ndarray[Any, Any]:
        return _expanded(of, row, column).astype(np.float32)

    has = shown.has_interval
    return GridView(
        values=grid(shown.mean),
        row_labels=tuple(labels_along(shown.mean, row)) if row else ("",),
        col_labels=tuple(labels_along(shown.mean, column)) if column else ("whole layer",),
        row_name=row or "all",
        col_name=column or "module",
        kind=kind,
        limits=limits,
        title=title,
        ci_low=grid(shown.low) if has else None,
        ci_high=grid(shown.high) if has else None,
        **words,
    )


def _named(view: GridView, array: xr.DataArray, prompt: int | str | None) -> GridView:
    """Return a layer × token grid with the words of its result."""
    from dataclasses import replace

    return replace(view, **words_of(array, average(array, prompt=prompt or 0)))


def _expanded(of: xr.DataArray, row: str | None, column: str | None) -> np.ndarray[Any, Any]:
    """Return values as (rows, columns), with one row or column where an axis is missing."""
    values: np.ndarray[Any, Any] = of.transpose(*[d for d in (row, column) if d]).values
    return values.reshape(len(values) if row else 1, -1)


def _strongest_position(shown: Average) -> Average:
    """Return each cell at the position where its mean is largest in size."""
    size = abs(shown.mean).fillna(-1.0)
    return shown.isel(pos=size.argmax("pos"))


def _components(array: xr.DataArray, shown: Average) -> GridView:
    """Return modules by layer; what belongs to no layer stands in the first or the last one."""
    labels = [str(kind) for kind in array["component_kind"].values]
    layers = array["component_layer"].values.astype(int)
    n_layers = int(layers.max()) + 1
    kinds = [kind for kind in _KINDS if kind in labels]
    kinds += sorted(set(labels) - set(kinds))
    shape = (n_layers, len(kinds))
    grids = [np.full(shape, np.nan, np.float32) for _ in range(3)]
    state = np.full(shape, MASKED, np.uint8)
    for index, (kind, layer) in enumerate(zip(labels, layers, strict=True)):
        row = int(layer) if layer >= 0 else 0 if kind in _FIRST else n_layers - 1
        place = row, kinds.index(kind)
        for grid, of in zip(grids, (shown.mean, shown.low, shown.high), strict=True):
            grid[place] = of.values[index]
        state[place] = VALUE if np.isfinite(shown.mean.values[index]) else NOT_COMPUTED
    has = shown.has_interval
    return GridView(
        values=grids[0],
        state=state,
        row_labels=tuple(map(str, range(n_layers))),
        col_labels=tuple(kind.replace("_", " ") for kind in kinds),
        col_name="component",
        ci_low=grids[1] if has else None,
        ci_high=grids[2] if has else None,
        **words_of(array, shown),
    )
