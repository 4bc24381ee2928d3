"""Ablated groups of heads against random ones: one panel per measure, a row per group and kind."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import figure_layout
from mechlab.plots.palette import QUALITATIVE
from mechlab.plots.tokens import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["ablation_bars"]

_NEEDED = ("effect", "effect_low", "effect_high", "p_value", "random_mean")
_TITLES = {
    "icl_score": "ICL score (nats)",
    "copy_loss": "loss on copies (nats)",
    "first_copy_loss": "loss on the first copy (nats)",
    "recall_next": "recall at lag +1 (probability)",
    "recall_next_share": "recall at lag +1 (share of list)",
}
_RANDOM = "#8a8a8a"
_GAP = 0.27


def ablation_bars(
    data: xr.Dataset,
    *,
    outcomes: Sequence[str] | None = None,
    interval: xr.Dataset | None = None,
    title: str | None = None,
) -> "go.Figure":
    """Draw what ablating groups of heads changes, beside every random set of heads.

    Args:
        data: `ml.memory_ablation`.
        outcomes: which measures; by default all that were measured.
        interval: unused; intervals are those of the result.
        title: heading.

    Returns:
        A plotly figure. Bars are mean changes with their intervals over prompts, one colour per
        kind of ablation; grey dots are the random sets, one each.

    Raises:
        OptionError: a result of another kind, or outcomes that it does not hold.
    """
    from plotly.subplots import make_subplots

    names = _outcomes(data, outcomes)
    figure = make_subplots(
        rows=1, cols=len(names), subplot_titles=[_TITLES.get(n, n) for n in names],
        horizontal_spacing=0.09 if len(names) < 4 else 0.06,
    )  # fmt: skip
    kinds = [str(kind) for kind in data.ablation.values]
    for column, name in enumerate(names, start=1):
        for number, kind in enumerate(kinds):
            one = data.sel(outcome=name).isel(ablation=number)
            figure.add_traces(_traces(one, kind, number, len(kinds), column == 1), 1, column)
        figure.update_yaxes(zerolinecolor="#8a8a8a", gridcolor="#ececec", row=1, col=column)
    groups = _groups(data)
    figure.update_xaxes(
        tickmode="array", tickvals=list(range(len(groups))), range=[-0.6, len(groups) - 0.4],
        ticktext=[escape(_told(data, name), "html") for name in groups], showgrid=False,
        zeroline=False,
    )  # fmt: skip
    figure.update_annotations(font_size=12)
    model = data.attrs.get("model_name")
    heading = [title or "heads ablated, change from the intact model", _facts(data, model)]
    layout = figure_layout(heading, meta=heading[0], height=460)
    figure.update_layout(
        **layout, legend={"x": 1.01, "y": 1}, width=220 + max(260, 90 * len(groups)) * len(names)
    )
    return figure


def _outcomes(data: xr.Dataset, outcomes: Sequence[str] | None) -> list[str]:
    if missing := [name for name in _NEEDED if name not in data]:
        raise OptionError(
            f"ablation_bars needs {', '.join(missing)}, which this result lacks. Allowed: a result "
            "of ml.memory_ablation. Give one."
        )
    known = [str(name) for name in data.outcome.values]
    if wrong := [name for name in outcomes or () if name not in known]:
        raise OptionError(
            f"no outcomes {', '.join(wrong)}. Allowed: {', '.join(known)}. Name some of these."
        )
    measured = [name for name in known if bool(data.effect.sel(outcome=name).notnull().any())]
    return list(outcomes or measured)


def _groups(data: xr.Dataset) -> list[str]:
    """Return the sets of heads that were chosen, not drawn."""
    return [str(n) for n in data.head_set.values[1:][~data.is_control.values[1:]]]


def _told(data: xr.Dataset, name: str) -> str:
    count = int(data.k.sel(head_set=name))
    return f"{name.replace('_', ' ')} ({count})"


def _traces(one: xr.Dataset, kind: str, number: int, kinds: int, told: bool) -> list[Any]:
    """Return bars of the groups, and random sets as dots beside them."""
    import plotly.graph_objects as go

    groups, color = _groups(one), QUALITATIVE[number]
    width = 0.8 / kinds
    place = np.arange(len(groups)) + (number - (kinds - 1) / 2) * width
    held = one.sel(head_set=groups)
    effect = held.effect.values
    ends = {
        "array": held.effect_high.values - effect,
        "arrayminus": effect - held.effect_low.values,
    }
    bars = go.Bar(
        x=place, y=effect, width=width * (1 - _GAP), marker={"color": color}, name=_kind(kind),
        legendgroup=kind, showlegend=told,
        error_y={"type": "data", "symmetric": False, "thickness": 1.2, "width": 4, **ends},
        customdata=[escape(_words(held.isel(head_set=i)), "html") for i in range(len(groups))],
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    xs: list[float] = []
    ys: list[float] = []
    for where, name in zip(place, groups, strict=True):
        drawn = one.effect.values[one.control_of.values == name]
        xs += (where + np.linspace(-0.2, 0.2, len(drawn)) * width).tolist()
        ys += drawn.tolist()
    dots = go.Scatter(
        x=xs, y=ys, mode="markers", name="random heads", legendgroup="random",
        showlegend=told and number == kinds - 1 and bool(xs),
        hovertemplate="random: %{y:.3g}<extra></extra>",
        marker={"size": 5, "color": _RANDOM, "line": {"color": "#ffffff", "width": 0.8}},
    )  # fmt: skip
    return [bars, dots]


def _words(one: xr.Dataset) -> str:
    members = str(one.members.item()).replace("+", ", ") or "no heads"
    told = f"{members}: {float(one.effect):+.3g}"
    if np.isfinite(float(one.effect_low)):
        told += f" ({float(one.effect_low):+.3g} to {float(one.effect_high):+.3g})"
    if np.isfinite(float(one.p_value)):
        told += f", random {float(one.random_mean):+.3g}, p = {float(one.p_value):.2g}"
    return told


def _kind(name: str) -> str:
    return {"zero": "set to zero", "mean": "set to mean"}.get(name, name.replace("_", "-"))


def _facts(data: xr.Dataset, model: object) -> str:
    told = [str(model)] if isinstance(model, str) else []
    if bool(np.isfinite(data.effect_low.values).any()):
        told.append("whiskers: 95 % intervals over prompts")
    away = data.layer_distance.values[data.is_control.values]
    if len(away):
        exact = "same layers"
        if away.any():
            exact = f"not layer-matched ({away.mean():.1f} layers away on average)"
        told.append(f"dots: random sets of as many heads, {exact}")
    return ", ".join(told)
