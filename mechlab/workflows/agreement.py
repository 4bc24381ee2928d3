"""Does tracing tell where to edit? Trace effects against edit success, over layers and over facts.

Hase et al. 2023 (arXiv 2301.04213) ask it of ROME: the layer that an edit is made in explains much
of its success, the tracing effect at that layer hardly anything beyond.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from mechlab.engine import check_whole
from mechlab.errors import OptionError
from mechlab.statistics import bootstrap_interval

__all__ = ["OUTCOMES", "rank_over_layers", "trace_edit_agreement"]

OUTCOMES = ("rewrite_score", "efficacy", "paraphrase", "neighbourhood", "case_score")
"""What success is measured by."""

Array = np.ndarray[Any, Any]


def trace_edit_agreement(
    result: xr.Dataset,
    *,
    outcomes: Sequence[str] = OUTCOMES,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Compare where tracing finds a fact with where editing it works.

    Args:
        result: of `ml.localize_edit_verify` on several facts: `trace_effect` (case, layer), and the
            outcomes of (case, layer).
        outcomes: variables of the result that say how well an edit worked.
        confidence: probability that an interval covers, within (0, 1).
        resamples: bootstrap samples; facts about one subject are drawn together.
        seed: of the resampling and of the shuffled control.

    Returns:
        Dataset of (outcome), each with `..._low` and `..._high` (percentile interval, for the first
        that of `ml.statistics.bootstrap_interval`; NaN with too few subjects):

        - `rank_over_layers`: Spearman correlation over layers, averaged over facts: is the layer
          with more effect the better one to edit?
        - `rank_over_facts`: Spearman correlation over facts at one layer, averaged over layers: is
          a fact with more effect there the one that is edited better?
        - `r2_layer`, `r2_effect`, `r2_both`: share of the variance of the outcome that is explained
          by the layer (one mean each), by the effect (one slope), by both; `r2_added` is
          `r2_both` - `r2_layer`.
        - `r2_added_shuffled`: `r2_added` with the effects of each layer dealt to other facts,
          averaged: what one more slope explains when it means nothing.

        Facts or layers on which an effect or outcome does not vary have no rank correlation and are
        left out of its average.

    Raises:
        OptionError: a result without these variables, or a number out of range.
    """
    check_whole("resamples", resamples, at_least=1)
    check_whole("seed", seed, at_least=0)
    if not 0 < confidence < 1:
        raise OptionError(f"confidence={confidence!r}. Allowed: between 0 and 1. Choose one.")
    missing = [name for name in ("trace_effect", *outcomes) if name not in result]
    if missing:
        raise OptionError(
            f"the result lacks {', '.join(missing)}. Allowed: results of localize_edit_verify, and "
            f"outcomes among {', '.join(OUTCOMES)}. Give such a result."
        )
    effect = _values(result, "trace_effect")
    draws = _draws([str(one) for one in result.subject.values], resamples, seed)
    rows = [_row(effect, _values(result, name), draws, confidence, seed) for name in outcomes]
    columns = {name: ("outcome", [row[name] for row in rows]) for name in rows[0]}
    about = {"confidence": confidence, "resamples": resamples, "cases": len(effect)}
    return rank_over_layers(result, outcomes).assign(columns).assign_attrs(about)


def rank_over_layers(table: xr.Dataset, outcomes: Sequence[str] = OUTCOMES) -> xr.Dataset:
    """Return Spearman's correlation over layers, averaged over facts.

    Args:
        table: `trace_effect` and the outcomes of (case, layer), `subject` of (case).
        outcomes: which.

    Returns:
        `rank_over_layers`, `rank_over_layers_low` and `rank_over_layers_high` of (outcome); the
        interval is that of `ml.statistics.bootstrap_interval`, subjects drawn together.
    """
    effect = table.trace_effect.transpose("case", "layer").values
    each = [
        [_spearman(a, b) for a, b in zip(effect, _values(table, name), strict=True)]
        for name in outcomes
    ]
    ranks = xr.DataArray(np.array(each), dims=("outcome", "case"))
    cluster = [str(one) for one in table.subject.values]
    ends = bootstrap_interval(ranks, dim="case", cluster=cluster)
    name = "rank_over_layers"
    columns = {name: ranks.mean("case"), f"{name}_low": ends.low, f"{name}_high": ends.high}
    return xr.Dataset(columns, {"outcome": list(outcomes)})


def _values(table: xr.Dataset, name: str) -> Array:
    values: Array = table[name].transpose("case", "layer").values
    return values


def _row(
    effect: Array, outcome: Array, draws: Sequence[Array], confidence: float, seed: int
) -> dict[str, float]:
    """Return the numbers of one outcome that are drawn anew with the facts, and intervals."""

    def numbers(which: Array) -> dict[str, float]:
        a, b = effect[which], outcome[which]
        ranks = np.array([_spearman(x, y) for x, y in zip(a.T, b.T, strict=True)])
        return {"rank_over_facts": _mean(ranks), **_explained(a, b)}

    found = numbers(np.arange(len(effect)))
    drawn = [numbers(which) for which in draws]
    row: dict[str, float] = {}
    for name, value in found.items():
        held = np.array([one[name] for one in drawn])
        held = held[~np.isnan(held)]
        tail = (1 - confidence) / 2
        low, high = np.quantile(held, [tail, 1 - tail]) if len(held) else (np.nan, np.nan)
        row |= {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}
    return row | {"r2_added_shuffled": _shuffled(effect, outcome, seed)}


def _draws(subjects: Sequence[str], resamples: int, seed: int) -> list[Array]:
    """Return indices of resampled cases, those of one subject together; none for few subjects."""
    names, number = np.unique(subjects, return_inverse=True)
    if len(names) < 3:
        return []
    members = [np.flatnonzero(number == one) for one in range(len(names))]
    picks = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    return [np.concatenate([members[one] for one in pick]) for pick in picks]


def _explained(effect: Array, outcome: Array) -> dict[str, float]:
    """Return the shares of variance that layer, effect and both explain, and what effect adds."""
    known = ~(np.isnan(effect) | np.isnan(outcome))
    layers = np.broadcast_to(np.arange(effect.shape[1]), effect.shape)[known]
    x, y = effect[known], outcome[known]
    if len(y) < 3 or np.ptp(y) == 0:
        return dict.fromkeys(("r2_layer", "r2_effect", "r2_both", "r2_added"), float("nan"))
    total = float(((y - y.mean()) ** 2).sum())
    x_within, y_within = _within(x, layers), _within(y, layers)
    left = float((y_within**2).sum())
    layer = 1 - left / total
    added = _slope_explains(x_within, y_within) * left / total
    alone = _slope_explains(x - x.mean(), y - y.mean())
    return {"r2_layer": layer, "r2_effect": alone, "r2_both": layer + added, "r2_added": added}


def _within(values: Array, layers: Array) -> Array:
    """Return values minus the mean of their layer."""
    count = np.bincount(layers)
    means = np.bincount(layers, values) / np.maximum(count, 1)
    centred: Array = values - means[layers]
    return centred


def _slope_explains(x: Array, y: Array) -> float:
    """Return the squared correlation of centred numbers, 0 where one of them does not vary."""
    size = float((x**2).sum() * (y**2).sum())
    return float((x @ y) ** 2 / size) if size > 0 else 0.0


def _shuffled(effect: Array, outcome: Array, seed: int, times: int = 200) -> float:
    """Return the mean of `r2_added` when effects are dealt to other facts of the same layer."""
    random = np.random.default_rng(seed)
    dealt = (random.permuted(effect, axis=0) for _ in range(times))
    return _mean(np.array([_explained(one, outcome)["r2_added"] for one in dealt]))


def _spearman(a: Array, b: Array) -> float:
    """Return Spearman's rank correlation over what both have, NaN where it means nothing."""
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    ranks = stats.rankdata(a), stats.rankdata(b)
    return float(np.corrcoef(*ranks)[0, 1])


def _mean(values: Array) -> float:
    return float(np.nanmean(values)) if (~np.isnan(values)).any() else float("nan")
