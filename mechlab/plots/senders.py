"""Sender grids: what each sender of a path patch does through a receiver."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import to_plotly
from mechlab.plots.grid_view import MASKED, NOT_COMPUTED, VALUE, GridView, share_limits
from mechlab.plots.reading import Average, average, plotted, words_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["sender_grid", "sender_views"]

_WHOLE = {"attn": "attention", "mlp": "MLP", "embed": "embed"}


def sender_grid(
    data: xr.Dataset | xr.DataArray,
    *,
    value: str | None = None,
    receiver: str | None = None,
    prompt: int | str | None = None,
    interval: xr.Dataset | None = None,
    most: int = 6,
    title: str | None = None,
) -> "go.Figure":
    """Draw the senders of a path patch by layer, heads and modules side by side.

    Args:
        data: a path patch, or an array with the axis sender (and receiver) and its coordinates.
        value: the variable to draw when `data` is a Dataset.
        receiver: label of the one receiver to show; by default one grid each.
        prompt: label or index of one prompt, to be shown instead of the mean.
        interval: `low` and `high`, shown on hovering; by default the t interval over prompts.
        most: receivers drawn when none is named, those with the strongest senders.
        title: heading; default: metric, prompts and how it was made.

    Returns:
        A plotly figure. Paths that do not exist are hatched, as what was not computed.

    Raises:
        OptionError: when there are no senders, or no such receiver.
    """
    views = sender_views(
        data, value=value, receiver=receiver, prompt=prompt, interval=interval, most=most
    )
    return to_plotly(views, title=title)


def sender_views(
    data: xr.Dataset | xr.DataArray,
    *,
    value: str | None = None,
    receiver: str | None = None,
    prompt: int | str | None = None,
    interval: xr.Dataset | None = None,
    most: int = 6,
) -> list[GridView]:
    """Return the grids of `sender_grid` as plain data, one per receiver on one colour scale.

    Arguments and errors are those of `sender_grid`.
    """
    array = plotted(data, value)
    shown = average(array, prompt=prompt, interval=interval)
    dims = {str(dim) for dim in shown.mean.dims}
    if "sender" not in dims or not dims <= {"sender", "receiver"}:
        raise OptionError(
            f"a sender grid cannot be drawn of dims {tuple(dims)}. It takes sender, or sender × "
            "receiver; select or average the others first."
        )
    if "receiver" not in dims:
        return [_view(array, shown, "")]
    chosen, left = _receivers(shown.mean, receiver, most)
    labels = [str(label) for label in shown.mean["receiver"].values]
    views = [_view(array, shown.isel(receiver=i), f"to {labels[i]}") for i in chosen]
    if left:
        told = f"{len(chosen)} of {len(chosen) + left} receivers"
        views = [replace(view, note=f"{view.note}, {told}") for view in views]
    return share_limits(views)


def _receivers(mean: xr.DataArray, receiver: str | None, most: int) -> tuple[list[int], int]:
    """Return the receivers to draw, in order, and how many are left out."""
    labels = [str(label) for label in mean["receiver"].values]
    if receiver is not None:
        if receiver not in labels:
            known = ", ".join(labels[:20]) + (", …" if len(labels) > 20 else "")
            raise OptionError(f"no receiver {receiver!r} in this result. It holds: {known}.")
        return [labels.index(receiver)], 0
    strength = abs(mean).max("sender").fillna(-1.0).values
    order = np.argsort(-strength, kind="stable")[: max(most, 1)]
    return sorted(int(i) for i in order), len(labels) - len(order)


def _view(array: xr.DataArray, shown: Average, title: str) -> GridView:
    cells = _cells(shown.mean)
    fields: dict[str, Any] = words_of(array, shown) | {"title": title}
    if len(set(cells)) < len(cells) or any(column == "set" for _, column in cells):
        return _listed(shown, fields)  # sets, or one sender at several positions
    there = {column for _, column in cells}
    columns = [*sorted(c for c in there if isinstance(c, int)), *(c for c in _WHOLE if c in there)]
    rows = range(max(row for row, _ in cells) + 1)
    shape = (len(rows), len(columns))
    grids = [np.full(shape, np.nan, np.float32) for _ in range(3)]
    state = np.full(shape, NOT_COMPUTED, np.uint8)
    state[:, [column == "embed" for column in columns]] = MASKED
    for index, (row, column) in enumerate(cells):
        place = row, columns.index(column)
        for grid, of in zip(grids, (shown.mean, shown.low, shown.high), strict=True):
            grid[place] = of.values[index]
        state[place] = VALUE if np.isfinite(shown.mean.values[index]) else NOT_COMPUTED
    has = shown.has_interval
    if (state == NOT_COMPUTED).any():
        fields["gap"] = "no such path"
        fields["note"] = ", ".join(filter(None, [fields["note"], f"hatched: {fields['gap']}"]))
    return GridView(
        values=grids[0],
        state=state,
        row_labels=tuple(map(str, rows)),
        col_labels=tuple(_WHOLE.get(str(column), str(column)) for column in columns),
        col_name="head",
        ci_low=grids[1] if has else None,
        ci_high=grids[2] if has else None,
        **fields,
    )


def _cells(mean: xr.DataArray) -> list[tuple[int, int | str]]:
    """Return (row, column) of every sender; the embedding stands in layer 0."""
    kinds = [
        str(kind) if str(kind) in ("head", *_WHOLE) else "set"
        for kind in mean["sender_kind"].values
    ]
    layers, heads = (mean[f"sender_{name}"].values.astype(int) for name in ("layer", "head"))
    return [
        (max(int(layer), 0), int(head) if kind == "head" and head >= 0 else kind)
        for kind, layer, head in zip(kinds, layers, heads, strict=True)
    ]


def _listed(shown: Average, fields: dict[str, Any]) -> GridView:
    """Return senders as a list, for those that layer and head do not tell apart."""
    has = shown.has_interval

    def row(of: xr.DataArray) -> np.ndarray[Any, Any]:
        values: np.ndarray[Any, Any] = of.values.astype(np.float32)
        return values[None, :]

    return GridView(
        values=row(shown.mean),
        row_labels=("",),
        row_name="all",
        col_labels=tuple(map(str, shown.mean["sender"].values)),
        col_name="sender",
        ci_low=row(shown.low) if has else None,
        ci_high=row(shown.high) if has else None,
        **fields,
    )
