"""The causal traces of an edited fact, before and with the edit, as grids.

Nothing here touches Streamlit; every number comes from the result.
"""

import json
from dataclasses import replace
from typing import Any

import mechlab as ml

__all__ = ["partial_views", "trace_pair", "trace_problem"]


def trace_pair(story: Any, case: int = 0) -> tuple[list[str], list[Any], list[Any]]:
    """Return the sites, and the grids of both traces, before and after, one per site."""
    grids = [_trace(story, case, stage) for stage in ("before", "after")]
    return [str(site) for site in story["site"].values], grids[0], grids[1]


def _trace(story: Any, case: int, stage: str) -> list[Any]:
    effect = story["effect"].isel(case=case).sel(stage=stage)
    tokens = [str(token) for token in story["token"].isel(case=case).values]
    effect = effect.isel(pos=[n for n, token in enumerate(tokens) if token])
    kept = effect.drop_vars([name for name in effect.coords if name in ("stage", "case")])
    scored = ml.plots.show_token(str(story["scored_token"].isel(case=case).sel(stage=stage).item()))
    views = ml.plots.grid_views(kept.rename("indirect_effect").assign_attrs(story.attrs))
    options = _options(story)
    note = f"noise {options.get('noise_scale', 3.0):g}σ, seed {options.get('seed', 0)}"
    return [
        replace(
            view, sign=f"+ = restoring it brings {scored} back", note=note,
            n=int(options.get("samples", 0)) or None, n_unit="noise samples",
        )
        for view in views
    ]  # fmt: skip


def trace_problem(story: Any, case: int = 0) -> str:
    """Say why the trace before says little; empty when it does not."""
    clean = float(story["clean_probability"].isel(case=case).sel(stage="before"))
    if clean >= 0.1:
        return ""
    said = ml.plots.show_token(str(story["scored_token"].isel(case=case).values[0]))
    return f"the unedited model gives {said} only p = {clean:.3f}: its trace says little"


def partial_views(partial: Any) -> list[Any] | None:
    """Return the trace of the unedited model, which is there first."""
    if partial.sizes.get("case") != 1 or "effect" not in partial:
        return None
    return _trace(partial, 0, "before")


def _options(story: Any) -> dict[str, Any]:
    found = json.loads(story.attrs.get("options", "{}"))
    return found if isinstance(found, dict) else {}
