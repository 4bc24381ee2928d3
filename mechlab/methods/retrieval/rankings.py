"""What follows from retrieval scores: which heads, how many, how stable, and how like others."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from scipy import stats

from mechlab.axes import Head
from mechlab.checks import check_number, check_whole
from mechlab.errors import OptionError
from mechlab.results import top_heads
from mechlab.statistics import split_half_stability, top_k_stability

__all__ = [
    "compare_rankings",
    "retrieval_heads",
    "retrieval_histogram",
    "retrieval_stability",
    "retrieval_summary",
]

Score = Literal["retrieval_score", "retrieval_score_all", "active", "mass"]
THRESHOLD = 0.1
"""Smallest mean score of a retrieval head, itself included (Wu et al. 2024, section 2)."""
_ROUNDING = 1e-9
"""A mean of 0.1 reaches the threshold 0.1, whatever the order of the additions."""
_EDGES = (THRESHOLD, 0.5)


def retrieval_heads(
    scores: xr.Dataset | xr.DataArray,
    *,
    threshold: float = THRESHOLD,
    k: int | None = None,
    score: Score = "retrieval_score",
) -> list[Head]:
    """Return the heads whose mean score reaches the threshold, the strongest first.

    Args:
        scores: a result of `retrieval_score`, or one array of axes (prompt,) layer, head.
        threshold: smallest mean that counts, itself included.
        k: at most so many.
        score: which variable of a result is averaged; `retrieval_score` over answered prompts.

    Raises:
        OptionError: an option out of range, or a result without such scores.
    """
    check_number("threshold", threshold)
    check_whole("k", k, at_least=0, optional=True)
    return top_heads(_mean(_array(scores, score)), k=k, at_least=threshold - _ROUNDING)


def retrieval_summary(scores: xr.Dataset, *, threshold: float = THRESHOLD) -> xr.Dataset:
    """Average a result of `retrieval_score` over its prompts.

    Args:
        scores: the result; select prompts before.
        threshold: smallest mean of a retrieval head, itself included.

    Returns:
        Dataset of the axes layer, head: `retrieval_score`, the mean over answered prompts;
        `retrieval_score_all`, over all with a needle; `activation_frequency`, the share of prompts
        on which at least one token was copied; `mass`; `is_retrieval_head`. Numbers without axes:
        `prompts`, `found`, `answered`, and the `share` of heads that are retrieval heads.

    Raises:
        OptionError: when it is no such result.
    """
    check_number("threshold", threshold)
    mean = {name: _mean(_array(scores, name)) for name in get_args(Score)}
    chosen = mean["retrieval_score"] >= threshold - _ROUNDING
    mean["activation_frequency"] = mean.pop("active")
    numbers = {
        "prompts": scores.sizes["prompt"],
        "found": int(scores["found"].sum()),
        "answered": int((scores["success"] & scores["found"]).sum()),
        "share": float(chosen.mean()),
    }
    return xr.Dataset({**mean, "is_retrieval_head": chosen, **numbers}).assign_attrs(
        threshold=threshold, **{n: v for n, v in scores.attrs.items() if n.startswith("model_")}
    )


def retrieval_histogram(
    scores: xr.Dataset | xr.DataArray,
    *,
    edges: Sequence[float] = _EDGES,
    score: Score = "retrieval_score",
) -> xr.DataArray:
    """Count heads by mean score: exactly 0, and between edges, the lower edge included.

    Args:
        scores: as for `retrieval_heads`.
        edges: rising numbers above 0; with the published ones, 0.1 and 0.5, the counts are of
            heads that never copy, of weak ones, of retrieval heads and of strong ones.
        score: which variable of a result is averaged.

    Returns:
        Counts of the axis `bin`, named in words, with coordinates `low` and `high`.

    Raises:
        OptionError: edges that do not rise, or a result without such scores.
    """
    for edge in edges:
        check_number("edges", edge)
    if not len(edges) or edges[0] <= 0 or any(a >= b for a, b in pairwise(edges)):
        raise OptionError(
            f"edges={tuple(edges)!r}. Allowed: rising numbers above 0, such as (0.1, 0.5). "
            "Give them in order."
        )
    values = _mean(_array(scores, score)).values
    values = values[~np.isnan(values)]
    bounds = [0.0, *map(float, edges), np.inf]
    reached = [int((values >= low - _ROUNDING).sum()) for low in bounds[1:-1]]
    zero = int((values == 0).sum())
    upper = [len(values) - zero, *reached]
    counts = [zero, *(a - b for a, b in zip(upper, [*reached, 0], strict=True))]
    names = ["0", f"above 0, below {edges[0]:g}"]
    names += [f"{low:g} to below {high:g}" for low, high in pairwise(edges)]
    names += [f"{edges[-1]:g} and more"]
    return xr.DataArray(
        counts,
        {"bin": names, "low": ("bin", [0.0, *bounds[:-1]]), "high": ("bin", [0.0, *bounds[1:]])},
        "bin",
        "heads",
        {"units": "heads"},
    )


def retrieval_stability(
    scores: xr.Dataset,
    k: int = 10,
    *,
    score: Score = "retrieval_score",
    cluster: str | None = None,
    splits: int = 200,
    seed: int = 0,
) -> xr.Dataset:
    """Compare the strongest heads between lengths, between depths, and between halves of prompts.

    Args:
        scores: a result of `retrieval_score`.
        k: how many heads are compared.
        score: which variable is averaged.
        cluster: coordinate of the prompts that fall into one half together, such as `group`.
        splits: random halves.
        seed: of the halves.

    Returns:
        Dataset of the axis `case`: `length` and `depth` (each value with each other, where there
        are several) and `halves`: `overlap`, the mean share of the k heads in common; `chance`,
        that of heads named at random; `rank_correlation`, Spearman's, over all heads; `frequency`
        of (case, layer, head), how often a head is among the k.

    Raises:
        OptionError: no such result, too few prompts with a score, or k not below the number of
            heads.
    """
    array = _scored(_array(scores, score), score)
    parts: dict[str, xr.Dataset] = {}
    for name in ("length", "depth"):
        if name in array.coords and len(np.unique(array[name].dropna("prompt"))) > 1:
            means = array.groupby(name).mean("prompt")
            if means.sizes[name] > 1:
                parts[name] = top_k_stability(means, k, over=name)
    halves = split_half_stability(array, k, cluster=cluster, splits=splits, seed=seed)
    parts["halves"] = halves.mean("draw")
    joined = xr.concat(
        [part.reset_coords(drop=True) for part in parts.values()],
        xr.DataArray(list(parts), dims="case", name="case"),
        coords="minimal",
        compat="override",
    )
    return joined.drop_attrs(deep=False).assign_attrs(k=k, score=score, splits=splits)


def compare_rankings(
    ours: xr.Dataset | xr.DataArray,
    others: xr.Dataset | xr.DataArray,
    *,
    k: int = 10,
    score: Score = "retrieval_score",
) -> xr.Dataset:
    """Compare two rankings of the same heads, such as our own and a published one.

    Args:
        ours: a result of `retrieval_score`, one array of axes (prompt,) layer, head, or what
            `ml.prompts.read_head_scores` gives.
        others: the same of another run, model or publication.
        k: how many of the strongest heads are compared.
        score: which variable of a result is averaged.

    Returns:
        Dataset of numbers: `rank_correlation` (Spearman's, ties share their mean rank) and
        `correlation` (Pearson's) over the `heads` that have a score in both; `overlap`, the share
        of the k strongest in common; `chance`, what heads named at random would share.

    Raises:
        OptionError: grids of different shape, or k not below the number of heads in both.
    """
    check_whole("k", k, at_least=1)
    a, b = (_mean(_array(one, score)).transpose("layer", "head") for one in (ours, others))
    if a.shape != b.shape:
        raise OptionError(
            f"rankings of {a.shape} and {b.shape} (layers, heads). Allowed: the same grid. "
            "Compare models of one shape."
        )
    both = ~np.isnan(a.values) & ~np.isnan(b.values)
    if k >= (number := int(both.sum())):
        raise OptionError(
            f"k={k} of {number} heads with a score in both. Allowed: fewer. Take a smaller k."
        )
    here, there = a.values[both], b.values[both]
    constant = np.ptp(here) == 0 or np.ptp(there) == 0
    tops = [set(top_heads(one.where(both), k=k)) for one in (a.copy(), b.copy())]
    return xr.Dataset(
        {
            "rank_correlation": np.nan if constant else float(stats.spearmanr(here, there)[0]),
            "correlation": np.nan if constant else float(np.corrcoef(here, there)[0, 1]),
            "overlap": len(tops[0] & tops[1]) / k,
            "chance": k / number,
            "heads": number,
        },
        attrs={"k": k},
    )


def _array(scores: object, name: str) -> xr.DataArray:
    """Return scores of the axes (prompt,) layer, head.

    Raises:
        OptionError: when there are none.
    """
    if not isinstance(name, str) or name not in get_args(Score):
        raise OptionError(f"score={name!r}. Allowed: {', '.join(get_args(Score))}. Choose one.")
    array: Any = scores
    if isinstance(scores, xr.Dataset):
        array = scores.get(name)
    dims = set(array.dims) if isinstance(array, xr.DataArray) else set()
    if not {"layer", "head"} <= dims <= {"prompt", "layer", "head"}:
        raise OptionError(
            f"{type(scores).__name__} with axes {tuple(getattr(scores, 'dims', ()))} holds no "
            f"{name}. Allowed: a result of retrieval_score, or an array of axes (prompt,) layer "
            "and head. Give one of these."
        )
    found: xr.DataArray = array.astype(float)
    return found


def _scored(array: xr.DataArray, name: str) -> xr.DataArray:
    """Return the prompts that have a score.

    Raises:
        OptionError: when these are too few to be compared with each other.
    """
    if "prompt" not in array.dims:
        raise OptionError(
            f"scores with axes {tuple(map(str, array.dims))} cannot be compared between prompts. "
            "Allowed: with the axis prompt. Do not average them before."
        )
    found = array.dropna("prompt", how="all")
    if found.sizes["prompt"] < 2:
        raise OptionError(
            f"{found.sizes['prompt']} of {array.sizes['prompt']} prompts have a {name}. Allowed: "
            "at least 2. Take prompts that the model answers, or score='retrieval_score_all'."
        )
    return found


def _mean(array: xr.DataArray) -> xr.DataArray:
    return array.mean("prompt") if "prompt" in array.dims else array
