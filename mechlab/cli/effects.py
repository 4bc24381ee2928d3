"""Any result but a trace in words: heads, paths, knockouts, lenses."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.cli.report_kind import Report, beside

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

    from mechlab.plots import GridView

__all__ = ["effects"]

_SAID = {
    "total": "{metric} of the model",
    "clean_metric": "{metric} of the clean run",
    "corrupted_metric": "{metric} of the corrupted run",
    "unpatched": "{metric} unpatched",
    "unscaled_logit_diff": "logit diff unscaled",
}
"""What is measured without any change, by variable."""
_SINGLE = {
    "rank_agreement": "rank agreement of screen and exact patch",
    "rank_agreement_sample": "of the random sample alone",
    "missed": "heads of the sample above the weakest top head",
}


def effects(top: int = 10) -> Report:
    """Return how results with effects, attributions or shares are shown.

    Args:
        top: how many of the strongest cells or paths are listed.
    """

    def print_text(result: "xr.Dataset", *, run: str, html: Path | None) -> None:
        _print_text(result, top, run, html)

    def print_json(result: "xr.Dataset", *, run: str, html: Path | None) -> None:
        print(json.dumps(_about(result, top, run, html), ensure_ascii=False, allow_nan=False))

    return Report(_draw, print_text, print_json, _more)


def _draw(result: "xr.Dataset") -> "go.Figure":
    from mechlab import plots

    picture = getattr(plots, _plot(result))
    figure: go.Figure = picture(result, interval=_interval(result))
    return figure


def _more(result: "xr.Dataset") -> "dict[str, go.Figure]":
    from mechlab import plots

    if _plot(result) != "sender_grid":
        return {}
    return {"graph": plots.path_graph(result, interval=_interval(result))}


def _plot(result: "xr.Dataset") -> str:
    """Return the name of a result's plot, from its axes, so that a viewer needs no torch."""
    if "sender" in result.dims:
        return "sender_grid"
    grids = {"head", "kv_head", "component"} & set(map(str, result.dims))
    if "head_set" in result.dims and "alpha" not in result.dims:
        return "head_grid"
    if grids or not {"alpha", "source", "answer", "k"} & set(map(str, result.dims)):
        return "head_grid"
    return "lines"


def _interval(result: "xr.Dataset") -> "xr.Dataset | None":
    """Return the bootstrap interval of what is drawn, prompts of a group drawn together."""
    from mechlab.plots import main_variable
    from mechlab.statistics import bootstrap_interval

    array = result[main_variable(result)]
    if array.sizes.get("prompt", 1) < 2:
        return None
    return bootstrap_interval(array, cluster="group" if "group" in array.coords else None)


def _views(result: "xr.Dataset") -> "list[GridView]":
    from mechlab import plots

    views = {
        "head_grid": plots.head_views,
        "sender_grid": plots.sender_views,
        "lines": plots.line_views,
    }[_plot(result)]
    return views(result, interval=_interval(result))


# --- for people -----------------------------------------------------------------------------------


def _print_text(result: "xr.Dataset", top: int, run: str, html: Path | None) -> None:
    from rich.console import Console

    from mechlab import plots

    console = Console()
    views = _views(result)
    console.print(plots.to_terminal(views))
    controls = plots.control_views(result) if _plot(result) == "lines" else []
    if controls:
        console.print("mean of random heads of the same layers", style="bold", highlight=False)
        console.print(plots.to_terminal(controls))
    lines = [*_unchanged(result), *_listed(_strongest(result, views, top)), *_clustered(result)]
    lines.append(f"run     {run}")
    if html is not None:
        lines.append(f"figure  {html}")
        lines += [f"{name:<7} {beside(html, name)}" for name in _more_names(result)]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _more_names(result: "xr.Dataset") -> tuple[str, ...]:
    return ("graph",) if _plot(result) == "sender_grid" else ()


def _unchanged(result: "xr.Dataset") -> list[str]:
    """Return one line with what the model does when nothing is changed, and one per check."""
    metric = str(_options(result).get("metric", "logit_diff")).replace("_", " ")
    found = [
        f"{words.format(metric=metric)} {float(result[name].mean()):+.3f}"
        for name, words in _SAID.items()
        if name in result and result[name].dims == ("prompt",)
    ]
    count = result.sizes.get("prompt", 1)
    lines = [f"{', '.join(found)} (mean of {count} prompts)"] if found else []
    if "unexplained" in result:
        lines.append(f"unexplained by the sum of parts: {_largest(result['unexplained']):.1e}")
    lines += [
        f"{words}: {float(result[name]):.3g}"
        for name, words in _SINGLE.items()
        if name in result and result[name].ndim == 0
    ]
    return lines


def _clustered(result: "xr.Dataset") -> list[str]:
    groups = result.coords.get("group")
    if groups is None:
        return []
    clusters = len(set(groups.values.tolist()))
    if clusters == result.sizes["prompt"]:
        return []
    return [f"intervals: bootstrap over {clusters} groups of prompts"]


def _listed(cells: list[dict[str, Any]]) -> list[str]:
    """Return the strongest cells, one per line."""
    if not cells:
        return []
    width = max(len(cell["at"]) for cell in cells)
    lines = [f"strongest {len(cells)}:"]
    for cell in cells:
        band = "" if cell["low"] is None else f"   {cell['low']:+.3f} to {cell['high']:+.3f}"
        lines.append(f"  {cell['at']:<{width}}  {cell['value']:+.4f}{band}")
    if any(cell["low"] is not None for cell in cells):
        lines[0] = f"strongest {len(cells)}, with 95 % intervals of the mean:"
    return lines


# --- what both say --------------------------------------------------------------------------------


def _strongest(result: "xr.Dataset", views: "list[GridView]", top: int) -> list[dict[str, Any]]:
    """Return the cells farthest from zero, largest first; paths over all receivers."""
    from mechlab import plots

    if top == 0 or "alpha" in result.dims:  # a curve has no strongest point
        return []
    if _plot(result) == "sender_grid":
        edges, _ = plots.path_edges(result, interval=_interval(result), most=top)
        return [
            _cell(f"{e.sender_name} → {e.receiver_name}", e.effect, e.low, e.high) for e in edges
        ]
    if len(views) > 1 and views[-1].title == "effect":
        views = views[-1:]  # the exact patch, not its screen
    found = []
    for view in views:
        title = f"{view.title}: " if len(views) > 1 and view.title else ""
        for place in np.argwhere(np.isfinite(view.values)).tolist():
            row, col = place
            low, high = (
                float("nan") if band is None else float(band[row, col])
                for band in (view.ci_low, view.ci_high)
            )
            name = f"{title}{view.place(row, col)}"
            found.append(_cell(name, float(view.values[row, col]), low, high))
    return sorted(found, key=lambda cell: -abs(cell["value"]))[:top]


def _cell(at: str, value: float, low: float, high: float) -> dict[str, Any]:
    return {"at": at, "value": _number(value), "low": _number(low), "high": _number(high)}


def _about(result: "xr.Dataset", top: int, run: str, html: Path | None) -> dict[str, Any]:
    """Return everything as JSON values; a number that does not exist is null."""
    views = _views(result)
    figures = {} if html is None else {n: str(beside(html, n)) for n in _more_names(result)}
    single = {str(n): _number(float(v)) for n, v in result.data_vars.items() if _is_number(v)}
    return {
        "run": run,
        "method": result.attrs["method"],
        "method_version": int(result.attrs["method_version"]),
        "model": result.attrs.get("model_name"),
        "options": _options(result),
        "figure": None if html is None else str(html),
        **figures,
        "metric": views[0].metric,
        "units": views[0].unit,
        "grids": [_grid(view) for view in views],
        "strongest": _strongest(result, views, top),
        **single,
        "prompts": _prompts(result),
    }


def _is_number(array: "xr.DataArray") -> bool:
    return array.ndim == 0 and array.dtype.kind in "fiu"


def _grid(view: "GridView") -> dict[str, Any]:
    return {
        "title": view.title,
        view.row_name: list(view.row_labels),
        view.col_name: list(view.col_labels),
        "mean": _rows(view.values),
        "low": None if view.ci_low is None else _rows(view.ci_low),
        "high": None if view.ci_high is None else _rows(view.ci_high),
    }


def _prompts(result: "xr.Dataset") -> list[dict[str, Any]]:
    """Return labels, texts and numbers that each prompt has by itself."""
    columns: dict[str, list[Any]] = {"label": [str(v) for v in result["prompt"].values]}
    for name, array in (*result.coords.items(), *result.data_vars.items()):
        if array.dims == ("prompt",) and name != "prompt":
            values = array.values.tolist()
            columns[str(name)] = [_number(v) if isinstance(v, float) else v for v in values]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _options(result: "xr.Dataset") -> Mapping[str, Any]:
    options: Mapping[str, Any] = json.loads(result.attrs.get("options", "{}"))
    return options


def _largest(array: "xr.DataArray") -> float:
    return float(np.abs(array).max())


def _rows(values: Any) -> list[list[float | None]]:
    return [[_number(value) for value in row] for row in values.tolist()]


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
