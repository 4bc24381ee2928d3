"""The CMR distance of curves without any memory: noise, smooth noise, random walks."""

from typing import Any, Literal

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.methods.cmr.fit import FITTED_LAGS, fit_cmr

__all__ = ["cmr_null", "cmr_p_value"]

Array = np.ndarray[Any, Any]
NullKind = Literal["white", "smooth", "walk", "matched", "permuted"]
KINDS = ("white", "smooth", "walk", "matched", "permuted")


def cmr_null(
    kind: NullKind = "matched",
    count: int = 1000,
    *,
    curves: xr.DataArray | None = None,
    table: xr.Dataset | None = None,
    seed: int = 0,
) -> xr.DataArray:
    """Return CMR distances of curves that hold no memory, to compare heads with.

    Eleven points and 4,620 shapes leave room for luck: of random walks every fifth lies below the
    published threshold of 0.5.

    Args:
        kind: `white` noise; `smooth`, its mean over three lags; `walk`, its running sum; `matched`,
            smooth noise with the autocorrelation over lags of `curves`; `permuted`, the `curves`
            themselves with their lags in random order.
        count: number of draws.
        curves: heads' curves with `lag`, for `matched` and `permuted`.
        table: of `crp_table`; by default the one that comes with mechlab.
        seed: of all draws.

    Returns:
        `[draw]`, distances, with the kind and seed in its attributes.

    Raises:
        OptionError: another kind, a count below 1, or no usable curves where they are needed.
    """
    if kind not in KINDS or type(count) is not int or count < 1:
        raise OptionError(
            f"kind={kind!r}, count={count!r}. Allowed: {', '.join(KINDS)}; counts from 1. Correct "
            "them."
        )
    random = np.random.default_rng(seed)
    drawn = _draw(kind, count, _usable(kind, curves), random)
    lags = list(FITTED_LAGS)
    fit = fit_cmr(xr.DataArray(drawn, {"lag": lags}, ("draw", "lag")), table=table, candidates=1)
    found: xr.DataArray = fit.distance.drop_vars("status").rename("distance")
    return found.assign_attrs(kind=kind, seed=seed, units="")


def cmr_p_value(distance: xr.DataArray, null: xr.DataArray) -> xr.DataArray:
    """Return how often the null fits at least as well, `(1 + below) / (1 + draws)`; NaN stays NaN.

    Args:
        distance: of heads, any axes.
        null: of `cmr_null`, `[draw]`.
    """
    ordered = np.sort(null.values)
    below = np.searchsorted(ordered, distance.values, side="right")
    p = (1 + below) / (1 + len(ordered))
    return distance.copy(data=np.where(np.isfinite(distance.values), p, np.nan)).rename("p_value")


def _usable(kind: str, curves: xr.DataArray | None) -> Array | None:
    if kind not in ("matched", "permuted"):
        return None
    if curves is None or "lag" not in curves.coords:
        raise OptionError(f"kind={kind!r} needs the heads' curves, with `lag`. Pass curves=.")
    values = curves.sel(lag=list(FITTED_LAGS)).transpose(..., "lag").values
    flat = values.reshape(-1, len(FITTED_LAGS)).astype(float)
    spread = np.where(np.isfinite(flat).all(axis=1), np.ptp(flat, axis=1), 0)
    if not (spread > 0).any():
        raise OptionError("no curve is finite and not constant. Pass curves of real heads.")
    kept: Array = flat[spread > 0]
    return kept


def _draw(kind: str, count: int, curves: Array | None, random: np.random.Generator) -> Array:
    n = len(FITTED_LAGS)
    if kind == "permuted":
        assert curves is not None
        some = curves[random.integers(len(curves), size=count)]
        return random.permuted(some, axis=1)
    if kind == "matched":
        assert curves is not None
        return random.multivariate_normal(np.zeros(n), _covariance(curves), size=count)
    noise = random.normal(size=(count, n + 2))
    if kind == "walk":
        return noise[:, :n].cumsum(axis=1)
    if kind == "smooth":
        return (noise[:, :-2] + noise[:, 1:-1] + noise[:, 2:]) / 3
    return noise[:, :n]


def _covariance(curves: Array) -> Array:
    """Return the stationary covariance over lags whose autocorrelation is the curves' own mean."""
    n = curves.shape[1]
    z = curves - curves.mean(axis=1, keepdims=True)
    z = z / z.std(axis=1, keepdims=True)
    by_step = np.array([(z[:, : n - step] * z[:, step:]).mean() for step in range(n)])
    made: Array = by_step[np.abs(np.subtract.outer(np.arange(n), np.arange(n)))]
    values, vectors = np.linalg.eigh(made)
    covariance: Array = (vectors * np.clip(values, 0, None)) @ vectors.T
    return covariance
