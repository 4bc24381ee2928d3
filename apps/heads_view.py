"""What the heads page shows of a result, as plain values. Nothing here touches Streamlit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import mechlab as ml

__all__ = [
    "HeadValue", "crosses_zero", "grid", "head_value", "in_layer", "partial_views", "prompt_labels",
    "ranked", "title_of", "wrong_baseline",
]  # fmt: skip

MLP = "MLP"
_TITLES = {
    "direct_logit_attribution": "Direct logit attribution",
    "ablate": "Ablation",
    "activation_patch": "Activation patching",
    "attribution_patch": "Attribution patching (estimate)",
}


@dataclass(frozen=True)
class HeadValue:
    """One cell of the grid, with its interval where there is one."""

    layer: int
    column: str
    """Head number, `MLP`, or `whole layer`."""
    value: float
    low: float | None
    high: float | None

    @property
    def name(self) -> str:
        """The cell as people write it: `L5H4`, `L5 MLP`."""
        if self.column.isdecimal():
            return f"L{self.layer}H{self.column}"
        return f"L{self.layer} {self.column}"


def title_of(result: Any) -> str:
    """Return what was measured, in words."""
    method = str(result.attrs.get("method", ""))
    return _TITLES.get(method, method.replace("_", " "))


def prompt_labels(result: Any) -> list[str]:
    """Return the labels of the prompts."""
    return [str(label) for label in np.atleast_1d(result["prompt"].values)]


def grid(result: Any, beside: Any = None, *, prompt: int | None = None) -> Any:
    """Return heads by layer, whole MLPs in one more column where they are known.

    Args:
        result: attribution, ablation or patching.
        beside: the same of whole MLPs, for the methods that change one thing at a time.
        prompt: index of one prompt, to be shown instead of the mean.
    """
    value = "head_attribution" if "head_attribution" in result else "effect"
    view = ml.plots.head_views(result, value=value, prompt=prompt)[0]
    mlps = _mlps(result, beside, prompt)
    view = replace(view, title=title_of(result))
    return view if mlps is None or view.row_name != "layer" else _with_column(view, mlps)


def _mlps(result: Any, beside: Any, prompt: int | None) -> Any | None:
    """Return the MLPs as a grid of one column, or None."""
    if "component_attribution" in result:
        whole = result["component_attribution"]
        kinds = result["component_kind"].values == "mlp"
        if not kinds.any():
            return None
        array = whole.isel(component=kinds).rename(component="layer")
        layers = array["component_layer"].values
        array = array.drop_vars(["component_kind", "component_layer"]).assign_coords(layer=layers)
        return ml.plots.head_views(array.assign_attrs(result.attrs), prompt=prompt)[0]
    if beside is None or beside["effect"].dims[-1] != "layer":
        return None
    return ml.plots.head_views(beside, value="effect", prompt=prompt)[0]


def _with_column(view: Any, mlps: Any) -> Any:
    def beside(mine: Any, theirs: Any) -> Any:
        return None if mine is None or theirs is None else np.concatenate([mine, theirs], axis=1)

    if mlps.row_labels != view.row_labels:
        return view
    return replace(
        view,
        values=beside(view.values, mlps.values),
        state=beside(view.state, mlps.state),
        ci_low=beside(view.ci_low, mlps.ci_low),
        ci_high=beside(view.ci_high, mlps.ci_high),
        col_labels=(*view.col_labels, MLP),
        limits=(0.0, 0.0),
    )


def crosses_zero(view: Any) -> Any:
    """Return which cells' intervals hold 0: what they show may be nothing; None without any."""
    if view.ci_low is None or view.ci_high is None:
        return None
    return (np.asarray(view.ci_low) <= 0) & (np.asarray(view.ci_high) >= 0)


def in_layer(view: Any, layer: int) -> Any:
    """Return one row of a grid, on the scale of the whole."""
    rows = slice(layer, layer + 1)

    def cut(array: Any) -> Any:
        return None if array is None else array[rows]

    return replace(
        view,
        values=view.values[rows],
        state=view.state[rows],
        ci_low=cut(view.ci_low),
        ci_high=cut(view.ci_high),
        row_labels=view.row_labels[rows],
    )


def head_value(view: Any, layer: int, column: int) -> HeadValue | None:
    """Return one cell; None when it has no value."""
    if not (layer < view.shape[0] and column < view.shape[1]) or view.state[layer, column] != 1:
        return None
    band = view.ci_low is not None and np.isfinite(view.ci_low[layer, column])
    return HeadValue(
        int(view.row_labels[layer]),
        view.col_labels[column],
        float(view.values[layer, column]),
        float(view.ci_low[layer, column]) if band else None,
        float(view.ci_high[layer, column]) if band else None,
    )


def ranked(view: Any, most: int = 12, *, layer: int | None = None) -> list[HeadValue]:
    """Return the strongest cells, strongest first, whatever their sign."""
    cells = [
        found
        for row in (range(view.shape[0]) if layer is None else (layer,))
        for column in range(view.shape[1])
        if (found := head_value(view, row, column)) is not None
    ]
    return sorted(cells, key=lambda cell: -abs(cell.value))[:most]


def partial_views(partial: Any) -> list[Any] | None:
    """Return the grid of an unfinished result; None while there is nothing to draw."""
    if "effect" not in partial or not np.isfinite(partial["effect"].values).any():
        return None
    try:
        return [grid(partial)]
    except ml.MechlabError:
        return None


def wrong_baseline(result: Any) -> str:
    """Return why heads of these prompts mean little: the model prefers another answer; else ''.

    Effects of heads on an answer that the model does not give say little about how it gives one.
    """
    name = next((n for n in ("total", "unpatched", "clean_metric") if n in result), None)
    if name is None or "effect" in result and result["effect"].attrs.get("units") == "nats":
        return ""
    options = _metric(result)
    if options != "logit_diff":
        return ""
    values = np.atleast_1d(result[name].values)
    if name == "unpatched" and not np.isfinite(values).any():
        return ""
    wrong = int((values <= 0).sum())
    if 2 * wrong <= len(values):
        return ""
    mean = f"{float(values.mean()):+.2f}".replace("-", "−")
    return (
        f"the model prefers the wrong answer on {wrong} of {len(values)} clean prompts (mean logit "
        f"difference {mean})"
    )


def _metric(result: Any) -> str:
    import json

    options: Mapping[str, Any] = json.loads(result.attrs.get("options", "{}"))
    return str(options.get("metric", ""))
