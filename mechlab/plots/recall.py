"""Recall curves: lag-CRP, serial position curve and first recall, of models against people."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import figure_layout
from mechlab.plots.lines import interval_band
from mechlab.plots.palette import QUALITATIVE
from mechlab.plots.tokens import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["recall_curves"]

_HUMAN = "#000000"
_COLORS = tuple(color for color in QUALITATIVE if color != _HUMAN)
_AXES = {"lag": "lag", "input_position": "serial position"}


@dataclass(frozen=True)
class _Line:
    name: str
    color: str
    curve: xr.Dataset
    along: str
    measure: str


def recall_curves(
    curves: Mapping[str, Sequence[xr.Dataset]],
    *,
    human: Sequence[xr.Dataset] = (),
    max_lag: int = 6,
    title: str | None = None,
) -> "go.Figure":
    """Draw recall curves of models and people, one panel per measure, with bands.

    Args:
        curves: by name of the model, curves averaged with `average_subjects`: of `lag_crp`, `spc`
            or `pfr`, in any number.
        human: the same of people, drawn in black.
        max_lag: lags shown in a lag-CRP.
        title: heading.

    Returns:
        A plotly figure. A lag-CRP has a gap at lag 0, which cannot occur.

    Raises:
        OptionError: when there is nothing to draw, or naming all curves that are no averaged recall
            curves along one axis.
    """
    from plotly.subplots import make_subplots

    lines = _lines({**curves, "people": human})
    measures = list(dict.fromkeys(line.measure for line in lines))
    figure = make_subplots(rows=1, cols=len(measures), subplot_titles=measures)
    told: set[str] = set()
    for line in sorted(lines, key=lambda line: line.color == _HUMAN):
        column = measures.index(line.measure) + 1
        figure.add_traces(list(_traces(line, max_lag, first=line.name not in told)), 1, column)
        told.add(line.name)
        figure.update_xaxes(title_text=_AXES[line.along], **_axis(), row=1, col=column)
        figure.update_yaxes(rangemode="tozero", gridcolor="#ececec", row=1, col=column)
    figure.update_yaxes(title_text="probability", row=1, col=1)
    banded = any("prob_low" in line.curve and _has_band(line.curve) for line in lines)
    heading = [title or "free recall", "bands: intervals over subjects" if banded else ""]
    figure.update_layout(
        **figure_layout(heading, meta=title or "free recall", height=460),
        legend={"x": 1.01, "y": 1},
        showlegend=len(told) > 1,
    )
    return figure


def _lines(sources: Mapping[str, Sequence[xr.Dataset]]) -> list[_Line]:
    """Return what is drawn, after checking all of it."""
    found, wrong = [], []
    names = [name for name in sources if name != "people"]
    for name, held in sources.items():
        color = _HUMAN if name == "people" else _COLORS[names.index(name) % len(_COLORS)]
        for number, curve in enumerate(held):
            dims = tuple(map(str, curve["prob"].dims)) if "prob" in curve else ()
            if len(dims) != 1 or dims[0] not in _AXES:
                wrong.append(f"{name}, curve {number}: axes {dims or 'none, without prob'}")
                continue
            measure = str(curve.attrs.get("measure", "recall"))
            found.append(_Line(name, color, curve, dims[0], measure))
    if wrong or not found:
        raise OptionError(
            f"no recall curves: {'; '.join(wrong) or 'nothing to draw'}. Allowed: prob along lag "
            "or input_position, as average_subjects(lag_crp(recalls)) gives it. Average over "
            "subjects first."
        )
    return found


def _traces(line: _Line, max_lag: int, *, first: bool) -> Iterator[Any]:
    import plotly.graph_objects as go

    curve = line.curve
    if line.along == "lag":
        curve = curve.sel(lag=curve.lag[np.abs(curve.lag) <= max_lag])
    x = curve[line.along].values.tolist()
    if _has_band(curve):
        low, high = (curve[f"prob_{end}"].values.clip(0, 1) for end in ("low", "high"))
        yield interval_band(x, low, high, line.color, line.name)
    name = escape(line.name, "html")
    yield go.Scatter(
        x=x, y=curve.prob.values, mode="lines+markers", name=name, legendgroup=line.name,
        showlegend=first, line={"color": line.color, "width": 2}, marker={"size": 6},
        hovertemplate=f"{name}, {_AXES[line.along]} %{{x}}: %{{y:.3f}}<extra></extra>",
    )  # fmt: skip


def _has_band(curve: xr.Dataset) -> bool:
    return "prob_low" in curve and bool(np.isfinite(curve["prob_low"].values).any())


def _axis() -> dict[str, Any]:
    return {"showgrid": False, "zeroline": False, "showline": True, "linecolor": "#8a8a8a"}
