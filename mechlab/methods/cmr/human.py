"""How far a head's lag curve is from the recall curve of people."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.methods.cmr.distances import cmr_distances, status_of
from mechlab.methods.cmr.fit import FITTED_LAGS

__all__ = ["crp_distance"]

Array = np.ndarray[Any, Any]


def crp_distance(
    curves: xr.DataArray, crp: xr.DataArray, *, lags: Sequence[int] = FITTED_LAGS
) -> xr.Dataset:
    """Compare lag curves of heads with a lag-CRP, without lag 0.

    People recall no item twice in a row, and their CRP is of what was available; a head's curve has
    a lag 0 and no such rule. So lag 0 is left out and both are normalised over the other lags. What
    is left of the difference in kind (edges of a CRP rise) is not corrected.

    Args:
        curves: any axes and `lag`: scores or attention.
        crp: `[lag]`, as `average_subjects(lag_crp(recalls)).prob`, or the curve of a model.
        lags: compared; 0 is left out.

    Returns:
        For the axes of `curves` without `lag`: `distance`, the CMR distance from `crp` (both from 0
        to their maximum, mean squared difference over the curve's variance, as of `fit_cmr`);
        `total_variation`, half the summed difference of both as shares over the lags, from 0 to 1,
        for curves without negative values only, so not for scores; the coordinate `status`, `ok` or
        why a curve has no distance.

    Raises:
        OptionError: when curves or CRP lack a lag, or the CRP has other axes, a missing value, or
            no shape over these lags.
    """
    wanted = [int(lag) for lag in lags if lag != 0]
    human = _crp(curves, crp, wanted)
    array = curves.sel(lag=wanted).transpose(..., "lag")
    values = array.values.reshape(-1, len(wanted)).astype(np.float64)
    status = np.array([status_of(curve) for curve in values])
    distance, variation = np.full((2, len(values)), np.nan)
    shape = (human - human.min()) / np.ptp(human)
    good = np.flatnonzero(status == "ok")
    if len(good):
        moved = values[good] - values[good].min(axis=1, keepdims=True)
        distance[good] = cmr_distances(moved, shape[None])[:, 0]
    shares = good[values[good].min(axis=1) >= 0]
    own = values[shares] / values[shares].sum(axis=1, keepdims=True)
    variation[shares] = np.abs(own - human / human.sum()).sum(axis=1) / 2
    axes, sizes = array.dims[:-1], array.shape[:-1]
    return xr.Dataset(
        {
            "distance": (axes, distance.reshape(sizes), {"units": ""}),
            "total_variation": (axes, variation.reshape(sizes), {"units": "share"}),
        },
        {
            **{name: c for name, c in array.coords.items() if "lag" not in c.dims},
            "status": (axes, status.reshape(sizes)),
        },
    )


def _crp(curves: xr.DataArray, crp: xr.DataArray, wanted: list[int]) -> Array:
    """Return the CRP at the lags wanted, after checking everything."""
    problems = []
    for name, held in (("curves", curves), ("crp", crp)):
        if "lag" not in getattr(held, "coords", {}):
            problems.append(f"{name} must be a DataArray with the coordinate `lag`")
        elif missing := [lag for lag in wanted if lag not in held.lag.values]:
            problems.append(f"{name} lack the lags {missing}")
    if len(wanted) < 3 or len(set(wanted)) < len(wanted):
        problems.append(f"{len(wanted)} lags but 0 (at least 3 different ones)")
    if not problems and crp.dims != ("lag",):
        problems.append(f"crp has the axes {crp.dims}, not lag alone: average over subjects first")
    if not problems:
        values = crp.sel(lag=wanted).values.astype(np.float64)
        told = status_of(values) if (np.nan_to_num(values) >= 0).all() else "a value is negative"
        if told == "ok":
            return values
        problems.append(f"crp: {told}")
    raise OptionError(
        f"crp_distance: {'; '.join(problems)}.\n  Allowed: curves with `lag` and a CRP of "
        "probabilities over the same lags.\n  Name lags that both have."
    )
