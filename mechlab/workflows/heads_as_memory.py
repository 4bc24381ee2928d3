"""`memory_heads`: what each head does as memory, in one result: scores, lag curve, context fit."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mechlab.engine import check_choice, check_whole, require_heads
from mechlab.engine.options import HINTS
from mechlab.errors import OptionError, SiteError
from mechlab.methods import attention_by_lag, copying_scores, induction_scores
from mechlab.methods.cmr import cmr_null, cmr_p_value, fit_cmr, gaussian_fit
from mechlab.methods.induction.lags import check_lags
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import PromptSet, TokenList, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["fitted_with_nulls", "memory_heads"]

_FITTED = 5
"""The context model is fitted over lags up to this one on either side."""
NULLS: tuple[Literal["matched", "walk"], ...] = ("matched", "walk")
_SCORES = ("prefix_matching", "previous_token", "duplicate_token")
_BY_LAG = ("curve", "sem_prompts", "sem_tokens", "primacy", "recency", "contiguity", "asymmetry")


@analysis(version=1, prompt_kind="tokens", default_plot="head_grid", per_prompt=False)
def memory_heads(
    model: "Model",
    repeats: PromptSet[Any] | Sequence[TokenList] | TokenList,
    *,
    source: Literal["scores", "pattern"] = "scores",
    max_lag: int = 5,
    candidates: int = 50,
    null_draws: int = 1000,
    seed: int = 0,
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Score every head as memory: induction, copying, attention by lag, and the context model.

    The measures that Ji-An et al. 2024 (arXiv 2405.14992) compare, side by side: a small CMR
    distance says nothing without matching score, peak lag and a null.

    Args:
        model: a decoder with attention.
        repeats: lists of `ml.prompts.repeated_tokens`, longer than `max_lag`.
        source: what the lag curve averages: attention `scores` before the softmax, as published, or
            the `pattern` after it.
        max_lag: largest lag of the curve, at least 5; the fit takes 5 on either side.
        candidates: near-optimal cells that are listed per head.
        null_draws: curves without memory whose distances give p-values.
        seed: of nulls and intervals.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        progress: called after each batch; may raise `Cancelled`.

    Returns:
        Dataset over `[layer, head]` with

        - `prefix_matching`, `previous_token`, `duplicate_token` `[prompt, layer, head]` and their
          standard errors (`ml.induction_scores`); `copying`, the OV eigenvalue score of the full
          product (`ml.copying_scores`), with the coordinate `copying_status`;
        - `curve`, `sem_prompts`, `sem_tokens` `[layer, head, lag]`; `primacy`, `recency`,
          `contiguity`, `asymmetry` `[prompt, layer, head]`, each with `_low` and `_high`
          (`ml.attention_by_lag`);
        - all of `ml.fit_cmr(curve)` but its asymmetry: `distance`, `beta_enc`, `beta_rec`,
          `gamma_ft`, `scale`, `ls_distance`, `peak_lag`, `near_optimal`, `prediction`, `near_*`,
          with the coordinate `status`; `gaussian_distance`, the same of a Gaussian bump;
        - `p_matched`, `p_walk`: how often noise with the autocorrelation of the curves, or a random
          walk, fits at least as well (`ml.cmr_p_value`); not corrected for the number of heads.

    Raises:
        OptionError: options out of range, such as lags beyond the list.
        SiteError: a model without attention.
        PromptError: lists that cannot be read.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    options = {n: v for n, v in locals().items() if n not in {*HINTS, "repeats"}}
    require_heads(model, "models with attention")
    lists = as_prompt_set(repeats, kind="tokens")
    _check(source, max_lag, candidates, null_draws, seed, lists)
    total = 2 * len(lists)
    runs: dict[str, Any] = {"max_batch": max_batch}
    scores = induction_scores(model, lists, progress=_from(progress, 0, total), **runs)
    runs |= {"source": source, "max_lag": max_lag, "seed": seed}
    by_lag = attention_by_lag(model, lists, progress=_from(progress, len(lists), total), **runs)
    copying, told = _copying(model)
    curve = by_lag.curve.assign_attrs(source=source)
    fitted = fitted_with_nulls(curve, candidates=candidates, draws=null_draws, seed=seed)
    fitted = fitted.drop_vars("asymmetry")  # that of the prompts, with intervals, is kept
    return new_result(
        {
            **_bare(_shares(scores)),
            "copying": (("layer", "head"), copying, {"units": ""}),
            **_bare(by_lag[_kept(by_lag)]),
            **_bare(fitted),
        },
        {
            "prompt": list(lists.labels),
            **{n: by_lag[n].values for n in ("layer", "head", "lag")},
            "candidate": fitted.candidate.values,
            "status": (("layer", "head"), fitted.status.values.astype(str)),
            "copying_status": (("layer", "head"), told),
        },
        method="memory_heads",
        version=1,
        model=model,
        prompts=lists,
        options=options,
        seed=seed,
        started=started,
    ).assign_attrs(source=source, interval_status=by_lag.attrs["interval_status"])


def _check(
    source: str, max_lag: int, candidates: int, null_draws: int, seed: int, lists: PromptSet[Any]
) -> None:
    check_choice("source", source, ("scores", "pattern"))
    check_whole("max_lag", max_lag, at_least=_FITTED)
    check_lags(max_lag, lists)
    check_whole("candidates", candidates, at_least=1)
    check_whole("null_draws", null_draws, at_least=1)
    check_whole("seed", seed, at_least=0)


def _from(progress: ProgressCallback | None, start: int, total: int) -> ProgressCallback | None:
    """Return a callback that counts on from `start`."""
    if progress is None:
        return None
    return lambda one: progress(Progress(start + one.done, total, "prompts"))


def _shares(scores: xr.Dataset) -> xr.Dataset:
    """Return the scores, said to be shares, so that they are drawn from 0 to 1."""
    names = [name for name in scores.data_vars if str(name).startswith(_SCORES)]
    return xr.Dataset(
        {name: scores[name].assign_attrs(units="share of attention") for name in names}
    )


def _copying(model: "Model") -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the copying score of every head, and `ok` or why there is none."""
    try:
        found = copying_scores(model)
    except SiteError as error:
        shape = (model.n_layers, model.n_heads or 0)
        return np.full(shape, np.nan), np.full(shape, str(error).split("\n")[0])
    return found.copying.values, found.status.values


def fitted_with_nulls(
    curve: xr.DataArray, *, candidates: int = 50, draws: int = 1000, seed: int = 0
) -> xr.Dataset:
    """Return `ml.fit_cmr` of lag curves with what is needed to judge it.

    Args:
        curve: any axes and `lag`.
        candidates: near-optimal cells that are listed.
        draws: of each null.
        seed: of the nulls.

    Returns:
        The fit with `gaussian_distance`, `p_matched` and `p_walk` besides.

    Raises:
        OptionError: as `ml.fit_cmr`.
    """
    fit = fit_cmr(curve, candidates=candidates)
    found = {"gaussian_distance": gaussian_fit(curve).distance}
    for kind in NULLS:
        try:
            null = cmr_null(kind, draws, curves=curve, seed=seed)
        except OptionError:  # not one curve has a shape, and no fit a distance
            found[f"p_{kind}"] = xr.full_like(fit.distance, np.nan)
            continue
        found[f"p_{kind}"] = cmr_p_value(fit.distance, null)
    return fit.assign({name: (one.dims, one.values, {"units": ""}) for name, one in found.items()})


def _kept(by_lag: xr.Dataset) -> list[str]:
    """Return the names of curve and indices, with their intervals."""
    names = [str(name) for name in by_lag.data_vars]
    return [one for one in names if one.removesuffix("_low").removesuffix("_high") in _BY_LAG]


def _bare(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the variables without their coordinates."""
    return {str(name): dataset[name].variable for name in dataset.data_vars}
