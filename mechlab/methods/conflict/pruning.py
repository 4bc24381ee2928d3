"""`prune_heads`: switch the first k heads of a ranking off, and see which answer wins (PH3)."""

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechlab import engine
from mechlab.axes import Head
from mechlab.engine import Base, Row
from mechlab.engine.options import HINTS
from mechlab.errors import OptionError, PromptError
from mechlab.hooks import Ablate, FrozenArray, Intervention, Site
from mechlab.methods.conflict.head_sets import Pruned, counts_of, pruned_sets
from mechlab.metrics import logit_diff
from mechlab.models import ScoredPairs, scored_pairs
from mechlab.progress import Journal, ProgressCallback
from mechlab.prompts import Fact, PromptPair, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["prune_heads"]

OUTCOMES = ("in_context", "memorised", "other")


class _Readings:
    """Most probable token, logit difference, and probability of both answers, `[row, 4]`."""

    outputs = 4

    def __call__(self, logits: Tensor, answers: Tensor) -> Tensor:
        """Read all; token ids are exact in float32 up to 16 million."""
        sure = torch.softmax(logits.float(), dim=-1).gather(1, answers[:, :2])
        first = [logits.argmax(-1).float(), logit_diff(logits, answers)]
        return torch.cat([torch.stack(first, dim=1), sure], dim=1)


@dataclass(frozen=True)
class _Plan:
    """A call, checked."""

    prompts: PromptSet[PromptPair]
    scored: ScoredPairs
    counts: tuple[int, ...]
    sets: list[Pruned]
    reference: PromptSet[Any] | None


def _prepare(
    model: "Model",
    prompts: PromptSet[PromptPair],
    *,
    heads: Any,
    k: Any = (1, 3, 5, 10),
    kind: str = "zero",
    reference: Any = None,
    found_on: Any = None,
    controls: int = 5,
    seed: int = 0,
) -> _Plan:
    """Check everything that can be checked without a forward pass."""
    engine.require_heads(model, "models with attention")
    engine.check_choice("kind", kind, ("zero", "mean"))
    engine.check_whole("controls", controls, at_least=0)
    engine.check_whole("seed", seed)
    counts = counts_of(model, k)
    sets = pruned_sets(model, heads, counts, controls, seed)
    if (kind == "mean") != (reference is not None):
        raise OptionError(
            f"kind={kind!r} {'needs' if kind == 'mean' else 'reads no'} reference=...: the prompts "
            "whose mean head outputs stand in. Allowed: kind='mean' with a reference, kind='zero' "
            "without. Correct one of them."
        )
    stand_in = None if reference is None else as_prompt_set(reference, kind="any")
    if found_on is not None:
        _refuse_seen(prompts, as_prompt_set(found_on, kind="pair"))
    return _Plan(prompts, scored_pairs(model, prompts, same_length=False), counts, sets, stand_in)


def _refuse_seen(prompts: PromptSet[PromptPair], found_on: PromptSet[PromptPair]) -> None:
    """Refuse to test heads on the prompts that they were found on.

    Raises:
        PromptError: naming all of them.
    """
    seen = {pair.clean for pair in found_on}
    if twice := [f"#{i}" for i, pair in enumerate(prompts) if pair.clean in seen]:
        more = f" and {len(twice) - 10} more" if len(twice) > 10 else ""
        raise PromptError(
            f"{len(twice)} of {len(prompts)} pairs are among those that the heads were found on: "
            f"{', '.join(twice[:10])}{more}.\n  Allowed: held-out pairs.\n"
            "  Split with ml.split_pairs, or leave found_on out to test on what was seen."
        )


def _check_all(model: "Model", prompts: PromptSet[PromptPair], **options: Any) -> None:
    """Check a whole set, so that the store names all offenders before it computes the first."""
    known = inspect.signature(_prepare).parameters
    _prepare(model, prompts, **{name: value for name, value in options.items() if name in known})


@analysis(version=1, prompt_kind="pair", default_plot="lines", per_prompt=False, check=_check_all)
def prune_heads(
    model: "Model",
    pairs: PromptSet[Any] | Sequence[PromptPair] | PromptPair,
    *,
    heads: Mapping[str, Sequence[Head | str]],
    k: Sequence[int | float] = (1, 3, 5, 10),
    kind: Literal["zero", "mean"] = "zero",
    reference: PromptSet[Any] | Sequence[PromptPair | Fact] | None = None,
    found_on: PromptSet[Any] | Sequence[PromptPair] | None = None,
    controls: int = 5,
    seed: int = 0,
    max_batch: int | None = None,
    mode: Literal["auto", "wavefront", "packed", "plain"] = "auto",
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> xr.Dataset:
    """Prune the first k heads of rankings at all positions and read which answer wins.

    PH3 (Jin et al. 2024, arXiv 2402.18154): pruning memory heads raises the use of the context
    (RC), pruning context heads that of the memory (RM). Beside every ranking stand random heads of
    the same layers, as many of each as were pruned there.

    Args:
        model: a decoder with attention.
        pairs: conflicts whose clean prompts are run: `answer` is the one the context gives,
            `wrong_answer` the memorised one.
        heads: rankings by name, as `ml.conflict_rankings` gives them: the first is pruned first.
        k: how many heads; fractions are parts of all heads of the model. 0, which changes nothing,
            is always among them.
        kind: `zero` sets their output `z` to 0; `mean` to its mean over all tokens of `reference`.
        reference: prompts of the mean (clean prompts of pairs).
        found_on: the pairs that the rankings were found on; none of them may be among `pairs`.
        controls: random sets per ranking and k.
        seed: decides the controls, together with the name of the ranking and k.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        mode: how the engine runs; `plain` is the slow reference.
        progress: called between batches with a partial result; may raise `Cancelled`.
        journal: keeps finished batches, so that a killed run resumes.

    Returns:
        Dataset with `share[prompt, head_set, k, outcome]`, 1 for the outcome and 0 for the others,
        so that its mean over prompts is RC (`in_context`), RM (`memorised`) and the rest
        (`other`), which add up to 1: an answer wins when the most probable next token begins it;
        `logit_diff[prompt, head_set, k]`, in-context minus memorised, `effect` of the same axes,
        pruned minus unpruned, `probability[prompt, head_set, k, answer]`, `top_token[prompt,
        head_set, k]`, and `unpruned_logit_diff[prompt]`. Coordinates: `members[head_set, k]`,
        `is_control` and `control_of` of `head_set`, and `chosen_too[head_set, k]`, how many heads
        of a control are among the chosen ones because their layer has no others left.

    Raises:
        OptionError: an option outside its range or choices, or rankings shorter than k.
        SiteError: heads that this model does not have, or a model without attention.
        PromptError: pairs that cannot be tokenised, whose answers begin with the same token, or
            that are in `found_on`; all offenders of a sort at once.
        Cancelled: when `progress` asked to stop.

    Differs from the paper: outcomes are read from the first generated token, not from generated
    text. k is a curve and not chosen.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.check_choice("mode", mode, engine.MODES)
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    prompts = as_prompt_set(pairs, kind="pair")
    plan = _prepare(
        model,
        prompts,
        heads=heads,
        k=k,
        kind=kind,
        reference=reference,
        found_on=found_on,
        controls=controls,
        seed=seed,
    )
    checks = engine.verify(model)
    engine.require_proven(model, ["z"])
    means = _means(model, plan)

    def dataset(read_bases: np.ndarray, read_rows: np.ndarray) -> xr.Dataset:
        """Arrange readings; called with the rows so far for a partial picture, and at the end."""
        result = new_result(
            _variables(model, plan, read_bases, read_rows),
            _coordinates(plan),
            method="prune_heads",
            version=1,
            model=model,
            prompts=prompts,
            options=options,
            seed=seed if controls else None,
            started=started,
            checks={"verify": checks.summary()},
        )
        stood_in = "none" if plan.reference is None else plan.reference.digest
        return result.assign_attrs(reference_digest=stood_in, kind=kind)

    readings = engine.run(
        model,
        [Base(text) for text in plan.scored.texts],
        _rows(plan, means),
        read=_Readings(),
        answers=plan.scored.answers,
        mode=mode,
        max_batch=max_batch,
        progress=progress,
        partial=dataset,
        journal=journal,
    )
    return dataset(readings.bases, readings.rows).assign_attrs(engine_mode=readings.mode)


def _means(model: "Model", plan: _Plan) -> dict[Head, FrozenArray]:
    """Return the mean output of every head that is pruned, over all tokens of the reference."""
    if plan.reference is None:
        return {}
    wanted = sorted({head for pruned in plan.sets for group in pruned.heads for head in group})
    places = [("z", layer) for layer in sorted({head.layer for head in wanted})]
    sums: dict[int, Tensor] = {}
    tokens = 0
    bases = [Base(prompt.text) for prompt in plan.reference]
    for recording in engine.record(model, bases, places) if places else ():
        for (_, layer), value in recording.values.items():
            total = value.double().sum(0)
            sums[layer or 0] = sums[layer or 0] + total if layer in sums else total
        tokens += len(value)
    return {h: FrozenArray((sums[h.layer][h.head] / tokens).float().cpu().numpy()) for h in wanted}


def _rows(plan: _Plan, means: Mapping[Head, FrozenArray]) -> list[Row]:
    """Return rows by prompt, set and k; equal sets are run once by the engine."""

    def off(head: Head) -> Intervention:
        site = Site("z", head.layer, head.head)
        return Ablate(site, "mean", means[head]) if means else Ablate(site)

    steps = [tuple(map(off, group)) for pruned in plan.sets for group in pruned.heads]
    return [Row(base, changes) for base in range(len(plan.prompts)) for changes in steps]


def _variables(model: "Model", plan: _Plan, bases: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    shape = (len(plan.prompts), len(plan.sets), len(plan.counts))
    read = rows.reshape(*shape, 4)
    top, difference, unpruned = read[..., 0], read[..., 1], bases[:, 1]
    answers = np.array(plan.scored.answers)
    right = top == answers[:, 0, None, None]
    wrong = top == answers[:, 1, None, None]
    share = np.stack([right, wrong, ~(right | wrong)], axis=-1).astype(np.float32)
    share[np.isnan(top)] = np.nan
    names = {t: "" if np.isnan(t) else model.token_string(int(t)) for t in np.unique(top)}
    tokens = np.array([names.get(t, "") for t in top.ravel()], dtype=object).reshape(shape)
    cell, units = ("prompt", "head_set", "k"), {"units": "logits"}
    return {
        "share": ((*cell, "outcome"), share, {"units": "share of prompts"}),
        "logit_diff": (cell, difference, units),
        "effect": (cell, difference - unpruned[:, None, None], units),
        "probability": ((*cell, "answer"), read[..., 2:], {"units": "probability"}),
        "unpruned_logit_diff": ("prompt", unpruned, units),
        "top_token": (cell, tokens.astype(str)),
    }


def _coordinates(plan: _Plan) -> dict[str, Any]:
    members = [["+".join(map(str, group)) for group in pruned.heads] for pruned in plan.sets]
    return {
        "prompt": list(plan.prompts.labels),
        "head_set": [pruned.name for pruned in plan.sets],
        "k": list(plan.counts),
        "outcome": list(OUTCOMES),
        "answer": list(OUTCOMES[:2]),
        "members": (("head_set", "k"), members),
        "is_control": ("head_set", [bool(pruned.control_of) for pruned in plan.sets]),
        "control_of": ("head_set", [pruned.control_of for pruned in plan.sets]),
        "chosen_too": (("head_set", "k"), [list(pruned.chosen_too) for pruned in plan.sets]),
        "prompt_text": ("prompt", list(plan.scored.texts)),
        "in_context_answer": ("prompt", [pair.answer.strip() for pair in plan.prompts]),
        "memorised_answer": ("prompt", [pair.wrong_answer.strip() for pair in plan.prompts]),
    }
