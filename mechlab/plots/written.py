"""Written text, token by token: how sure the model was, and where a contrast changed its choice."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import to_plotly
from mechlab.plots.grid_view import MASKED, VALUE, GridView
from mechlab.plots.reading import average, kind_of, plotted, words_of
from mechlab.plots.tokens import escape, show_token

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["written_tokens", "written_view"]

_LABEL, _WIDE = 28, 9  # characters of a label, and of a token in its cell


def written_tokens(
    data: xr.Dataset,
    *,
    value: str = "alpha",
    prompt: int | str | None = None,
    most: int = 6,
    across: int = 12,
    title: str | None = None,
) -> "go.Figure":
    """Draw what was written as a page of tokens, each coloured by a number of its step.

    Args:
        data: a result of `ml.generate`.
        value: what colours a token: `alpha`, `entropy`, `log_probability`, ….
        prompt: label or index of one prompt; by default the first ones.
        most: number of prompts drawn when none is named.
        across: tokens per line.
        title: heading; default: what is drawn, and of what model.

    Returns:
        A plotly figure, each prompt on lines of its own. A dot marks a token where the base would
        have written another, which hovering names.

    Raises:
        OptionError: when it is no such result, or no prompt wrote anything.
    """
    import plotly.graph_objects as go

    view = written_view(data, value=value, prompt=prompt, most=most, across=across)
    figure = to_plotly(view, title=title)
    texts = [[escape(_cut(str(t), _WIDE), "html") for t in row] for row in view.hover["token"]]
    figure.data[0].update(text=texts, texttemplate="%{text}", textfont={"size": 11})
    changed = np.argwhere(view.hover["base token"] != "")
    if len(changed):
        figure.add_trace(
            go.Scatter(
                x=changed[:, 1] + 0.4, y=changed[:, 0] - 0.32, mode="markers", name="changed",
                marker={"size": 6, "color": "#d55e00"}, showlegend=False, hoverinfo="skip",
            )
        )  # fmt: skip
    figure.update_xaxes(showticklabels=False, ticks="", title=None)
    figure.update_yaxes(title=None)
    figure.update_layout(width=None)
    return figure


def written_view(
    data: xr.Dataset,
    *,
    value: str = "alpha",
    prompt: int | str | None = None,
    most: int = 6,
    across: int = 12,
) -> GridView:
    """Return the page of `written_tokens` as plain data: a row per line, a column per token in it.

    Arguments and errors are those of `written_tokens`.
    """
    if (
        not {"token", "base_token", "changed", "n_tokens"} <= set(data.variables)
        or "step" not in data.dims
    ):
        raise OptionError(
            "written tokens are drawn of token, base_token and changed of (prompt, step). This "
            f"result holds: {', '.join(map(str, data.data_vars))}. Give a result of ml.generate."
        )
    for name, number in (("most", most), ("across", across)):
        if isinstance(number, bool) or int(number) != number or number < 1:
            raise OptionError(f"{name}={number!r}. Allowed: whole numbers from 1. Give one.")
    array = plotted(data, value)
    chosen = list(range(min(most, data.sizes["prompt"])))
    if prompt is not None:
        label = str(average(array, prompt=prompt).mean["prompt"].item())
        chosen = [[str(one) for one in data["prompt"].values].index(label)]
    lines = [line for row in chosen for line in _lines(data, array, row, across)]
    if not lines:
        raise OptionError(
            "no token was written after these prompts. Allowed: at least one. Choose others, or "
            "look at `stopped`."
        )
    names, numbers, tokens, others = (list(part) for part in zip(*lines, strict=True))
    kind, limits = kind_of(array)
    words = words_of(array, average(array.astype(float)))
    count = data.sizes["prompt"]
    told = "" if len(chosen) == count else f"{len(chosen)} of {count} prompts"
    dots = "dots: the base would have written another" if np.any(np.array(others) != "") else ""
    words["note"] = ", ".join(filter(None, [words["note"], told, dots]))
    values = np.array(numbers, np.float32)
    there = np.isfinite(values)
    positive = bool(np.nanmin(np.where(there, values, np.nan)) >= 0)
    return GridView(
        values=values,
        state=np.where(there, VALUE, MASKED).astype(np.uint8),
        row_labels=tuple(names),
        row_name="prompt",
        row_order="down",
        col_labels=tuple(map(str, range(across))),
        col_name="token",
        kind="sequential" if positive else kind,
        limits=limits,
        hover={"token": np.array(tokens), "base token": np.array(others)},
        **(words | {"subject": "written tokens", "n": None, "sign": ""}),
    )


def _lines(
    data: xr.Dataset, array: xr.DataArray, row: int, across: int
) -> list[tuple[str, Any, list[str], list[str]]]:
    """Return the lines of one prompt: label, numbers, tokens, and the base's where another."""
    at = {"prompt": row}
    tokens = [str(token) for token in data["token"].isel(at).values]
    count = int(data["n_tokens"].isel(at))
    own = [str(token) for token in data["base_token"].isel(at).values]
    changed = data["changed"].isel(at).values
    numbers = array.isel(at).values.astype(float)
    label = _cut(str(data["prompt"].values[row]), _LABEL)
    found = []
    for start in range(0, count, across):
        here = range(start, min(start + across, count))
        pad = across - len(here)
        found.append(
            (
                label if start == 0 else "",
                [*(numbers[i] for i in here), *[np.nan] * pad],
                [*(show_token(tokens[i]) for i in here), *[""] * pad],
                [*(show_token(own[i]) if changed[i] == 1 else "" for i in here), *[""] * pad],
            )
        )
    return found


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
