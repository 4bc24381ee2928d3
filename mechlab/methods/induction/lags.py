"""`attention_by_lag`: how heads attend around the earlier occurrence of the token they read."""

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mechlab import engine
from mechlab.engine.options import HINTS
from mechlab.errors import OptionError
from mechlab.methods.induction.ablating import Ablation, Average, Names, Runner, prepared
from mechlab.methods.induction.cells import Cells, Moments, mean_of_known, read_cells
from mechlab.methods.induction.intervals import intervals
from mechlab.methods.induction.rows import Laid, lay_out, lay_out_controls
from mechlab.methods.induction.scores import refuse_unrepeated
from mechlab.models import chosen_heads
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import PromptSet, TokenList, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["attention_by_lag", "check_lags"]

Array = np.ndarray[Any, Any]
Source = Literal["scores", "pattern"]
END = 0.05
"""Share of the list that counts as its beginning, and as its end."""
INDICES = ("primacy", "recency", "contiguity", "asymmetry")


@analysis(version=1, prompt_kind="tokens", default_plot="lines", per_prompt=False)
def attention_by_lag(
    model: "Model",
    prompts: PromptSet[Any] | Sequence[TokenList] | TokenList,
    *,
    heads: Names | None = None,
    source: Source = "scores",
    max_lag: int = 5,
    near: int = 2,
    far: int = 4,
    baseline: Literal["no_repeat"] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    ablate: Names | None = None,
    ablation: Ablation = "zero",
    reference: PromptSet[Any] | None = None,
    average: Average = "over_positions",
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Measure attention from a repeated token to its list, by distance from where it stood there.

    Ji-An et al. 2024 (arXiv 2405.14992): lag = place of the key - place of the query's earlier
    occurrence, so that 0 is the same token, +1 the token that followed it (induction), -1 the one
    before it. They average pre-softmax scores over one list that is read twice; Mistry et al. 2025
    (arXiv 2502.06902) average patterns over probes.

    Args:
        model: a decoder with attention.
        prompts: lists of `ml.prompts.repeated_tokens` (the first repetition is read) or of
            `ml.prompts.single_probe_lists`. Lists of one `group` count as one for SEM and
            intervals.
        heads: query heads to measure; others are NaN. All by default.
        source: `scores` before the softmax, as they enter it; or the `pattern` after it.
        max_lag: largest lag on either side.
        near: `contiguity` is the mean over the lags 1 to this,
        far: minus the mean over the lags from this on, on both sides.
        baseline: `no_repeat` measures each list once more with tokens after it that are not in it,
            at the same places; `contiguity` and `asymmetry` are then those of the difference.
        confidence: of the intervals.
        resamples: bootstrap samples of the intervals.
        seed: of the bootstrap.
        ablate: as for `induction_scores`.
        ablation: as for `induction_scores`.
        reference: as for `induction_scores`.
        average: as for `induction_scores`.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        progress: called after each batch; may raise `Cancelled`.

    Returns:
        Dataset with `curve[layer, head, lag]`, the mean over all probes of all lists that have a
        token at that lag; `sem_prompts` over lists and `sem_tokens` over probes, of the same axes;
        `curve_by_prompt[prompt, layer, head, lag]`; `baseline` and `corrected` (`curve` minus
        `baseline`), NaN without one; `normalised[layer, head, lag]`, of patterns alone, the curve
        divided by what it would be if probes were paired with random places of their list (1 for
        a head that does not look at the content); `serial_position[layer, head, input_position]`,
        mean attention on each place of the list. In units of attention (score or weight):
        `primacy`, `recency`, attention on the first and last 5 per cent of the list minus the rest,
        `contiguity`, and `asymmetry`, lag +1 minus lag -1, each `[prompt, layer, head]`; NaN where
        a list is too short for it. Each comes with the bootstrap interval of its mean,
        `<name>_low` and `<name>_high` `[layer, head]`, NaN below four independent lists, which the
        attribute `interval_status` says. Attributes `source`, `baseline_kind`.

    Raises:
        OptionError: an option out of range, such as lags beyond the list.
        SiteError: a model without attention, heads that it does not have, an unproven site.
        PromptError: lists without a repeat, longer than the context, beyond the pool, or without
            other tokens for the baseline.
        Cancelled: when `progress` asked to stop.

    Differs from the papers: intervals and the two baselines are added.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.require_heads(model, "models with attention")
    lists = as_prompt_set(prompts, kind="tokens")
    _check(source, max_lag, near, far, baseline, lists)
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    chosen = None if heads is None else chosen_heads(model, heads)
    laid = lay_out(model, lists)
    controls = lay_out_controls(model, lists) if baseline is not None else []
    refuse_unrepeated(lists)
    runner, sets = prepared(model, ablate, ablation, reference, average, [source])
    runner = runner.of(sets[-1].heads)
    runner.check_width([*laid, *controls])
    layers = range(model.n_layers) if chosen is None else sorted({head.layer for head in chosen})
    total = len(laid) + len(controls)
    parts = [
        _read(runner, rows, source, max_lag, layers, max_batch, _shifted(progress, start, total))
        for start, rows in ((0, laid), (len(laid), controls))
        if rows
    ]
    if chosen is not None:
        for part in parts:
            _keep_only(part, [(head.layer, head.head) for head in chosen])
    groups = lists.groups
    variables = _curves(parts, laid, groups, source, max_lag)
    variables |= _indices(parts, laid, max_lag, near, far, source)
    coords = {
        "prompt": list(lists.labels),
        "layer": np.arange(model.n_layers),
        "head": np.arange(model.n_heads or 0),
        "lag": np.arange(-max_lag, max_lag + 1),
        "input_position": np.arange(parts[0].columns.shape[-1]),
    }
    bounds, status = intervals(
        {name: xr.DataArray(variables[name][1], dims=variables[name][0]) for name in INDICES},
        groups,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    return new_result(
        variables | bounds,
        coords,
        method="attention_by_lag",
        version=1,
        model=model,
        prompts=lists,
        options=options,
        seed=seed,
        started=started,
    ).assign_attrs(
        source=source,
        baseline_kind=baseline or "none",
        interval_status=status,
        ablated="+".join(map(str, runner.heads)),
    )


def check_lags(max_lag: object, lists: PromptSet[TokenList]) -> None:
    """Refuse lags that are no whole number from 1, or beyond the shortest list (OptionError)."""
    engine.check_whole("max_lag", max_lag, at_least=1)
    shortest = min(len(one.source) for one in lists)
    if max_lag >= shortest:  # type: ignore[operator]
        raise OptionError(
            f"max_lag={max_lag} of lists of {shortest} tokens. Allowed: up to {shortest - 1}, as "
            "no two places are further apart. Lower it, or make longer lists."
        )


def _check(
    source: object,
    max_lag: int,
    near: int,
    far: int,
    baseline: object,
    lists: PromptSet[TokenList],
) -> None:
    engine.check_choice("source", source, ("scores", "pattern"))
    check_lags(max_lag, lists)
    engine.check_whole("near", near, at_least=1)
    engine.check_whole("far", far, at_least=1)
    if baseline is not None:
        engine.check_choice("baseline", baseline, ("no_repeat",))
    if near > max_lag:
        raise OptionError(f"near={near} beyond max_lag={max_lag}. Allowed: up to it. Lower near.")
    if far <= near:
        raise OptionError(f"far={far}, near={near}. Allowed: far beyond near. Raise far.")


def _shifted(report: ProgressCallback | None, start: int, total: int) -> ProgressCallback | None:
    if report is None:
        return None
    return lambda inner: report(Progress(start + inner.done, total, "prompts"))


def _read(
    runner: Runner,
    laid: Sequence[Laid],
    source: Source,
    max_lag: int,
    layers: Sequence[int],
    max_batch: int | None,
    report: ProgressCallback | None,
) -> Moments:
    return read_cells(
        runner,
        laid,
        lambda one: _cells(tuple(one.probes), one.front, one.length, max_lag),
        2 * max_lag + 1,
        site=source,
        layers=layers,
        columns=True,
        max_batch=max_batch,
        report=report,
    )


@lru_cache(maxsize=512)
def _cells(probes: tuple[tuple[int, int], ...], front: int, length: int, max_lag: int) -> Cells:
    """Return for each probe the keys around its place; lists of the same shape share them."""
    pairs = np.array(probes)
    lags = np.arange(-max_lag, max_lag + 1)
    place = pairs[:, 1, None] + lags
    query = np.broadcast_to(pairs[:, 0, None], place.shape)
    measure = np.broadcast_to(np.arange(len(lags)), place.shape)
    inside = (place >= 0) & (place < length)
    return Cells(query[inside], place[inside] + front, measure[inside])


def _keep_only(part: Moments, chosen: Sequence[tuple[int, int]]) -> None:
    other = np.ones(part.mean.shape[2:], dtype=bool)
    for layer, head in chosen:
        other[layer, head] = False
    part.mean[:, :, other] = np.nan
    part.squares[:, :, other] = np.nan
    part.columns[:, other] = np.nan


def _lag_last(values: Array) -> Array:
    """Return `[..., lag, layer, head]` with the lags behind."""
    return np.moveaxis(values, -3, -1)


def _curves(
    parts: Sequence[Moments],
    laid: Sequence[Laid],
    groups: Sequence[str],
    source: Source,
    max_lag: int,
) -> dict[str, Any]:
    main = parts[0]
    mean, token_sem = map(_lag_last, main.over_tokens())
    prompt_sem = _lag_last(main.over_groups(groups)[1])
    baseline = (
        _lag_last(parts[1].over_tokens()[0]) if len(parts) > 1 else np.full_like(mean, np.nan)
    )
    chance = _chance(main, laid, max_lag) if source == "pattern" else np.full_like(mean, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        normalised = np.where(chance > 0, mean / chance, np.nan)
        seen = ~np.isnan(main.columns)
        serial = np.nansum(main.columns, axis=0) / seen.sum(axis=0)
    cell, unit = ("layer", "head", "lag"), {"units": UNITS[source]}
    return {
        "curve": (cell, mean, {**unit, "source": source}),
        "sem_prompts": (cell, prompt_sem, unit),
        "sem_tokens": (cell, token_sem, unit),
        "curve_by_prompt": (("prompt", *cell), _lag_last(main.mean), unit),
        "baseline": (cell, baseline, unit),
        "corrected": (cell, mean - baseline, unit),
        "normalised": (cell, normalised, {"units": "times random pairing"}),
        "serial_position": (("layer", "head", "input_position"), serial, unit),
    }


UNITS = {"scores": "attention score", "pattern": "attention weight"}


def _chance(main: Moments, laid: Sequence[Laid], max_lag: int) -> Array:
    """Return the curve of probes paired with every place of their list alike, with lags behind.

    The key at lag l of a random place is uniform over the places that are l away from some place.
    """
    found = []
    for lag in range(-max_lag, max_lag + 1):
        total = np.zeros(main.mean.shape[2:])
        count = 0
        for one, column in zip(laid, main.columns, strict=True):
            keys = slice(max(0, lag), one.length + min(0, lag))
            probes = len(one.probes)
            total += probes * column[..., keys].mean(axis=-1)
            count += probes
        found.append(total / count)
    return np.stack(found, axis=-1)


def _indices(
    parts: Sequence[Moments],
    laid: Sequence[Laid],
    max_lag: int,
    near: int,
    far: int,
    source: Source,
) -> dict[str, Any]:
    """Return primacy, recency, contiguity and asymmetry per prompt."""
    curve = parts[0].mean if len(parts) == 1 else parts[0].mean - parts[1].mean
    lags = np.arange(-max_lag, max_lag + 1)
    ahead = curve[:, (lags >= 1) & (lags <= near)]
    away = curve[:, np.abs(lags) >= far]
    one_ahead, one_behind = curve[:, lags == 1][:, 0], curve[:, lags == -1][:, 0]
    places = [_ends(column, one.length) for one, column in zip(laid, parts[0].columns, strict=True)]
    primacy, recency = (np.stack(part) for part in zip(*places, strict=True))
    cell, unit = ("prompt", "layer", "head"), {"units": UNITS[source]}
    return {
        "primacy": (cell, primacy, unit),
        "recency": (cell, recency, unit),
        "contiguity": (cell, mean_of_known(ahead, 1) - mean_of_known(away, 1), unit),
        "asymmetry": (cell, one_ahead - one_behind, unit),
    }


def _ends(column: Array, length: int) -> tuple[Array, Array]:
    """Return primacy and recency of attention by place, `[..., place]`."""
    few = max(1, round(END * length))
    if length <= 2 * few:
        empty = np.full(column.shape[:-1], np.nan)
        return empty, empty
    middle = column[..., few : length - few].mean(axis=-1)
    first, last = column[..., :few].mean(axis=-1), column[..., length - few : length].mean(axis=-1)
    return first - middle, last - middle
