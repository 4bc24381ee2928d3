"""`self_repair`: direct effect, compensation and total effect of ablating a module.

McGrath et al. 2023, "The Hydra Effect" (arXiv 2307.15771); the share of the changed norm is set
apart as in Rushing and Nanda 2024 (arXiv 2402.15390).
"""

import inspect
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr

from mechlab import engine
from mechlab.engine import Base
from mechlab.engine.options import HINTS
from mechlab.engine.readout import LinearReadout, linear_readout
from mechlab.errors import SiteError
from mechlab.hooks import Place
from mechlab.methods.repair.direct import Modules, Reading
from mechlab.methods.repair.stand_ins import Kind, StandIns, Values, Where
from mechlab.models import chosen_layers, scored_prompts
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import Fact, PromptPair, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["self_repair"]

AT_ONCE = 32
CELL = ("prompt", "site", "layer")


@dataclass(frozen=True)
class _Plan:
    """What is run, checked."""

    texts: tuple[str, ...]
    lengths: tuple[int, ...]
    answers: tuple[int, ...] | None
    sites: tuple[str, ...]
    layers: tuple[int, ...]
    stand_ins: StandIns

    @property
    def ablated(self) -> list[Place]:
        return [(site, layer) for site in self.sites for layer in self.layers]


def _prepare(
    model: "Model",
    prompts: PromptSet[Any],
    *,
    sites: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    kind: Kind = "zero",
    reference: Any = None,
    positions: Where = "last",
    token: str = "predicted",
    draws: int = 5,
    seed: int = 0,
) -> _Plan:
    """Check everything that can be checked without a forward pass."""
    engine.check_choice("kind", kind, ("zero", "mean", "resample"))
    engine.check_choice("positions", positions, ("last", "all"))
    engine.check_choice("token", token, ("predicted", "answer"))
    engine.check_whole("draws", draws, at_least=1)
    engine.check_whole("seed", seed)
    chosen = _chosen_sites(model, sites)
    levels = chosen_layers(model, layers)
    stand_ins = StandIns.make(model, kind, positions, reference, draws, seed)
    needed = "logit" if token == "answer" else "kl_divergence"  # the latter needs no target
    scored = scored_prompts(model, prompts, needed)
    stand_ins.check(scored.texts, scored.lengths)
    answers = tuple(row[0] for row in scored.answers) if token == "answer" else None
    return _Plan(scored.texts, scored.lengths, answers, chosen, levels, stand_ins)


def _chosen_sites(model: "Model", sites: Sequence[str] | None) -> tuple[str, ...]:
    known = ("attn_out", "mlp_out") if model.has_attention else ("mixer_out",)
    given = known if sites is None else (sites,) if isinstance(sites, str) else tuple(sites)
    wrong = [site for site in given if site not in known]
    if wrong or not given or len(set(given)) < len(given):
        raise SiteError(
            f"sites {list(wrong or given)} of {model.name}. Allowed: {', '.join(known)}, each "
            "once: the modules that write to the residual stream. Name some of these."
        )
    return tuple(site for site in known if site in given)


def _check_all(model: "Model", prompts: PromptSet[Any], **options: Any) -> None:
    """Check a whole set, so that the store names all offenders before it computes the first."""
    known = inspect.signature(_prepare).parameters
    _prepare(model, prompts, **{name: value for name, value in options.items() if name in known})


@analysis(version=1, prompt_kind="any", default_plot="layer_by_token", check=_check_all)
def self_repair(
    model: "Model",
    prompts: PromptSet[Any] | Sequence[PromptPair | Fact] | PromptPair | Fact,
    *,
    sites: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    kind: Kind = "zero",
    reference: PromptSet[Any] | Sequence[PromptPair | Fact] | None = None,
    positions: Where = "last",
    token: Literal["predicted", "answer"] = "predicted",
    draws: int = 5,
    seed: int = 0,
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Split the effect of ablating a module into its own share and what later modules do about it.

    Read is the centred logit of one token at the last position (minus the mean over the vocabulary,
    as a raw logit means nothing). With the final norm's scale held at its clean value the logit is
    a sum of what each module writes. Ablating module l takes its own write away (direct effect DE);
    every later module k may write something else (C[k|l]; the compensatory effect CE is their sum,
    **positive where they repair**); and the scale of the norm changes. In the model itself

        total effect TE = DE - CE + norm effect,

    TE being the logit of the clean run **minus** that of the ablated one: positive where the module
    supports the token.

    Args:
        model: any decoder whose modules add their outputs to the residual stream.
        prompts: facts, or pairs, whose clean prompts are run.
        sites: what is ablated: `attn_out`, `mlp_out`, or `mixer_out`; all that the model has.
        layers: layers to ablate; all by default.
        kind: `zero`; the `mean` over the reference prompts; `resample`, the value in one of them.
        reference: prompts whose outputs stand in. A prompt does not stand in for itself unless
            there is no other.
        positions: ablate at the `last` token, or at `all` tokens: for `mean` with one mean over all
            tokens of the reference, for `resample` with prompts of as many tokens.
        token: whose logit: the one the clean run `predicted`, or the first of the `answer`.
        draws: reference prompts per prompt, for `resample`; effects are averaged over them.
        seed: decides the draws, together with the text of the prompt alone.
        max_batch: runs side by side; changes no number beyond rounding.
        progress: called between prompts; may raise `Cancelled`.

    Returns:
        Dataset, in logits. Of (prompt, site, layer), the ablated module: `direct_effect`,
        `compensatory_effect`, `norm_effect`, `total_effect`, `unexplained` (total minus the sum of
        the three, rounding), and `frozen_total_effect`, the total effect with the norm's scale
        held, which equals DE - CE. `compensation[prompt, site, layer, component]` is C of each
        later module, NaN for those that come before or beside. `component_logit[prompt, component]`
        is what each part writes in the clean run: `embed`, `L0.attn`, `L0.mlp` and so on, `bias`
        (of final norm and unembedding); it sums to `clean_logit[prompt]`. Coordinates
        `component_kind`, `component_layer` (-1 outside the blocks), `token` of the prompt. The
        attributes `reference_digest` and `reference_prompts` say what stood in.

    Raises:
        OptionError: an option outside its choices, or options that contradict.
        SiteError: a site or layer that this model lacks or that is not proven.
        PromptError: prompts that cannot be tokenised or scored, or have too few stand-ins; all
            offenders at once.
        ModelError: modules that do not add up, or a readout that is not a norm and a product.
        Cancelled: when `progress` asked to stop.

    Differs from the paper: it resamples from about as many prompts as are asked for; the default
    here is zero ablation, which needs no reference.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    chosen = as_prompt_set(prompts, kind="any")
    plan = _prepare(
        model,
        chosen,
        sites=sites,
        layers=layers,
        kind=kind,
        reference=reference,
        positions=positions,
        token=token,
        draws=draws,
        seed=seed,
    )
    checks = engine.verify(model)
    modules = Modules.of(model)
    engine.require_proven(model, ["resid_pre", *dict.fromkeys(name for name, _ in modules.places)])
    found: list[_Effects] = []
    with model.lock, torch.no_grad():
        readout = linear_readout(model)
        prompts_run = zip(plan.texts, plan.lengths, strict=True)
        values = plan.stand_ins.values(model, plan.ablated, prompts_run)
        for effects in _effects(model, readout, modules, plan, values, max_batch or AT_ONCE):
            found.append(effects)
            if progress is not None:
                progress(Progress(len(found), len(chosen), "prompts"))
    reading = plan.stand_ins.reference
    return new_result(
        _variables(model, plan, found),
        _coordinates(model, chosen, plan, modules, found),
        method="self_repair",
        version=1,
        model=model,
        prompts=chosen,
        options=options,
        seed=seed if kind == "resample" else None,
        started=started,
        checks={"verify": checks.summary()},
    ).assign_attrs(
        reference_digest="none" if reading is None else reading.digest,
        reference_prompts=len(plan.stand_ins.texts),
    )


@dataclass(frozen=True, eq=False)
class _Effects:
    """Effects of one prompt, averaged over draws; those of ablations are `[cell]`.

    `compensation` is `[cell, component]`, `clean` is `[component]`.
    """

    token: int
    clean_logit: float
    clean: np.ndarray
    direct: np.ndarray
    compensation: np.ndarray
    total: np.ndarray
    frozen: np.ndarray


def _effects(
    model: "Model",
    readout: LinearReadout,
    modules: Modules,
    plan: _Plan,
    values: Values,
    at_once: int,
) -> Iterator[_Effects]:
    """Run every prompt with every ablation."""
    places: list[Place] = [("resid_pre", 0), *modules.places]
    for number, (text, length) in enumerate(zip(plan.texts, plan.lengths, strict=True)):
        drawn = plan.stand_ins.drawn(text, length)
        ablated = [
            Base(text, values.steps(place, other, length))
            for place in plan.ablated
            for other in drawn
        ]
        clean = next(engine.record(model, [Base(text)], places))
        token = int(clean.logits.argmax()) if plan.answers is None else plan.answers[number]
        scale = readout.norm.scales(clean.final[None])
        before = Reading.of(model, readout, modules, [clean], token)
        parts = []
        for start in range(0, len(ablated), at_once):
            group = ablated[start : start + at_once]
            runs = list(engine.record(model, group, places, at_once=at_once))
            parts.append(Reading.of(model, readout, modules, runs, token, scale))
        yield _arranged(plan, modules, token, before, parts, len(drawn))


def _arranged(
    plan: _Plan,
    modules: Modules,
    token: int,
    before: Reading,
    parts: Sequence[Reading],
    draws: int,
) -> _Effects:
    cells = len(plan.ablated)
    change = torch.cat([part.components for part in parts]) - before.components
    change = change.reshape(cells, draws, -1).mean(1)
    total = before.logit - torch.cat([part.logit for part in parts])
    frozen = before.frozen_logit - torch.cat([part.frozen_logit for part in parts])
    own = [1 + modules.places.index(place) for place in plan.ablated]
    after = torch.tensor([modules.downstream(place) for place in plan.ablated]).to(change.device)
    return _Effects(
        token,
        float(before.logit[0]),
        before.components[0].cpu().numpy(),
        -change[range(cells), own].cpu().numpy(),
        torch.where(after, change, float("nan")).cpu().numpy(),
        total.reshape(cells, draws).mean(1).cpu().numpy(),
        frozen.reshape(cells, draws).mean(1).cpu().numpy(),
    )


# --- the result -----------------------------------------------------------------------------------


def _variables(model: "Model", plan: _Plan, found: Sequence[_Effects]) -> dict[str, Any]:
    kind = np.float64 if model.dtype == torch.float64 else np.float32
    shape = (len(found), len(plan.sites), len(plan.layers))

    def cells(arrays: Sequence[np.ndarray], *tail: int) -> np.ndarray:
        return np.stack(arrays).reshape(*shape, *tail)

    direct, total, frozen = (
        cells([getattr(one, name) for one in found]) for name in ("direct", "total", "frozen")
    )
    each = cells([one.compensation for one in found], len(found[0].clean))
    repair = np.nansum(each, axis=-1)
    norm = total - frozen
    unit = {"units": "logits"}
    named = {
        "direct_effect": direct,
        "compensatory_effect": repair,
        "norm_effect": norm,
        "total_effect": total,
        "frozen_total_effect": frozen,
        "unexplained": total - (direct - repair + norm),
    }
    variables: dict[str, Any] = {
        name: (CELL, array.astype(kind), unit) for name, array in named.items()
    }
    variables["compensation"] = ((*CELL, "component"), each.astype(kind), unit)
    clean = np.stack([one.clean for one in found]).astype(kind)
    variables["component_logit"] = (("prompt", "component"), clean, unit)
    variables["clean_logit"] = ("prompt", np.array([one.clean_logit for one in found], kind), unit)
    return variables


def _coordinates(
    model: "Model",
    prompts: PromptSet[Any],
    plan: _Plan,
    modules: Modules,
    found: Sequence[_Effects],
) -> dict[str, Any]:
    kinds = [site.removesuffix("_out") for site, _ in modules.places]
    return {
        "prompt": list(prompts.labels),
        "site": list(plan.sites),
        "layer": list(plan.layers),
        "component": list(modules.labels),
        "component_kind": ("component", ["embed", *kinds, "bias"]),
        "component_layer": ("component", [-1, *(layer for _, layer in modules.places), -1]),
        "prompt_text": ("prompt", list(plan.texts)),
        "token": ("prompt", [model.token_string(one.token) for one in found]),
    }
