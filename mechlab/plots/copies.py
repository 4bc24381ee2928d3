"""Copied-token strips: which tokens of the needle a head fetched, and at which step of the answer.

At each step a head either attends most to the needle token that the model writes (it copies), to
another token of the needle, or to something else (Wu et al. 2024, section 2).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.axes import Head, heads
from mechlab.errors import OptionError
from mechlab.plots.figure import to_plotly
from mechlab.plots.grid_view import GridView
from mechlab.plots.reading import average, words_of
from mechlab.plots.tokens import show_token

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["copied_tokens", "copied_views"]

_NEAR = 0.35  # colour of a step at which a head looks at the needle and the model writes else
_DARK, _PALE = "dark: attended most and written", "pale: attended most, another token written"


def copied_tokens(
    data: xr.Dataset,
    *,
    prompt: int | str | None = None,
    heads: Sequence[Head | str] | None = None,
    most: int = 8,
    title: str | None = None,
) -> "go.Figure":
    """Draw which needle tokens each head copied, and beside it where it looked at each step.

    Args:
        data: a result with `hits` of (prompt, layer, head, needle_pos), coordinate `needle_token`;
            for the strip of steps also `attended` of (prompt, step, layer, head), the most attended
            position, coordinates `token` of (prompt, step) and `needle_start` of (prompt).
        prompt: label or index of the prompt; by default the first with a copied token.
        heads: heads to draw, in this order; by default those that copied most tokens.
        most: number of heads drawn when none is named.
        title: heading; default: the prompt and what is drawn.

    Returns:
        A plotly figure: a row per head, a column per token; pale cells are steps at which the head
        looked at the needle while the model wrote another token.

    Raises:
        OptionError: when the result has no hits, or no such prompt or head.
    """
    figure = to_plotly(copied_views(data, prompt=prompt, heads=heads, most=most), title=title)
    frame = {"showline": True, "mirror": True, "linecolor": "#b0b0b0"}
    figure.update_xaxes(**frame)
    figure.update_yaxes(**frame)
    for axis in list(figure.select_yaxes())[1:]:
        side_by_side = axis.domain == figure.layout.yaxis.domain
        axis.update(showticklabels=not side_by_side, ticks="" if side_by_side else "outside")
    return figure


def copied_views(
    data: xr.Dataset,
    *,
    prompt: int | str | None = None,
    heads: Sequence[Head | str] | None = None,
    most: int = 8,
) -> list[GridView]:
    """Return the strips of `copied_tokens` as plain data: needle, and steps where they are known.

    Arguments and errors are those of `copied_tokens`.
    """
    hits = _one_prompt(data, prompt)
    rows = _rows(hits, heads, most)
    label = str(hits["prompt"].item()) if "prompt" in hits.coords else ""
    fields = words_of(hits.assign_attrs({**data.attrs}), average(hits)) | {
        "subject": label,
        "metric": "copied",
        "unit": "",
        "n": None,
        "row_labels": tuple(map(str, rows)),
        "row_name": "head",
        "row_order": "down",
        "col_name": "pos",
        "kind": "sequential",
        "limits": (0.0, 1.0),
    }
    steps = "attended" in data and "token" in data.coords
    fields["sign"] = f"{_DARK} · {_PALE}" if steps else _DARK
    views = [_needle(data, hits, rows, fields)]
    if steps:
        views.append(_steps(data, hits, rows, fields))
    return views


def _one_prompt(data: xr.Dataset, prompt: int | str | None) -> xr.DataArray:
    """Return the hits of one prompt, as numbers over (layer, head, needle_pos)."""
    wanted = {"layer", "head", "needle_pos"}
    if "hits" not in data or set(map(str, data["hits"].dims)) - {"prompt"} != wanted:
        raise OptionError(
            "copied tokens are drawn of hits with the axes prompt, layer, head, needle_pos. "
            f"This result holds: {', '.join(map(str, data.data_vars))}. Give one of "
            "ml.retrieval_score."
        )
    hits = data["hits"].astype(float)
    if "prompt" not in hits.dims:
        return hits
    if prompt is None:
        copied = (hits > 0).any(wanted).values
        prompt = int(np.argmax(copied))
    mean = average(hits, prompt=prompt).mean  # says which prompts there are
    return mean


def _rows(hits: xr.DataArray, names: Sequence[Head | str] | None, most: int) -> list[Head]:
    layers, count = hits["layer"].values.tolist(), hits["head"].values.tolist()
    if names is not None:
        found = [name if isinstance(name, Head) else heads(name)[0] for name in names]
        if wrong := [str(h) for h in found if h.layer not in layers or h.head not in count]:
            raise OptionError(
                f"heads that this result does not hold: {', '.join(wrong)}. Allowed: layers "
                f"{layers[0]} to {layers[-1]}, heads {count[0]} to {count[-1]}. Correct them."
            )
        if found:
            return found
    if isinstance(most, bool) or int(most) != most or most < 1:
        raise OptionError(f"most={most!r} heads. Allowed: whole numbers from 1. Give one.")
    total = hits.sum("needle_pos", skipna=True).transpose("layer", "head").values
    order = np.argsort(-total.ravel(), kind="stable")[: min(most, max(1, int((total > 0).sum())))]
    return [Head(layers[i // len(count)], count[i % len(count)]) for i in order.tolist()]


def _needle(
    data: xr.Dataset, hits: xr.DataArray, rows: Sequence[Head], fields: dict[str, Any]
) -> GridView:
    there = hits.notnull().any(["layer", "head"]).values
    texts = _of_prompt(data, hits, "needle_token")
    if texts is not None:
        there &= texts != ""
    columns = np.flatnonzero(there)
    start = _start(data, hits)
    values = [
        hits.sel(layer=head.layer, head=head.head).values[columns].astype(np.float32)
        for head in rows
    ]
    labels = [
        str(hits["needle_pos"].values[c]) if texts is None else str(texts[c]) for c in columns
    ]
    return GridView(
        values=np.array(values, np.float32).reshape(len(rows), len(columns)),
        col_labels=tuple(
            show_token(text, start + int(c) if start is not None else None)
            for text, c in zip(labels, columns, strict=True)
        ),
        title="tokens of the needle",
        **fields,
    )


def _steps(
    data: xr.Dataset, hits: xr.DataArray, rows: Sequence[Head], fields: dict[str, Any]
) -> GridView:
    attended = _like(data["attended"], hits)
    written = _of_prompt(data, hits, "token")
    texts = _of_prompt(data, hits, "needle_token")
    start = _start(data, hits)
    if written is None or texts is None or start is None:
        raise OptionError(
            "the strip of steps needs the coordinates token, needle_token and needle_start beside "
            "attended. Allowed: all of them, or no attended. Give a result of ml.retrieval_score."
        )
    steps = np.flatnonzero(written != "")
    end = start + int((texts != "").sum())
    values = np.zeros((len(rows), len(steps)), np.float32)
    looked = np.zeros(values.shape, dtype=object)
    for row, head in enumerate(rows):
        at = attended.sel(layer=head.layer, head=head.head).values[steps].astype(int)
        inside = (at >= start) & (at < end)
        same = np.array(
            [
                inside[i] and texts[position - start] == written[steps[i]]
                for i, position in enumerate(at.tolist())
            ],
            dtype=bool,
        )
        values[row] = np.where(same, 1.0, np.where(inside, _NEAR, 0.0))
        looked[row] = [
            show_token(str(texts[p - start]), p) if ok else f"position {p}"
            for p, ok in zip(at.tolist(), inside.tolist(), strict=True)
        ]
    return GridView(
        values=values,
        col_labels=tuple(show_token(str(written[s]), int(s)) for s in steps),
        title="what the model wrote, step by step",
        hover={"looked at": looked},
        **fields,
    )


def _like(array: xr.DataArray, hits: xr.DataArray) -> xr.DataArray:
    """Return the same prompt of another array."""
    if "prompt" not in array.dims:
        return array
    return array.sel(prompt=hits["prompt"].item())


def _of_prompt(data: xr.Dataset, hits: xr.DataArray, name: str) -> np.ndarray[Any, Any] | None:
    if name not in data.variables:
        return None
    values: np.ndarray[Any, Any] = _like(data[name], hits).values
    return values


def _start(data: xr.Dataset, hits: xr.DataArray) -> int | None:
    found = _of_prompt(data, hits, "needle_start")
    return None if found is None else int(found)
