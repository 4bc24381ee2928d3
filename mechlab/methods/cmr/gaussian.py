"""The baseline of the CMR fit: a Gaussian bump on a level."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.optimize import OptimizeWarning, curve_fit

from mechlab.errors import OptionError
from mechlab.methods.cmr.distances import status_of
from mechlab.methods.cmr.fit import FITTED_LAGS

__all__ = ["gaussian_fit"]

Array = np.ndarray[Any, Any]
NAMES = ("level", "height", "mu", "sigma")


def gaussian_fit(curves: xr.DataArray, *, lags: Sequence[int] = FITTED_LAGS) -> xr.Dataset:
    """Fit each lag curve with a Gaussian bump by least squares.

    Four free parameters on eleven points: it is no model of memory, and beats CMR on curves that
    are merely peaked. Differs from the public code: `mu` starts at the lag of the largest value (it
    starts at that value itself there), and a fit that fails is NaN with a reason, not a flat line.

    Args:
        curves: any axes and `lag`.
        lags: the lags that are fitted.

    Returns:
        For the axes of `curves` without `lag`: `distance` (mean squared difference over the curve's
        population variance), `level`, `height` (units of the curves), `mu`, `sigma` (tokens), and
        the coordinate `status`.

    Raises:
        OptionError: curves without `lag`, or without one of the lags.
    """
    wanted = list(lags)
    if "lag" not in curves.coords or any(lag not in curves.lag.values for lag in wanted):
        raise OptionError(f"gaussian_fit: curves need the lags {wanted}. Measure these.")
    flat = curves.sel(lag=wanted).transpose(..., "lag")
    values = flat.values.reshape(-1, len(wanted)).astype(float)
    found = np.full((len(values), 1 + len(NAMES)), np.nan)
    status = np.array([status_of(curve) for curve in values], dtype=object)
    for row in np.flatnonzero(status == "ok"):
        try:
            found[row] = _fit(np.asarray(wanted, dtype=float), values[row])
        except (RuntimeError, OptimizeWarning) as error:
            status[row] = f"no fit: {error}"
    axes, sizes = flat.dims[:-1], flat.shape[:-1]
    units = {"level": str(flat.attrs.get("units", "")), "mu": "tokens", "sigma": "tokens"}
    units["height"] = units["level"]
    data = {
        name: (axes, found[:, column].reshape(sizes), {"units": units.get(name, "")})
        for column, name in enumerate(("distance", *NAMES))
    }
    made = xr.Dataset(data, {name: c for name, c in flat.coords.items() if "lag" not in c.dims})
    return made.assign_coords(status=(axes, status.astype(str).reshape(sizes)))


def _fit(lags: Array, curve: Array) -> Array:
    low, high = curve.min(), curve.max()
    start = (low, high - low, lags[curve.argmax()], 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OptimizeWarning)
        found, _ = curve_fit(_bump, lags, curve, p0=start, maxfev=5000)
    found[3] = abs(found[3])
    distance = ((_bump(lags, *found) - curve) ** 2).mean() / curve.var()
    return np.array([distance, *found])


def _bump(lag: Array, level: float, height: float, mu: float, sigma: float) -> Array:
    made: Array = level + height * np.exp(-((lag - mu) ** 2) / (2 * sigma**2 + 1e-12))
    return made
