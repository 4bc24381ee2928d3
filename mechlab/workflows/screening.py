"""A screen by gradients, and its verification by exact patching."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from scipy import stats

from mechlab import engine
from mechlab.axes import Head
from mechlab.engine import Positions
from mechlab.engine.options import HINTS
from mechlab.engine.positions import PositionOption
from mechlab.errors import OptionError
from mechlab.methods import activation_patch, attribution_patch
from mechlab.metrics import Metric
from mechlab.progress import ProgressCallback
from mechlab.prompts import PromptPair, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["screen_then_verify"]


@analysis(version=1, prompt_kind="pair", default_plot="head_grid", per_prompt=False)
def screen_then_verify(
    model: "Model",
    pairs: PromptSet[Any] | Sequence[PromptPair] | PromptPair,
    *,
    k: int = 10,
    sample: int = 10,
    seed: int = 0,
    site: str = "z",
    by: Literal["head", "kv_head"] = "head",
    layers: Sequence[int] | None = None,
    positions: PositionOption = "all",
    direction: Literal["denoising", "noising"] = "denoising",
    metric: str | Metric = "logit_diff",
    steps: int = 1,
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Screen all heads by gradients, patch the best ones exactly, and say how far to trust it.

    `attribution_patch` ranks the heads by the size of their mean estimate; `activation_patch` is
    run on the first `k` of them and on `sample` heads drawn from the rest, which show what the
    screen missed. Rank agreement is Spearman's, between estimates and exact effects of the heads
    that were patched, averaged over prompts.

    Args:
        model: a decoder with attention.
        pairs: clean and corrupted prompts with their answers.
        k: heads to verify, from the top of the screen.
        sample: heads to verify besides, drawn at random from the others (all of them, if fewer).
        seed: decides that draw.
        site: `z`, `q`, `k`, `v` or `pattern`.
        by: `head`, or `kv_head` for `k` and `v`.
        layers: layers to screen; all by default.
        positions: as in `activation_patch`, but not `each`.
        direction: as in `activation_patch`.
        metric: as in `attribution_patch`.
        steps: as in `attribution_patch`.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        progress: called by either method in its own units; may raise `Cancelled`.

    Returns:
        Dataset with `estimate[prompt, layer, head]` of every head and `effect[prompt, layer, head]`
        of those patched (NaN elsewhere), in units of the metric; `chosen[layer, head]`: `top`,
        `sample` or empty; `rank_agreement`, of all heads patched, `rank_agreement_top` and
        `rank_agreement_sample`, of either part (NaN for fewer than 3 heads), and `missed`, how many
        of the sample have a larger mean effect in size than the smallest of the top ones. With
        `by="kv_head"` the axis is `kv_head`.

    Raises:
        OptionError, SiteError, PromptError, Cancelled: as the two methods do; or `k` and `sample`
            that are no whole numbers, `k` at least 1.
    """
    started, positions = time.time(), engine.plain_positions(positions)
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.require_heads(model)
    engine.check_whole("k", k, at_least=1)
    engine.check_whole("sample", sample, at_least=0)
    engine.check_whole("seed", seed, at_least=0)
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    engine.check_choice("by", by, ("head", "kv_head"))
    if Positions.make(positions).each:
        raise OptionError(
            "positions='each' gives no ranking of heads. Allowed: 'all', 'last', or a list of "
            "positions together. Choose one of these."
        )
    prompts = as_prompt_set(pairs, kind="pair")
    screen = attribution_patch(
        model,
        prompts,
        site=site,
        by=by,
        layers=layers,
        positions=positions,
        direction=direction,
        metric=metric,
        steps=steps,
        progress=progress,
    )
    top, drawn = _choose(screen.effect, by, k, sample, seed)
    exact = activation_patch(
        model,
        prompts,
        site=site,
        by=by,
        heads=[*top, *drawn],
        positions=positions,
        direction=direction,
        metric=metric,
        max_batch=max_batch,
        progress=progress,
    )
    effect = exact.effect.reindex(layer=screen.layer)
    result = new_result(
        {
            "estimate": screen.effect,
            "effect": effect.assign_attrs(screen.effect.attrs),
            "chosen": (("layer", by), _labels(screen, by, top, drawn)),
            "clean_metric": exact.clean_metric,
            "corrupted_metric": exact.corrupted_metric,
            **_agreement(screen.effect, effect, by, top, drawn),
        },
        method="screen_then_verify",
        version=1,
        model=model,
        prompts=prompts,
        options=options,
        seed=seed,
        started=started,
        checks={"verify": engine.verify(model).summary()},
    )
    return result.assign_attrs(engine_mode=exact.attrs["engine_mode"])


def _choose(
    estimate: xr.DataArray, by: str, k: int, sample: int, seed: int
) -> tuple[list[Head], list[Head]]:
    """Return the heads with the largest mean estimates in size, and a draw from the others."""
    size = np.abs(estimate.mean("prompt").transpose("layer", by).values)
    layers = [int(layer) for layer in estimate.layer.values]
    order = np.argsort(-size, axis=None, kind="stable")
    at = np.unravel_index(order, size.shape)
    ranked = [Head(layers[i], int(h)) for i, h in zip(*at, strict=True)]
    rest = ranked[k:]
    random = np.random.default_rng(seed)
    drawn = random.permutation(len(rest))[:sample]
    return ranked[:k], sorted(rest[i] for i in drawn)


def _labels(screen: xr.Dataset, by: str, top: Sequence[Head], drawn: Sequence[Head]) -> np.ndarray:
    row = {int(layer): i for i, layer in enumerate(screen.layer.values)}
    labels = np.full((screen.sizes["layer"], screen.sizes[by]), "", dtype="<U6")
    for name, group in (("top", top), ("sample", drawn)):
        for head in group:
            labels[row[head.layer], head.head] = name
    return labels


def _agreement(
    estimate: xr.DataArray,
    effect: xr.DataArray,
    by: str,
    top: Sequence[Head],
    drawn: Sequence[Head],
) -> dict[str, xr.DataArray]:
    """Return how well the ranks of estimates and effects agree, and what the screen missed."""
    guess, exact = estimate.mean("prompt"), effect.mean("prompt")

    def values(array: xr.DataArray, group: Sequence[Head]) -> np.ndarray:
        return np.array([float(array.sel({"layer": h.layer, by: h.head})) for h in group])

    found = {
        name: xr.DataArray(_spearman(values(guess, group), values(exact, group)))
        for name, group in (
            ("rank_agreement", [*top, *drawn]),
            ("rank_agreement_top", top),
            ("rank_agreement_sample", drawn),
        )
    }
    least = np.abs(values(exact, top)).min()
    missed = int((np.abs(values(exact, drawn)) > least).sum())
    return {**found, "missed": xr.DataArray(missed)}


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation, NaN where it means nothing."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(stats.spearmanr(a, b).statistic)
