"""Results side by side: their grids on one scale, what differs in how they were made, agreement.

Nothing here touches Streamlit or a model; reading results imports no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import mechlab as ml

__all__ = ["Comparison", "compare", "spec_differences", "views_of"]

_QUIET = ("wall_seconds", "created", "versions", "checks", "device", "model_device")


@dataclass(frozen=True)
class Comparison:
    """One grid of two or more results."""

    own: list[Any]
    """One grid per result, each on its own scale."""
    views: list[Any]
    """The same grids on one scale."""
    differences: list[Any]
    """Every further result minus the first one, on a scale of their own."""
    agreements: list[tuple[float, int]]
    """For each difference: Pearson correlation and number of cells."""
    problem: str = ""
    """Why there is no difference, in a sentence."""


def views_of(result: Any) -> list[Any]:
    """Return the grids of any stored result; none when it is not a picture of cells."""
    drawers = [
        ml.plots.head_views,
        ml.plots.sender_views,
        ml.plots.length_by_depth_views,
        ml.plots.line_views,
    ]
    if result.attrs.get("method") == "causal_trace":
        return _trace_views(result)
    for draw in drawers:
        try:
            return list(draw(result))
        except (ml.MechlabError, KeyError, ValueError, AttributeError):
            continue
    return []


def _trace_views(trace: Any) -> list[Any]:
    if trace.sizes["prompt"] == 1:
        return list(ml.plots.grid_views(trace, prompt=0))
    average = ml.by_token_role(trace["indirect_effect"]).mean("prompt")
    return list(ml.plots.grid_views(average.rename("indirect_effect").assign_attrs(trace.attrs)))


def compare(of_each: Sequence[list[Any]]) -> list[Comparison]:
    """Return one comparison per grid that all results have.

    Args:
        of_each: the grids of every result; the first one is A.
    """
    count = min(map(len, of_each), default=0)
    return [_one([views[place] for views in of_each]) for place in range(count)]


def spec_differences(records: Sequence[Any]) -> list[dict[str, str]]:
    """Return what differs in how results were made: one row per fact, one column per run id."""
    told = [_told(record) for record in records]
    names = list(dict.fromkeys(name for facts in told for name in facts))
    return [
        {"what": name, **{r.id: f.get(name, "–") for r, f in zip(records, told, strict=True)}}
        for name in names
        if len({facts.get(name, "–") for facts in told}) > 1
    ]


def _one(views: list[Any]) -> Comparison:
    if len({view.kind for view in views}) > 1:
        return Comparison(views, views, [], [], "These results are of different kinds.")
    shared = list(ml.plots.share_limits(views))
    first = shared[0]
    if any(view.shape != first.shape for view in shared):
        sizes = ", ".join(f"{view.shape[0]} × {view.shape[1]}" for view in shared)
        return Comparison(
            views, shared, [], [], f"The grids differ in size ({sizes}): no difference."
        )
    minus = [_difference(first, view) for view in shared[1:]]
    problem = ""
    if any(view.col_labels != first.col_labels for view in shared):
        problem = "The columns carry different labels: cells are compared by their place."
    agreements = [_agreement(first.values, view.values) for view in shared[1:]]
    return Comparison(views, shared, list(ml.plots.share_limits(minus)), agreements, problem)


def _difference(first: Any, other: Any) -> Any:
    return replace(
        other,
        values=other.values - first.values,
        state=np.where((first.state == 1) & (other.state == 1), 1, 0).astype(np.uint8),
        kind="diverging",
        limits=(0.0, 0.0),
        ci_low=None,
        ci_high=None,
        dots=None,
        hover={},
        sign="+ = larger in B",
        metric=f"difference of {other.metric}",
    )


def _agreement(a: Any, b: Any) -> tuple[float, int]:
    both = np.isfinite(a) & np.isfinite(b)
    count = int(both.sum())
    if count < 3 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return float("nan"), count
    return float(np.corrcoef(a[both], b[both])[0, 1]), count


def _told(record: Any) -> dict[str, str]:
    about: Mapping[str, Any] = record.provenance
    facts = {"method": record.method, "method version": str(record.method_version)}
    facts |= {
        name.replace("_", " "): str(value)
        for name, value in about.items()
        if name.startswith("model_") and name not in _QUIET
    }
    facts["prompts"] = ", ".join(record.labels[:3]) + (" …" if len(record.labels) > 3 else "")
    facts["prompts digest"] = record.prompts[:12]
    return facts | {f"option {name}": str(value) for name, value in record.options.items()}
