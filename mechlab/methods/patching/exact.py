"""`activation_patch`: put one activation of one run into another, exactly."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mechlab import engine
from mechlab.axes import Head
from mechlab.engine import Base, Row
from mechlab.engine.options import HINTS
from mechlab.engine.positions import PositionOption
from mechlab.hooks import Patch, Site
from mechlab.methods.patching.plan import PairPlan, check_pairs, prepare
from mechlab.metrics import Metric, kl_divergence, named_metric
from mechlab.progress import Journal, ProgressCallback
from mechlab.prompts import PromptPair, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["activation_patch"]


@analysis(
    version=1, prompt_kind="pair", default_plot="head_grid", check=check_pairs, lists=("positions",)
)
def activation_patch(
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
    epsilon: float = 1e-4,
    max_batch: int | None = None,
    mode: Literal["auto", "wavefront", "packed", "plain"] = "auto",
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> xr.Dataset:
    """Measure what replacing one activation by that of the other prompt of a pair does.

    Vig et al. 2020 (causal mediation, the indirect effect); Zhang and Nanda 2024 (best practices of
    activation patching: directions and metrics). One run per cell and prompt, by the engine.

    Args:
        model: any decoder on which `site` is proven (`verify`).
        pairs: clean and corrupted prompts with the answer that is right after each.
        site: what is replaced, such as `z`, `q`, `k`, `v`, `pattern`, `attn_out`, `mlp_out`,
            `mixer_out`, `resid_pre`, `resid_mid` or `resid_post`.
        by: one cell per query `head`, per `kv_head` (sites `k` and `v`), or per whole `layer`.
        layers: layers to patch; all by default.
        heads: heads to patch instead (`ml.Head` or `"L9H6"`; for `k` and `v` the second number is
            the kv_head); the other cells of their layers are NaN.
        positions: `all` positions of a cell together, `each` one in a cell of its own (axis `pos`),
            the `last`, a list of positions together, negative ones counted from the end, one such
            list per pair, or places by name (`"subject"`, `["s1", "io"]`, `"end"`; of a pair's
            `places`), which may stand elsewhere in the other prompt but are as long there. Pairs
            must have equally many tokens, unless all positions count from the end or have names.
        direction: `denoising` puts clean values into the corrupted run, `noising` corrupted values
            into the clean run.
        metric: a metric's name or a function; answers are those of the pair. `kl_divergence` is
            that of each run from the unpatched run of its pair, whose own is 0, as in `path_patch`.
        epsilon: where clean and corrupted metric differ by less, `recovered` is NaN.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        mode: how the engine runs; `plain` is the slow reference.
        progress: called between batches with a partial result; may raise `Cancelled`.
        journal: keeps finished batches, so that a killed run resumes.

    Returns:
        Dataset with `effect[prompt, layer, head or kv_head, pos]` (axes as asked for), the metric
        of the patched minus that of the unpatched run, in units of the metric; `recovered` of the
        same axes, the patched metric on a scale where the corrupted run is 0 and the clean run 1;
        `clean_metric[prompt]` and `corrupted_metric[prompt]`. A cell that was not run or does not
        exist is NaN.

    Raises:
        OptionError: an option outside its range or choices, or options that contradict.
        SiteError: a site that this model lacks or that is not proven; a layer or head it lacks.
        PromptError: pairs that do not align, or whose answers begin with the same token, or that
            cannot be tokenised; all offenders at once.
        Cancelled: when `progress` asked to stop.

    Differs from the papers: effects are kept per prompt and averaged, if at all, afterwards;
    `recovered` is a fraction of each prompt's own gap.
    """
    started, positions = time.time(), engine.plain_positions(positions)
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.check_choice("mode", mode, engine.MODES)
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
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
    checks = engine.verify(model)
    compares = named_metric(metric) is kl_divergence
    engine.require_proven(model, [site, *(["resid_post"] if compares else [])])
    bases, rows = _runs(plan)
    whole = _whole_patches(model, plan) if compares else []

    def dataset(read_bases: np.ndarray, read_rows: np.ndarray) -> xr.Dataset:
        """Arrange readings; called with the rows so far for a partial picture, and at the end."""
        unpatched, source = read_bases[0::2], read_bases[1::2]
        if whole:
            source = read_rows[len(rows) :]
        patched = plan.grid.arrange(read_rows[: len(rows)], plan.targets[1])[..., 0]
        effect = patched - unpatched.reshape(-1, *[1] * (patched.ndim - 1))
        return new_result(
            plan.variables(unpatched, source, effect),
            plan.coordinates(model),
            method="activation_patch",
            version=1,
            model=model,
            prompts=prompts,
            options=options,
            seed=None,
            started=started,
            checks={"verify": checks.summary()},
        )

    readings = engine.run(
        model,
        bases,
        [*rows, *whole],
        read=metric,
        answers=[pair for pair in plan.scored.answers for _ in range(2)],
        mode=mode,
        max_batch=max_batch,
        progress=progress,
        partial=dataset,
        journal=journal,
    )
    return dataset(readings.bases, readings.rows).assign_attrs(engine_mode=readings.mode)


def _runs(plan: PairPlan) -> tuple[list[Base], list[Row]]:
    """Return per pair the run that is patched and the run that values come from, and all rows."""
    bases: list[Base] = []
    rows: list[Row] = []
    runs = zip(*plan.targets, *plan.sources, strict=True)
    for pair, (target, length, source, source_length) in enumerate(runs):
        here = len(bases)
        bases += [Base(target, (), "patched"), Base(source, (), "source")]
        for unit in plan.grid.units:
            for cell in plan.grid.positions.cells(length, pair):
                sites = plan.grid.sites(unit, cell, length)
                read = plan.grid.sources(unit, cell, source_length, pair)
                steps = [
                    Patch(site, here + 1, None if at == site.pos else at)
                    for site, at in zip(sites, read, strict=True)
                ]
                rows.append(Row(here, tuple(steps)))
    return bases, rows


def _whole_patches(model: "Model", plan: PairPlan) -> list[Row]:
    """Return per pair the row that makes the patched run's output that of the source run.

    A divergence compares a row with the unpatched run of its own base; so the source run, to be
    measured from there, is a row itself: its final residual put in the place of the other's.
    """
    last = model.n_layers - 1
    return [
        Row(2 * i, (Patch(Site("resid_post", last, pos=here - 1), 2 * i + 1, there - 1),))
        for i, (here, there) in enumerate(zip(plan.targets[1], plan.sources[1], strict=True))
    ]
