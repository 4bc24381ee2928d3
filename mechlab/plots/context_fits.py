"""Fits of heads with the context model: their lag curves, and where their betas lie."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import figure_layout
from mechlab.plots.lines import interval_band
from mechlab.plots.palette import QUALITATIVE, SEQUENTIAL
from mechlab.plots.tokens import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["HUMAN_BETAS", "beta_scatter", "lag_fits"]

HUMAN_BETAS = {
    "Sederberg08": (0.627, 0.627),
    "Lohnas15": (0.481, 0.329),
    "Jang & Huber08": (0.182, 0.754),
    "Loess67": (0.635, 0.937),
    "Murdock62": (0.745, 0.36),
    "Murdock70": (0.621, 0.179),
    "Kahana02": (0.79, 0.59),
}
"""beta_enc and beta_rec of human studies, as the public code of Ji-An et al. 2024 lists them. Some
are fits of the rho form, some of their own form, and the list does not say which."""

_BETAS = ("beta_enc", "beta_rec")
_ACROSS = 4
_MOST = 16
_CURVE, _FIT = QUALITATIVE[0], QUALITATIVE[1]


def lag_fits(
    curves: xr.DataArray,
    fit: xr.Dataset,
    *,
    sem: xr.DataArray | None = None,
    title: str | None = None,
) -> "go.Figure":
    """Draw lag curves of a few heads, each with its fit by the context model.

    Args:
        curves: axes of the heads, such as `head` or layer and head, and `lag`.
        fit: `fit_cmr(curves)`.
        sem: standard errors of the curves, of the same axes: bands of one of them to either side.
        title: heading.

    Returns:
        A plotly figure, a panel per head with its distance, parameters and peak lag.

    Raises:
        OptionError: when curves and fit are of different heads, or there are more than 16.
    """
    from plotly.subplots import make_subplots

    flat, fits, spread = _by_head(curves, fit, sem)
    count = flat.sizes["_head"]
    across = min(count, _ACROSS)
    rows = -(-count // across)
    figure = make_subplots(
        rows=rows, cols=across, subplot_titles=[_told(fits.isel(_head=i)) for i in range(count)],
        vertical_spacing=0.36 / rows,
    )  # fmt: skip
    for number in range(count):
        place = {"row": number // across + 1, "col": number % across + 1}
        error = None if spread is None else spread.isel(_head=number).values
        y, fitted = flat.isel(_head=number), fits.prediction.isel(_head=number)
        traces = _curve_and_fit(y, fitted, error, told=number == 0)
        figure.add_traces(traces, rows=place["row"], cols=place["col"])
        figure.update_xaxes(title_text="lag", dtick=2, zeroline=True, showgrid=False, **place)
        figure.update_yaxes(gridcolor="#ececec", zeroline=False, **place)
    figure.update_annotations(font_size=11)
    unit = str(curves.attrs.get("units", ""))
    figure.update_yaxes(
        title_text=escape(f"{curves.name or 'curve'} {unit}".strip(), "html"), col=1
    )
    heading = [title or "lag curves and the context model", _facts(sem)]
    figure.update_layout(
        **figure_layout(heading, meta=heading[0], height=130 + 290 * rows),
        legend={"x": 1.01, "y": 1},
    )
    return figure


def _curve_and_fit(
    curve: xr.DataArray, fitted: xr.DataArray, error: Any, *, told: bool
) -> list[Any]:
    """Return a head's band, its curve and its fit; `told` puts them into the legend."""
    import plotly.graph_objects as go

    lags, y = curve.lag.values.tolist(), curve.values
    style: dict[str, Any] = {"mode": "lines", "showlegend": told}
    dashed = {"color": _FIT, "dash": "dash"}
    bands = [] if error is None else [interval_band(lags, y - error, y + error, _CURVE, "head")]
    return [
        *bands,
        go.Scatter(x=lags, y=y, name="head", line={"color": _CURVE}, **style),
        go.Scatter(
            x=fitted.lag.values, y=fitted.values, name="context model", line=dashed, **style
        ),
    ]


def beta_scatter(
    fit: xr.Dataset,
    *,
    threshold: float = 0.1,
    reference: Mapping[str, tuple[float, float]] = HUMAN_BETAS,
    title: str | None = None,
) -> "go.Figure":
    """Draw beta_enc against beta_rec of the heads that the context model fits, and of people.

    Faint points are the other cells of the grid that fit within 5 per cent as well: where they
    spread, the betas are not known. Betas of different forms of drift are not comparable: the
    reference is drawn as published, and `convert_beta` takes the heads' to the rho form.

    Args:
        fit: `fit_cmr(curves)`.
        threshold: heads with a smaller distance are drawn.
        reference: betas to compare with, by study.
        title: heading.

    Returns:
        A plotly figure; the colour is the distance.

    Raises:
        OptionError: when no head lies below the threshold, or betas and near-optimal ones are of
            different forms.
    """
    import plotly.graph_objects as go

    _check_forms(fit)
    axes = [str(dim) for dim in fit.distance.dims]
    flat = fit.stack(_head=axes, create_index=False) if axes else fit.expand_dims("_head")
    shown = flat.isel(_head=np.flatnonzero(flat.distance.values < threshold))
    if not shown.sizes["_head"]:
        raise OptionError(
            f"no head has a distance below threshold={threshold}; the smallest is "
            f"{float(fit.distance.min()):.3f}. Allowed: a threshold above that. Raise it."
        )
    figure = go.Figure(_points(shown, threshold, reference))
    known = int(np.isfinite(fit.distance.values).sum())
    facts = f"{shown.sizes['_head']} of {known} heads with a distance below {threshold:g}"
    heading = [title or "drift in study and recall", f"{facts}; people as published, mixed forms"]
    figure.update_layout(
        **(figure_layout(heading, meta=heading[0], height=620) | {"width": 780}),
        legend={"orientation": "h", "y": -0.14},
        **{f"{axis}axis": _beta_axis(fit[name]) for axis, name in zip("xy", _BETAS, strict=True)},
    )
    return figure


def _check_forms(fit: xr.Dataset) -> None:
    names = [*_BETAS, *(f"near_{name}" for name in _BETAS)]
    forms = {name: fit[name].attrs.get("drift") for name in names}
    if len(set(forms.values())) > 1:
        raise OptionError(
            f"the betas of this fit have different forms: {forms}. Allowed: one form for all four. "
            "Convert them all."
        )


def _points(
    shown: xr.Dataset, threshold: float, reference: Mapping[str, tuple[float, float]]
) -> list[Any]:
    """Return near-optimal cells, heads, and people if there are any."""
    import plotly.graph_objects as go

    near = go.Scatter(
        x=shown.near_beta_enc.values.ravel(), y=shown.near_beta_rec.values.ravel(), mode="markers",
        name="fit as well", marker={"size": 4, "color": "#9a9a9a", "opacity": 0.35},
        hoverinfo="skip",
    )  # fmt: skip
    scale = [[i / (len(SEQUENTIAL) - 3), c] for i, c in enumerate(SEQUENTIAL[:1:-1])]
    heads = go.Scatter(
        x=shown.beta_enc.values, y=shown.beta_rec.values, mode="markers", name="heads",
        customdata=[_told(shown.isel(_head=i)) for i in range(shown.sizes["_head"])],
        hovertemplate="%{customdata}<extra></extra>",
        marker={
            "size": 10, "color": shown.distance.values, "colorscale": scale, "cmin": 0,
            "cmax": threshold, "colorbar": {"title": {"text": "CMR distance"}, "thickness": 14},
            "line": {"color": "#ffffff", "width": 1},
        },
    )  # fmt: skip
    people = go.Scatter(
        x=[x for x, _ in reference.values()], y=[y for _, y in reference.values()],
        mode="markers+text", name="people", text=[escape(name, "html") for name in reference],
        textposition="top center", textfont={"size": 10},
        marker={"size": 10, "symbol": "diamond-open", "color": QUALITATIVE[1]},
        hovertemplate="%{text}: %{x}, %{y}<extra></extra>",
    )  # fmt: skip
    return [near, heads, people] if reference else [near, heads]


def _beta_axis(beta: xr.DataArray) -> dict[str, Any]:
    form = beta.attrs.get("drift")
    text = f"{beta.name} of heads ({form} form)" if form else str(beta.name)
    return {
        "title": {"text": escape(text, "html")},
        "range": [-0.05, 1.05],
        "gridcolor": "#ececec",
        "zeroline": False,
        "constrain": "domain",
    }


def _by_head(
    curves: xr.DataArray, fit: xr.Dataset, sem: xr.DataArray | None
) -> tuple[xr.DataArray, xr.Dataset, xr.DataArray | None]:
    """Return everything along one axis of heads, `_head`."""
    axes = [str(dim) for dim in curves.dims if dim != "lag"]
    held = [curves, fit.prediction] + ([] if sem is None else [sem])
    sizes = [{name: one.sizes.get(name) for name in axes} for one in held]
    count = int(np.prod(list(sizes[0].values()))) if axes else 1
    if any(size != sizes[0] for size in sizes) or count > _MOST:
        raise OptionError(
            f"curves, fit and sem have the heads {'; '.join(map(str, sizes))}. Allowed: the same, "
            f"up to {_MOST} in all. Select the heads first, then fit them."
        )

    def stacked(one: Any) -> Any:
        return one.stack(_head=axes, create_index=False) if axes else one.expand_dims("_head")

    flat = stacked(curves).transpose("_head", "lag")
    return flat, stacked(fit), None if sem is None else stacked(sem).transpose("_head", "lag")


def _told(fit: xr.Dataset) -> str:
    """Return what a head's panel or point says: name, distance, parameters, peak."""
    if {"layer", "head"} <= set(fit.coords):
        name = f"L{fit['layer'].item()}H{fit['head'].item()}"
    else:
        name = str(fit["name"].item()) if "name" in fit.coords else ""
    if str(fit.status.item()) != "ok":
        return escape(f"{name}: {fit.status.item()}", "html")
    values = [float(fit[one]) for one in ("beta_enc", "beta_rec", "gamma_ft")]
    cell = ", ".join(f"{value:.2g}" for value in values)
    peak = f"{float(fit.peak_lag):+g}".replace("+0", "0")
    told = f"distance {float(fit.distance):.3f}, peak at {peak}"
    return f"<b>{escape(name, 'html')}</b> {told}<br>β_enc, β_rec, γ: {cell}"


def _facts(sem: xr.DataArray | None) -> str:
    return "bands: one standard error" if sem is not None else ""
