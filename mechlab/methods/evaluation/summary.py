"""Averages over cases with intervals, the score S, and what changed (`edit_summary`)."""

from typing import Any

import numpy as np
import xarray as xr

from mechlab.engine.options import check_whole
from mechlab.errors import OptionError
from mechlab.methods.evaluation.measures import MEASURES, harmonic_mean
from mechlab.results import WORK
from mechlab.statistics import bootstrap_interval

__all__ = ["edit_summary"]

SCORED = ("efficacy", "paraphrase", "neighbourhood")
"""What the score S is the harmonic mean of."""

METRICS = (
    *(name for kind in MEASURES.values() for name in (kind, f"{kind}_magnitude")),
    "generation_entropy",
    "consistency",
    "drift",
)
"""Variables of (case) that are averaged."""

SHARES = (*MEASURES.values(), "consistency")
"""Metrics between 0 and 1."""

METHODS = ("evaluate_edit", "evaluate_each_edit")

Array = np.ndarray[Any, Any]


def edit_summary(
    after: xr.Dataset,
    *,
    before: xr.Dataset | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Average an evaluation over its cases, with intervals, and compare it with another.

    The first metric, `score`, is S of Meng et al. 2022: the harmonic mean of the mean efficacy,
    paraphrase and neighbourhood, 0 when one of them is. Intervals of the other metrics are those of
    `ml.statistics.bootstrap_interval`, cut off at what the metric can be; that of S is the
    percentile interval of the same kind of resampling, for which it is no mean. Cases with the same
    subject are drawn together. Where every case has a share of 1 (or of 0), resampling shows no
    spread, and the interval is the exact binomial one (Clopper and Pearson 1934): of n subjects
    from 0.025^(1/n) to 1.

    Args:
        after: result of `evaluate_edit` with an edit in force, or of `evaluate_each_edit`.
        before: result of `evaluate_edit` on the same cases without any.
        confidence: probability that an interval covers the true average, within (0, 1).
        resamples: number of bootstrap samples.
        seed: the same seed gives the same intervals.

    Returns:
        Dataset of (metric) with `mean`, `low`, `high`, `n` (cases that have the metric), `before`
        (its mean there), and `change`, `change_low`, `change_high`: mean and interval of the
        paired difference after - before, NaN without `before`. Shares, cosines and S are between
        0 and 1, `generation_entropy` is in bits.

    Raises:
        OptionError: results that are not of `evaluate_edit`, or not of the same cases and options;
            a number out of range.
    """
    check_whole("resamples", resamples, at_least=1)
    check_whole("seed", seed, at_least=0)
    if not 0 < confidence < 1:
        raise OptionError(f"confidence={confidence!r}. Allowed: between 0 and 1. Choose one.")
    _check(after, before)
    how = {"confidence": confidence, "resamples": resamples, "seed": seed}
    cluster = [str(subject) for subject in after["subject"].values]
    rows = [_score_row(after, before, cluster, **how)]
    metrics = [name for name in METRICS if name in after]
    rows += [_row(name, after[name], None if before is None else before.get(name), cluster, **how)
             for name in metrics]  # fmt: skip
    columns = {name: ("metric", [row[name] for row in rows]) for name in rows[0]}
    kept = {name: value for name, value in after.attrs.items() if name not in WORK}
    earlier = "none" if before is None else before.attrs["model_fingerprint"]
    about = {"before_fingerprint": earlier, "confidence": confidence, "resamples": resamples}
    return xr.Dataset(columns, {"metric": ["score", *metrics]}, kept | about)


def _check(after: xr.Dataset, before: xr.Dataset | None) -> None:
    wrong = [name for name, one in (("after", after), ("before", before))
             if one is not None
             and getattr(one, "attrs", {}).get("method") not in METHODS]  # fmt: skip
    if wrong:
        raise OptionError(
            f"{' and '.join(wrong)} did not come from evaluate_edit. Allowed: its results, all "
            "cases of them. Evaluate the model first."
        )
    same = ("prompts_digest", "options", "method_version")
    if before is not None and (
        differ := [name for name in same if after.attrs[name] != before.attrs[name]]
    ):
        raise OptionError(
            f"after and before differ in {', '.join(differ)}. Allowed: results of the same cases, "
            "options and version. Evaluate both in the same way."
        )


def _row(
    name: str, after: xr.DataArray, before: xr.DataArray | None, cluster: list[str], **how: Any
) -> dict[str, float | int]:
    """Return one metric's entry in every column."""
    least, most = _range(name)

    def interval(values: xr.DataArray, least: float, most: float) -> tuple[float, float]:
        found = bootstrap_interval(values, dim="case", cluster=cluster, **how)
        low, high = (float(np.clip(found[end], least, most)) for end in ("low", "high"))
        return low, high

    own = interval(after, least, most)
    subjects = len(
        {one for one, value in zip(cluster, after.values, strict=True) if value == value}
    )
    if name in SHARES and own[0] == own[1] and subjects:
        unseen = 1 - ((1 - how["confidence"]) / 2) ** (1 / subjects)
        own = {0.0: (0.0, unseen), 1.0: (1.0 - unseen, 1.0)}.get(own[0], own)
    earlier = xr.full_like(after, np.nan) if before is None else before
    change = after - earlier
    return _columns(
        float(after.mean()), own, int(after.count()),
        float(earlier.mean()), float(change.mean()), interval(change, least - most, most - least),
    )  # fmt: skip


def _range(name: str) -> tuple[float, float]:
    """Return the least and the most that a metric can be."""
    if name in SHARES:
        return 0.0, 1.0
    return (-1.0, 1.0) if name.endswith("_magnitude") else (0.0, np.inf)


def _score_row(
    after: xr.Dataset, before: xr.Dataset | None, cluster: list[str], **how: Any
) -> dict[str, float | int]:
    """Return the entry of S, the same resampled cases before and after."""
    names, number = np.unique(cluster, return_inverse=True)
    draws = np.random.default_rng(how["seed"]).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=how["resamples"]
    )
    weights = np.concatenate([np.ones((1, len(number))), draws[:, number]])  # first all cases once
    now, count = _scores(after, weights)
    then = np.full_like(now, np.nan) if before is None else _scores(before, weights)[0]

    def interval(values: Array) -> tuple[float, float]:
        if len(names) < 2 or np.isnan(values[0]):
            return np.nan, np.nan
        tail = (1 - how["confidence"]) / 2
        low, high = np.nanquantile(values[1:], [tail, 1 - tail])
        return float(low), float(high)

    change = now - then
    return _columns(
        float(now[0]), interval(now), count, float(then[0]), float(change[0]), interval(change)
    )


def _scores(result: xr.Dataset, weights: Array) -> tuple[Array, int]:
    """Return S for each weighing of the cases `[sample, case]`, and how many cases count."""
    held = result[list(SCORED)].to_array("metric").transpose("metric", "case").values
    there = ~np.isnan(held)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (np.nan_to_num(held) @ weights.T) / (there.astype(float) @ weights.T)
    return harmonic_mean(means), int(there.any(0).sum())


def _columns(
    mean: float,
    interval: tuple[float, float],
    count: int,
    before: float,
    change: float,
    change_interval: tuple[float, float],
) -> dict[str, float | int]:
    low, high = interval
    change_low, change_high = change_interval
    return {
        "mean": mean, "low": low, "high": high, "n": count, "before": before,
        "change": change, "change_low": change_low, "change_high": change_high,
    }  # fmt: skip
