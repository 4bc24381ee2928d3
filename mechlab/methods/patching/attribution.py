"""`attribution_patch`: what activation patching would give, estimated by gradients."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechlab import engine
from mechlab.axes import Head
from mechlab.engine import Gradient
from mechlab.engine.options import HINTS
from mechlab.engine.positions import PositionOption
from mechlab.hooks import SITES, Place
from mechlab.methods.patching.plan import PairPlan, check_pairs, prepare
from mechlab.metrics import Metric
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import PromptPair, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["attribution_patch"]

PAIRS_AT_ONCE = 4


@analysis(
    version=1, prompt_kind="pair", default_plot="head_grid", check=check_pairs, lists=("positions",)
)
def attribution_patch(
    model: "Model",
    pairs: PromptSet[Any] | Sequence[PromptPair] | PromptPair,
    *,
    site: str = "z",
    by: Literal["head", "kv_head", "layer"] = "head",
    layers: Sequence[int] | None = None,
    heads: Sequence[Head | str] | None = None,
    positions: PositionOption = "all",
    direction: Literal["denoising", "noising"] = "denoising",
    metric: str | Metric = "logit_diff",
    steps: int = 1,
    epsilon: float = 1e-4,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Estimate the effects of `activation_patch` from gradients: a screen for the exact patch.

    Nanda 2023 (attribution patching); Hanna et al. 2024 (integrated gradients, "EAP-IG", here on
    activations). With g the gradient of the metric with respect to the site and d the difference
    between the other run's value and this run's, a cell's estimate is the sum of g * d over it:
    three passes per pair for all cells.

    Args:
        model: as in `activation_patch`.
        pairs: likewise.
        site: likewise, but not `scores`.
        by: likewise.
        layers: likewise.
        heads: likewise.
        positions: likewise.
        direction: likewise.
        metric: likewise; it must have a gradient.
        steps: with 1 the gradient of the unpatched run. With more, for each layer the mean of the
            gradients at `steps` midpoints of the straight line from this run's value of the site
            to the other's, all heads and chosen positions of the layer moving together; the
            estimates of a layer then add up to the exact effect of patching all of it, to second
            order in 1 / `steps`. One forward and backward pass per pair, layer and step.
        epsilon: as in `activation_patch`.
        progress: called after every pair; may raise `Cancelled`.

    Returns:
        Dataset as of `activation_patch`: `effect`, `recovered`, `clean_metric` and
        `corrupted_metric`, the first two estimated.

    Raises:
        OptionError: as in `activation_patch`, or a metric without a gradient, or `steps` below 1.
        SiteError, PromptError, Cancelled: as in `activation_patch`; `scores` are refused, as those
            of future positions are minus infinity and have no difference.

    Differs from the papers: estimates are signed and per prompt; integrals by the midpoint rule,
    along the site's own activations rather than along embeddings.
    """
    started, positions = time.time(), engine.plain_positions(positions)
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.check_whole("steps", steps, at_least=1)
    prompts = as_prompt_set(pairs, kind="pair")
    plan = prepare(
        model,
        prompts,
        site=site,
        by=by,
        layers=layers,
        heads=heads,
        positions=positions,
        direction=direction,
        metric=metric,
        epsilon=epsilon,
    )
    engine.check_differentiable(metric)
    engine.check_choice("site", site, [name for name in SITES if name not in ("scores", "embed")])
    checks = engine.verify(model)
    engine.require_proven(model, [site])
    unpatched: list[float] = []
    source: list[float] = []
    estimates: list[float] = []
    for pair, (here, there, deltas, slopes) in enumerate(_pairs(model, plan, int(steps))):
        unpatched.append(here)
        source.append(there)
        estimates += _cells(plan, pair, deltas, slopes)
        if progress is not None:
            progress(Progress(pair + 1, len(prompts), "pairs"))
    effect = plan.grid.arrange(np.array(estimates, np.float32), plan.targets[1])[..., 0]
    return new_result(
        plan.variables(np.array(unpatched, np.float32), np.array(source, np.float32), effect),
        plan.coordinates(model),
        method="attribution_patch",
        version=1,
        model=model,
        prompts=prompts,
        options=options,
        seed=None,
        started=started,
        checks={"verify": checks.summary()},
    )


Slopes = dict[Place, Tensor]


def _pairs(
    model: "Model", plan: PairPlan, steps: int
) -> Iterator[tuple[float, float, Slopes, Slopes]]:
    """Yield per pair both metrics, the difference of the sites, and the gradient along it.

    Both runs of a pair go through the same forward passes, so that equal prompts differ by nothing.
    """
    places: list[Place] = [(plan.grid.site, layer) for layer in plan.grid.layers]
    targets, sources = plan.targets[0], plan.sources[0]
    texts = [text for pair in zip(targets, sources, strict=True) for text in pair]
    answers = [pair for pair in plan.scored.answers for _ in range(2)]
    runs = engine.gradients(
        model, texts, places, metric=plan.metric, answers=answers, at_once=2 * PAIRS_AT_ONCE
    )
    for pair, (here, there) in enumerate(zip(runs, runs, strict=True)):
        deltas = {place: _difference(plan, pair, here, there, place) for place in places}
        slopes = here.gradients
        if steps > 1:
            slopes = {
                place: _mean_slope(model, plan, pair, place, deltas[place], steps)
                for place in places
            }
        yield here.metric, there.metric, deltas, slopes


def _difference(plan: PairPlan, pair: int, here: Gradient, there: Gradient, place: Place) -> Tensor:
    """Return what patching would add to a site at the chosen positions, zero elsewhere."""
    mine, other = here.values[place], there.values[place]
    positions, length = plan.grid.positions, plan.targets[1][pair]
    if positions.each or (cell := positions.cells(length, pair)[0]) is None:
        return other - mine
    axis = 1 if SITES[place[0]].axes == "bhqk" else 0
    delta = torch.zeros_like(mine)
    for pos, at in zip(cell, positions.sources(cell, plan.sources[1][pair], pair), strict=True):
        assert at is not None  # positions that are listed have one to correspond to
        delta.select(axis, pos).copy_(other.select(axis, at) - mine.select(axis, pos))
    return delta


def _mean_slope(
    model: "Model", plan: PairPlan, pair: int, place: Place, delta: Tensor, steps: int
) -> Tensor:
    """Return the gradient averaged over the line from the unpatched to the patched layer."""
    fractions = [(step + 0.5) / steps for step in range(steps)]
    runs = engine.gradients(
        model,
        [plan.targets[0][pair]] * steps,
        [place],
        metric=plan.metric,
        answers=[plan.scored.answers[pair]] * steps,
        offsets={place: [fraction * delta for fraction in fractions]},
    )
    return sum((run.gradients[place] for run in runs), torch.zeros_like(delta)) / steps


def _cells(plan: PairPlan, pair: int, deltas: Slopes, slopes: Slopes) -> Iterator[float]:
    """Yield the estimates of a pair in the order unit, cell."""
    square = SITES[plan.grid.site].axes == "bhqk"
    products = {
        place: _by_head_and_position(deltas[place] * slopes[place], square) for place in deltas
    }
    cells = plan.grid.positions.cells(plan.targets[1][pair], pair)
    for unit in plan.grid.units:
        ((layer, head),) = unit.places
        product = products[plan.grid.site, layer]
        product = product.sum(1) if head is None else product[:, head]
        for cell in cells:
            yield float(product.sum() if cell is None else product[list(cell)].sum())


def _by_head_and_position(product: Tensor, square: bool) -> Tensor:
    """Return a product of site values as `[pos, head]`, float64."""
    product = product.double()
    if square:
        return product.sum(-1).T
    return product.sum(-1) if product.ndim == 3 else product.sum(-1, keepdim=True)
