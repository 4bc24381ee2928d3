"""`repair_slope`: how much of what an ablation takes away is put back, as a line over prompts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from mechlab.errors import OptionError
from mechlab.statistics.clusters import cluster_numbers, refuse, wrong_count, wrong_level

__all__ = ["repair_slope"]

Array = np.ndarray[Any, Any]
FLAT = 1e-12
"""A direct effect that varies less than this share of its size has no slope over prompts."""


def repair_slope(
    result: xr.Dataset,
    *,
    cluster: str | Sequence[object] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Fit the compensatory effect as a line of the direct effect, per ablated module.

    Slope 1 is total repair, 0 none, a negative one further damage (McGrath et al. 2023). A
    direct effect that differs little between prompts fixes no slope with an intercept; the line
    through the origin is then the one to read.

    Args:
        result: of `self_repair`.
        cluster: prompts drawn together by the bootstrap: a coordinate of `prompt`, or labels, of
            which `None` stands alone.
        confidence: of the intervals, percentile bootstraps widened for few clusters as in
            `bootstrap_interval`.
        resamples: bootstrap samples.
        seed: of the bootstrap.

    Returns:
        Dataset over (site, layer): `slope`, `intercept` (logits), `r_squared`, and
        `slope_through_origin`, the two slopes each with `_low` and `_high`; `n`, the prompts. NaN
        where the direct effect does not vary (or is 0, for the line through the origin), and
        intervals also with fewer than two clusters.

    Raises:
        OptionError: what is no such result, labels that do not fit its prompts, or a number of the
            wrong kind or out of range.
    """
    if not {"direct_effect", "compensatory_effect"} <= set(result.data_vars):
        raise OptionError(
            f"repair_slope got variables {sorted(map(str, result.data_vars))}. Allowed: a result "
            "of self_repair. Pass the Dataset itself."
        )
    refuse("repair_slope", [*wrong_level(confidence, resamples), *wrong_count("seed", seed, 0)])
    cell = result.direct_effect.isel(prompt=0, drop=True)
    x, y = (
        result[name].transpose("prompt", ...).values.reshape(result.sizes["prompt"], -1)
        for name in ("direct_effect", "compensatory_effect")
    )
    x, y = x.astype(float), y.astype(float)
    number = cluster_numbers(result, "prompt", cluster)
    count = int(number.max()) + 1
    moments = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])
    summed = np.zeros((6, count, x.shape[1]))
    for index in range(count):
        summed[:, index] = moments[:, number == index].sum(1)
    slope, intercept, squared, through = _lines(summed.sum(1))
    random = np.random.default_rng(seed)
    draws = random.multinomial(count, np.full(count, 1 / count), size=resamples)
    drawn = _lines(np.einsum("rc,mcn->mrn", draws, summed))
    variables = {
        "slope": slope,
        **_bounds("slope", drawn[0], slope, count, confidence),
        "intercept": intercept,
        "r_squared": squared,
        "slope_through_origin": through,
        **_bounds("slope_through_origin", drawn[3], through, count, confidence),
    }
    found = {name: cell.copy(data=v.reshape(cell.shape)) for name, v in variables.items()}
    about = {"confidence": confidence, "resamples": resamples, "clusters": count}
    table = xr.Dataset(found, attrs=about).assign(n=result.sizes["prompt"])
    for name in variables:
        table[name].attrs = {"units": "logits" if name == "intercept" else "fraction"}
    return table


def _lines(moments: Array) -> tuple[Array, Array, Array, Array]:
    """Return slope, intercept, R² and slope through the origin from sums of 1, x, y, xx, xy, yy."""
    n, sx, sy, sxx, sxy, syy = moments
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = sxx - sx * sx / n
        spread = np.where(spread > FLAT * sxx, spread, np.nan)
        slope = (sxy - sx * sy / n) / spread
        intercept = (sy - slope * sx) / n
        rest = syy - sy * sy / n
        squared = slope**2 * spread / np.where(rest > 0, rest, np.nan)
        through = sxy / np.where(sxx > 0, sxx, np.nan)
    return slope, intercept, squared, through


def _bounds(
    name: str, drawn: Array, fitted: Array, count: int, confidence: float
) -> dict[str, Any]:
    """Return low and high ends, at percentiles that give the width of the t interval."""
    nan = np.full(drawn.shape[1:], np.nan)
    if count < 2:
        return {f"{name}_low": nan, f"{name}_high": nan}
    wide = stats.t.ppf((1 + confidence) / 2, count - 1) * np.sqrt(count / (count - 1))
    tail = float(stats.norm.cdf(-wide))
    known = ~np.isnan(fitted) & (np.isnan(drawn).mean(0) < 0.5)
    low, high = nan.copy(), nan.copy()
    if known.any():
        ends = np.nanquantile(drawn[:, known], [tail, 1 - tail], axis=0)
        low[known], high[known] = ends
    return {f"{name}_low": low, f"{name}_high": high}
