"""`ablate`: remove what a component carries, and see what becomes of the answer."""

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from torch import Tensor

from mechlab import engine
from mechlab.axes import Head
from mechlab.engine import Base, Grid, Row
from mechlab.engine.options import HINTS
from mechlab.engine.positions import PositionOption
from mechlab.errors import OptionError
from mechlab.hooks import SITES, Ablate, Insert, Intervention, Patch
from mechlab.methods.ablation.reference import (
    Average,
    Reference,
    bank_name,
    draw_others,
    mean_banks,
)
from mechlab.metrics import Metric, named_metric, units_of
from mechlab.models import Scored, scored_prompts
from mechlab.progress import Journal, ProgressCallback
from mechlab.prompts import Fact, PromptPair, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["ablate"]

Kind = Literal["zero", "mean", "resample"]
Heads = Sequence[Head | str]


@dataclass(frozen=True)
class _Plan:
    """An ablation, checked; `draws` is 1 unless activations are resampled."""

    prompts: PromptSet[Any]
    scored: Scored
    grid: Grid
    kind: Kind
    reference: Reference | None
    average: Average
    draws: int
    seed: int


def _prepare(
    model: "Model",
    prompts: PromptSet[Any],
    *,
    site: str = "z",
    by: str = "head",
    layers: Sequence[int] | None = None,
    heads: Any = None,
    kind: Kind = "zero",
    reference: Any = None,
    average: Average = "by_position",
    positions: Any = "all",
    metric: str | Metric = "logit_diff",
    draws: int = 10,
    seed: int = 0,
) -> _Plan:
    """Check everything that can be checked without a forward pass."""
    if by in ("head", "kv_head", "set"):
        engine.require_heads(model)
    engine.check_choice("kind", kind, ("zero", "mean", "resample"))
    engine.check_choice("average", average, ("by_position", "over_positions"))
    engine.check_whole("draws", draws, at_least=1)
    engine.check_whole("seed", seed)
    named_metric(metric)
    grid = Grid.make(model, site=site, by=by, layers=layers, heads=heads, positions=positions)
    _check_site(site, kind)
    scored = scored_prompts(model, prompts, metric)
    grid = grid.within(model, prompts, scored.lengths)
    draws = draws if kind == "resample" else 1
    if kind == "zero":
        if reference is not None:
            raise OptionError(
                "kind='zero' reads no reference. Leave reference out, or change kind."
            )
        return _Plan(prompts, scored, grid, kind, None, average, draws, seed)
    pooled = kind == "mean" and average == "over_positions"
    fixed = grid.positions.aligned or grid.positions.by_prompt or SITES[site].axes == "bhqk"
    by_length = fixed and not pooled
    found = Reference.make(model, reference, by_length=by_length)
    found.check(grid.positions, scored.lengths)
    found.check_draws(scored.texts, scored.lengths, draws)
    return _Plan(prompts, scored, grid, kind, found, average, draws, seed)


def _check_site(site: str, kind: str) -> None:
    weights = SITES[site].axes == "bhqk"
    if site == "scores" or (weights and kind == "mean"):
        raise OptionError(
            f"kind={kind!r} of site {site!r}: scores of zero are still scores, and a mean of "
            "weights needs equal positions. Allowed: 'zero' or 'resample' of 'pattern', any kind "
            "of the other sites. Use ml.knockout to cut attention edges."
        )


def _check_all(model: "Model", prompts: PromptSet[Any], **options: Any) -> None:
    """Check a whole set, so that the store names all offenders before it computes the first."""
    known = inspect.signature(_prepare).parameters
    _prepare(model, prompts, **{name: value for name, value in options.items() if name in known})


@analysis(
    version=1, prompt_kind="any", default_plot="head_grid", check=_check_all, lists=("positions",)
)
def ablate(
    model: "Model",
    prompts: PromptSet[Any] | Sequence[PromptPair | Fact] | PromptPair | Fact,
    *,
    site: str = "z",
    by: Literal["head", "kv_head", "layer", "set"] = "head",
    layers: Sequence[int] | None = None,
    heads: Heads | Mapping[str, Heads] | None = None,
    kind: Kind = "zero",
    reference: PromptSet[Any] | Sequence[PromptPair | Fact] | None = None,
    average: Average = "by_position",
    positions: PositionOption = "all",
    metric: str | Metric = "logit_diff",
    draws: int = 10,
    seed: int = 0,
    max_batch: int | None = None,
    mode: Literal["auto", "wavefront", "packed", "plain"] = "auto",
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> xr.Dataset:
    """Measure the total effect of removing a component from plain runs.

    The kinds are those of McGrath et al. 2023 (the Hydra effect) and Wang et al. 2022 (IOI, mean
    ablation over a reference distribution).

    Args:
        model: any decoder on which `site` is proven (`verify`).
        prompts: facts, or pairs, whose clean prompts are run.
        site: what is removed, such as `z`, `v`, `pattern`, `attn_out`, `mlp_out` or `mixer_out`.
        by: one cell per query `head`, per `kv_head` (sites `k` and `v`), per whole `layer`, or per
            `set` of heads that are removed together.
        layers: layers to ablate; all by default.
        heads: heads to ablate instead (`ml.Head` or `"L9H6"`); with `by="set"` the one set, or a
            mapping from names to sets.
        kind: `zero`; `mean` over the reference prompts; `resample`, the value in one of them.
        reference: the prompts that stand in (clean prompts of pairs), for `mean` and `resample`. By
            position they must have as many tokens as the prompt, unless `positions` is one list
            that counts from the end; prompts of other lengths are not used for it. A resampled
            prompt is not drawn for itself unless nothing else is there.
        average: a mean `by_position`, or one `over_positions`, all tokens of all prompts pooled.
        positions: `all` positions of a cell together, `each` one in a cell of its own (axis `pos`),
            the `last`, a list of positions together, negative ones counted from the end, one such
            list per prompt, or places by name: those of a pair's `places`, `subject`,
            `first_subject` and `last_subject` of a fact, and `end`.
        metric: a metric's name or a function; `logit_diff` needs pairs. `kl_divergence` is that of
            the ablated run from the unpatched run.
        draws: different reference prompts drawn per prompt, for `resample`.
        seed: decides the draws, together with the text of the prompt alone.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        mode: how the engine runs; `plain` is the slow reference.
        progress: called between batches with a partial result; may raise `Cancelled`.
        journal: keeps finished batches, so that a killed run resumes.

    Returns:
        Dataset with `effect[prompt, layer, head or kv_head, pos]` (axes as asked for; `head_set` in
        place of layer and head with `by="set"`), the metric of the ablated minus that of the
        unpatched run, averaged over draws: negative where the component supports the answer;
        `patched` of the same axes and `draw` (one entry unless resampled), and `unpatched[prompt]`,
        all in units of the metric. The attributes `reference_digest` and `reference_prompts` say
        what stood in. A cell that was not run or does not exist is NaN.

    Raises:
        OptionError: an option outside its range or choices, or options that contradict.
        SiteError: a site that this model lacks or that is not proven; a layer or head it lacks.
        PromptError: prompts that cannot be tokenised or scored, or for which no reference prompt
            fits; all offenders at once.
        Cancelled: when `progress` asked to stop.

    Differs from the papers: the effect is patched minus unpatched, of the metric asked for (McGrath
    et al. take clean minus ablated, of centred logits).
    """
    started, positions = time.time(), engine.plain_positions(positions)
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.check_choice("mode", mode, engine.MODES)
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    chosen = as_prompt_set(prompts, kind="any")
    plan = _prepare(
        model,
        chosen,
        site=site,
        by=by,
        layers=layers,
        heads=heads,
        kind=kind,
        reference=reference,
        average=average,
        positions=positions,
        metric=metric,
        draws=draws,
        seed=seed,
    )
    checks = engine.verify(model)
    engine.require_proven(model, [site])
    banks, bases, rows = _runs(model, plan)
    count = len(chosen)

    def dataset(read_bases: np.ndarray, read_rows: np.ndarray) -> xr.Dataset:
        """Arrange readings; called with the rows so far for a partial picture, and at the end."""
        result = new_result(
            _variables(plan, read_bases[:count], read_rows, units_of(metric)),
            _coordinates(model, plan),
            method="ablate",
            version=1,
            model=model,
            prompts=chosen,
            options=options,
            seed=seed if kind == "resample" else None,
            started=started,
            checks={"verify": checks.summary()},
        )
        stood_in = plan.reference
        return result.assign_attrs(
            reference_digest="none" if stood_in is None else stood_in.prompts.digest,
            reference_prompts=0 if stood_in is None else len(stood_in.texts),
        )

    answers = [*plan.scored.answers, *[plan.scored.answers[0]] * (len(bases) - count)]
    readings = engine.run(
        model,
        bases,
        rows,
        read=metric,
        answers=answers,
        banks=banks,
        mode=mode,
        max_batch=max_batch,
        progress=progress,
        partial=dataset,
        journal=journal,
    )
    return dataset(readings.bases, readings.rows).assign_attrs(engine_mode=readings.mode)


def _runs(model: "Model", plan: _Plan) -> tuple[dict[str, Tensor], list[Base], list[Row]]:
    """Return banks of means, base runs (the prompts first), and rows by prompt, cell and draw."""
    bases = [Base(text) for text in plan.scored.texts]
    banks: dict[str, Tensor] = {}
    entry: dict[int, int] = {}
    place_of: dict[int, int] = {}  # reference prompt -> its base run
    if plan.kind == "mean" and plan.reference is not None:
        banks, entry = mean_banks(
            model, plan.reference, plan.grid, plan.scored.lengths, plan.average
        )
    rows = []
    for base, (text, length) in enumerate(zip(plan.scored.texts, plan.scored.lengths, strict=True)):
        drawn = [-1]
        if plan.kind == "resample" and plan.reference is not None:
            drawn = draw_others(plan.reference, text, length, draws=plan.draws, seed=plan.seed)
            for other in drawn:
                if other not in place_of:
                    place_of[other] = len(bases)
                    bases.append(Base(plan.reference.texts[other]))
        for unit in plan.grid.units:
            for cell in plan.grid.positions.cells(length, base):
                for other in drawn:
                    steps = _steps(plan, unit, cell, base, entry.get(length, 0), other, place_of)
                    rows.append(Row(base, steps))
    return banks, bases, rows


def _steps(
    plan: _Plan,
    unit: engine.Unit,
    cell: tuple[int, ...] | None,
    prompt: int,
    entry: int,
    other: int,
    place_of: Mapping[int, int],
) -> tuple[Intervention, ...]:
    """Return what one row changes."""
    sites = plan.grid.sites(unit, cell, plan.scored.lengths[prompt])
    if plan.kind == "zero":
        return tuple(Ablate(site) for site in sites)
    if plan.kind == "mean":
        return tuple(Insert(s, bank_name(s.layer or 0, s.head), entry) for s in sites)
    assert plan.reference is not None
    read = plan.grid.sources(unit, cell, plan.reference.lengths[other], prompt)
    return tuple(
        Patch(site, place_of[other], None if at == site.pos else at)
        for site, at in zip(sites, read, strict=True)
    )


def _variables(plan: _Plan, unpatched: np.ndarray, rows: np.ndarray, units: str) -> dict[str, Any]:
    patched = plan.grid.arrange(rows, plan.scored.lengths, plan.draws)
    mean = patched.mean(axis=-1, dtype=np.float64).astype(np.float32)
    effect = mean - unpatched.reshape(-1, *[1] * (mean.ndim - 1))
    attributes = {"units": units}
    return {
        "effect": (plan.grid.dims, effect, attributes),
        "patched": ((*plan.grid.dims, "draw"), patched, attributes),
        "unpatched": ("prompt", unpatched, attributes),
    }


def _coordinates(model: "Model", plan: _Plan) -> dict[str, Any]:
    tokens = [model.token_strings(text) for text in plan.scored.texts]
    return {
        "prompt": list(plan.prompts.labels),
        **plan.grid.coordinates(tokens),
        "draw": np.arange(plan.draws),
        "prompt_text": ("prompt", list(plan.scored.texts)),
    }
