"""Attention patterns: one grid per head, tokens that read by tokens that are read."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.axes import Head
from mechlab.errors import OptionError
from mechlab.plots.figure import to_plotly
from mechlab.plots.grid_view import MASKED, VALUE, GridView
from mechlab.plots.reading import average, plotted, words_of
from mechlab.plots.tokens import show_token

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["attention", "attention_views"]


def attention(
    data: xr.Dataset | xr.DataArray,
    *,
    prompt: int | str = 0,
    heads: Sequence[Head | str] | None = None,
    title: str | None = None,
) -> "go.Figure":
    """Draw attention patterns: rows read, columns are read, from 0 to 1; the future is blank.

    Args:
        data: a result of `ml.attention_pattern`, or its `pattern`.
        prompt: label or index of the prompt; tokens differ between prompts, so there is no mean.
        heads: heads to draw; all of them by default.
        title: heading; default: what is drawn, and the prompt.

    Returns:
        A plotly figure with one grid per head.

    Raises:
        OptionError: when the data are no patterns, or there is no such prompt or head.
    """
    return to_plotly(attention_views(data, prompt=prompt, heads=heads), title=title)


def attention_views(
    data: xr.Dataset | xr.DataArray,
    *,
    prompt: int | str = 0,
    heads: Sequence[Head | str] | None = None,
) -> list[GridView]:
    """Return the grids of `attention` as plain data; arguments and errors are the same."""
    array = plotted(data, "pattern")
    if set(map(str, array.dims)) - {"prompt"} != {"head_set", "query", "key"}:
        raise OptionError(
            f"attention is drawn of the axes head_set, query and key, not {tuple(array.dims)}. "
            "Give a result of ml.attention_pattern."
        )
    shown = average(array, prompt=prompt if "prompt" in array.dims else None)
    mean = shown.mean.transpose("head_set", "query", "key")
    known = [str(name) for name in mean["head_set"].values]
    wanted = known if heads is None else [str(head) for head in heads]
    if missing := [name for name in wanted if name not in known]:
        raise OptionError(
            f"no head {', '.join(missing)} in this result. It holds: {', '.join(known)}. "
            "Choose among these."
        )
    there = mean.notnull().values
    rows, columns = there.any((0, 2)), there.any((0, 1))
    mean = mean.isel(query=rows, key=columns)
    keys, queries = _labels(mean, "key", "token"), _labels(mean, "query", "query_token")
    fields: dict[str, Any] = words_of(array, shown) | {"metric": "attention weight", "unit": ""}
    view = GridView(
        values=mean.values[0],
        row_labels=queries,
        col_labels=keys,
        row_name="query",
        col_name="key",
        row_order="down",
        kind="sequential",
        limits=(0.0, 1.0),
        **fields,
    )
    state = _causal(mean)
    return [
        replace(view, values=mean.values[known.index(name)], state=state, title=name)
        for name in wanted
    ]


def _labels(mean: xr.DataArray, axis: str, coordinate: str) -> tuple[str, ...]:
    places = [int(place) for place in mean[axis].values]
    if coordinate not in mean.coords or mean[coordinate].dims != (axis,):
        return tuple(map(str, places))
    tokens = [str(token) for token in mean[coordinate].values]
    return tuple(show_token(t, p) for t, p in zip(tokens, places, strict=True))


def _causal(mean: xr.DataArray) -> np.ndarray[Any, Any]:
    """Return which cells are weights: keys up to their query; -1 stands for the last one."""
    queries, keys = mean["query"].values, mean["key"].values
    last = np.where(queries < 0, keys.max(initial=0), queries)
    return np.where(keys[None, :] <= last[:, None], VALUE, MASKED).astype(np.uint8)
