"""A causal trace in words: for people in the terminal, as one JSON object for programs."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

    from mechlab.plots import GridView

__all__ = ["draw", "print_json", "print_text", "views"]


def views(trace: "xr.Dataset") -> "list[GridView]":
    """Return one grid per site: layer × token for one fact, layer × token role for several.

    Empty when the model knew none of the facts.
    """
    from mechlab import plots
    from mechlab.results import by_token_role

    known = _known(trace)
    if not known:
        return []
    if len(known) == 1:
        return plots.grid_views(trace, prompt=known[0])
    average = by_token_role(trace["indirect_effect"]).mean("prompt")
    return plots.grid_views(average.rename("average_indirect_effect"))


def draw(trace: "xr.Dataset") -> "go.Figure | None":
    """Return the figure of the same grids, or `None` when there are none."""
    from mechlab import plots

    grids = views(trace)
    return plots.to_plotly(grids) if grids else None


def print_text(trace: "xr.Dataset", *, run: str, html: Path | None) -> None:
    """Print the grids, the facts that were left out, the run id and where the figure is."""
    from rich.console import Console

    from mechlab import plots

    console = Console()
    if grids := views(trace):
        console.print(plots.to_terminal(grids))
    for line in (*_facts(trace), *_skipped(trace)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"run     {run}", markup=False, highlight=False)
    if html is not None:
        console.print(f"figure  {html}", markup=False, highlight=False, soft_wrap=True)


def print_json(trace: "xr.Dataset", *, run: str, html: Path | None) -> None:
    """Print one JSON object; a number that does not exist is null."""
    prompts = [_prompt(trace.isel(prompt=index)) for index in range(trace.sizes["prompt"])]
    about = {
        "run": run,
        "method": trace.attrs["method"],
        "method_version": int(trace.attrs["method_version"]),
        "model": trace.attrs.get("model_name"),
        "options": json.loads(trace.attrs["options"]),
        "figure": None if html is None else str(html),
        "sites": [str(site) for site in trace["site"].values],
        "prompts": prompts,
    }
    print(json.dumps(about, ensure_ascii=False, allow_nan=False))


def _known(trace: "xr.Dataset") -> list[int]:
    return [i for i, status in enumerate(trace["status"].values) if str(status) == "ok"]


def _facts(trace: "xr.Dataset") -> list[str]:
    """Return one line with the probabilities that the effects are differences of."""
    known = trace.isel(prompt=_known(trace))
    if not known.sizes["prompt"]:
        return []
    clean = float(known["clean_probability"].mean())
    corrupted = float(known["corrupted_probability"].mean())
    what = (
        f"{str(known['scored_token'].values[0])!r}"
        if known.sizes["prompt"] == 1
        else f"the scored tokens of {known.sizes['prompt']} facts, on average"
    )
    return [f"probability of {what}: {clean:.3f} clean, {corrupted:.3f} with the subject noised"]


def _skipped(trace: "xr.Dataset") -> list[str]:
    """Return why facts were left out, the first few by name."""
    left_out = [
        f"  {label}: {status}"
        for label, status in zip(trace["prompt"].values, trace["status"].values, strict=True)
        if str(status) != "ok"
    ]
    if not left_out:
        return []
    more = [f"  … and {len(left_out) - 5} more"] if len(left_out) > 5 else []
    total = trace.sizes["prompt"]
    return [f"left out {len(left_out)} of {total} facts:", *left_out[:5], *more]


def _prompt(one: "xr.Dataset") -> dict[str, Any]:
    """Return one fact's numbers; grids are layer by position."""
    width = sum(str(token) != "" for token in one["token"].values)
    effect = one["indirect_effect"].isel(pos=slice(width)).transpose("site", "layer", "pos")
    grids = {str(site): effect.sel(site=site) for site in one["site"].values}
    return {
        "label": str(one["prompt"].item()),
        "prompt": str(one["prompt_text"].item()),
        "subject": str(one["subject"].item()),
        "target": str(one["target"].item()),
        "status": str(one["status"].item()),
        "scored_token": str(one["scored_token"].item()),
        "clean_probability": _number(one["clean_probability"].item()),
        "corrupted_probability": _number(one["corrupted_probability"].mean().item()),
        "total_effect": _number(one["total_effect"].item()),
        "tokens": [str(token) for token in one["token"].values[:width]],
        "strongest": {name: _strongest(grid) for name, grid in grids.items()},
        "indirect_effect": {name: _rows(grid) for name, grid in grids.items()},
    }


def _strongest(grid: "xr.DataArray") -> dict[str, Any] | None:
    """Return the cell with the largest effect."""
    if bool(grid.isnull().all()):
        return None
    best = grid.isel(grid.argmax(["layer", "pos"]))
    return {
        "layer": int(best["layer"]),
        "pos": int(best["pos"]),
        "token": str(best["token"].item()),
        "token_role": str(best["token_role"].item()),
        "indirect_effect": _number(best.item()),
    }


def _rows(grid: "xr.DataArray") -> list[list[float | None]]:
    return [[_number(value) for value in row] for row in grid.values.tolist()]


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
