"""What is known of heads as a memory: fits of their lag curves, and what both studies of it share.

`Fitted` holds the fit with its nulls and matching scores, whether the curves were measured here or
published; the claims about distances take it and nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

import mechlab as ml

Condition = ml.claims.Condition

LIKE = 0.5
"""Distance below which the paper calls a head CMR-like."""
CLOSE = 0.1
"""The stricter threshold of its supplement."""
TOP = 0.1
"""Share of heads that are called the top ones, as in the paper."""
NULLS = ("matched", "permuted")
"""Nulls that the distances are compared with: smooth noise as smooth as the heads' curves, and the
curves with their lags in random order."""
NULL_DRAWS = 2000
RESAMPLES = 400
PARAMETERS = ("beta_enc", "beta_rec", "gamma_ft", "scale")


@dataclass(frozen=True)
class Fitted:
    """Lag curves of all heads with their fits.

    Attributes:
        curves: `[layer, head, lag]`.
        fit: `ml.fit_cmr(curves)`.
        matching: matching score, `[layer, head]`.
        nulls: distances without memory, by kind.
    """

    curves: xr.DataArray
    fit: xr.Dataset
    matching: xr.DataArray
    nulls: Mapping[str, xr.DataArray]

    @property
    def heads(self) -> int:
        """Number of heads."""
        return int(self.matching.size)

    @property
    def top(self) -> int:
        """How many heads the top ones are."""
        return max(1, round(TOP * self.heads))

    @property
    def p_value(self) -> xr.DataArray:
        """How often smooth noise fits as well, `[layer, head]`."""
        return ml.cmr_p_value(self.fit.distance, self.nulls["matched"])

    def most_like(self) -> list[ml.Head]:
        """Return the heads of lowest distance, best first."""
        return ml.top_heads(-self.fit.distance, k=self.top)

    def most_matching(self) -> list[ml.Head]:
        """Return the heads of highest matching score, best first: the top induction heads."""
        return ml.top_heads(self.matching, k=self.top)


def fitted(curves: xr.DataArray, matching: xr.DataArray, seed: int = 0) -> Fitted:
    """Fit curves and draw nulls; curves without any shape have no nulls: NaN."""
    fit = ml.fit_cmr(curves)
    known = bool((fit.status == "ok").any())
    nulls = {
        kind: ml.cmr_null(kind, NULL_DRAWS, curves=curves, seed=seed)  # type: ignore[arg-type]
        if known
        else xr.DataArray([np.nan], dims="draw")
        for kind in NULLS
    }
    return Fitted(curves, fit, matching, nulls)


def of_heads(values: xr.DataArray, heads: Sequence[ml.Head]) -> xr.DataArray:
    """Return values of these heads, axis `chosen` in place of layer and head."""
    found: xr.DataArray = values.sel(
        layer=xr.DataArray([one.layer for one in heads], dims="chosen"),
        head=xr.DataArray([one.head for one in heads], dims="chosen"),
    )
    return found


# --- numbers with intervals -----------------------------------------------------------------------


def over_heads(statistic: Callable[..., float], *values: xr.DataArray) -> tuple[float, float]:
    """Return a 95 % interval of a statistic of heads, heads drawn anew.

    The hull of the percentile and the basic interval: resampled ranks have ties.
    """
    flat = [one.values.ravel() for one in values]
    count, whole = flat[0].size, statistic(*flat)
    random = np.random.default_rng(0)
    drawn = [statistic(*(one[rows] for one in flat)) for rows in _rows(random, count)]
    return hull(whole, drawn)


def hull(whole: float, drawn: Sequence[float]) -> tuple[float, float]:
    """Return the hull of the percentile and the basic interval of drawn values, 95 %."""
    kept = np.asarray(drawn, dtype=float)
    if not np.isfinite(kept).any() or not np.isfinite(whole):
        return float("nan"), float("nan")
    low, high = np.nanquantile(kept, [0.025, 0.975])
    return float(min(low, 2 * whole - high)), float(max(high, 2 * whole - low))


def _rows(random: np.random.Generator, count: int) -> np.ndarray:
    found: np.ndarray = random.integers(count, size=(RESAMPLES, count))
    return found


def share_below(distance: xr.DataArray, threshold: float) -> float:
    """Return the share of curves with a distance below a threshold; NaN counts as above."""
    return float((distance < threshold).mean())


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's correlation of the heads where both are known; NaN where one is flat."""
    from scipy import stats  # heavy for a module that the report imports too

    known = np.isfinite(one) & np.isfinite(other)
    if known.sum() < 3 or np.ptp(one[known]) == 0 or np.ptp(other[known]) == 0:
        return float("nan")
    return float(stats.spearmanr(one[known], other[known]).statistic)


def excess(found: Fitted, threshold: float, kind: str) -> Condition:
    """Return the condition that more heads lie below a threshold than draws of a null.

    The share of heads has its Clopper-Pearson interval, and the null is taken at the upper end of
    its own: a handful of heads says little.
    """
    below, heads = int((found.fit.distance < threshold).sum()), found.heads
    null = found.nulls[kind]
    expected = share_below(null, threshold)
    low, high = _binomial(below, heads)
    nearest = _binomial(round(expected * null.size), null.size)
    text = f"share of heads with a distance below {threshold:g}, minus that of the {kind} null"
    value = below / heads - expected if np.isfinite(null).any() else float("nan")
    return Condition(text, value, low - nearest[1], high - nearest[0])


def _binomial(hits: int, of: int) -> tuple[float, float]:
    from scipy import stats  # heavy for a module that the report imports too

    found = stats.binomtest(hits, of).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def correlated(found: Fitted) -> Condition:
    """Return the condition that distance falls with matching, over heads."""
    distance, matching = found.fit.distance, found.matching
    value = -rank_correlation(distance.values.ravel(), matching.values.ravel())
    low, high = over_heads(lambda d, m: -rank_correlation(d, m), distance, matching)
    text = "minus the rank correlation of distance and matching"
    return Condition(text, value, max(low, -1.0), min(high, 1.0))


def depth(found: Fitted) -> Condition:
    """Return the condition that CMR-like heads lie in later layers than heads do on average."""
    distance = found.fit.distance
    place = xr.broadcast(distance.layer / max(1, distance.sizes["layer"] - 1), distance)[0]
    place = place.transpose(*distance.dims)

    def later(d: np.ndarray, at: np.ndarray) -> float:
        like = d < LIKE
        return float(at[like].mean() - at.mean()) if like.any() else float("nan")

    value = later(distance.values.ravel(), place.values.ravel())
    low, high = over_heads(later, distance, place)
    text = f"mean depth (0 to 1) of heads with a distance below {LIKE:g}, minus that of all heads"
    return Condition(text, value, low, high)
