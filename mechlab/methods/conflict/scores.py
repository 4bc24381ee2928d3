"""`conflict_heads`: which heads push the memorised answer, which the one in the context (PH3)."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mechlab import engine
from mechlab.engine import Node, PathPrompt
from mechlab.engine.options import HINTS
from mechlab.errors import OptionError, PromptError
from mechlab.hooks import Ablate, AddNoise, Intervention, Site
from mechlab.methods.conflict.quantities import QUANTITIES, AnswerReading, Quantity, scores_of
from mechlab.models import ScoredPairs, scored_pairs
from mechlab.progress import Journal, Progress, ProgressCallback
from mechlab.prompts import PromptPair, PromptSet, as_prompt_set, named_positions
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["conflict_heads"]

ANSWERS = ("in_context", "memorised")
NEW = ("pair", "noise", "zero")
SUBJECT = "country"
"""Place whose tokens are noised, with its further mentions (`country_2`, ...)."""


@dataclass(frozen=True)
class _Plan:
    """A call, checked; `paths` holds two prompts per pair, one to read each answer."""

    prompts: PromptSet[PromptPair]
    scored: ScoredPairs
    paths: list[PathPrompt]
    senders: list[Node]


def _check_all(model: "Model", prompts: PromptSet[PromptPair], **options: Any) -> None:
    """Check a whole set, so that the store names all offenders before it computes the first."""
    names = ("x_new", "noise_scale", "seed")
    _prepare(model, prompts, **{name: options[name] for name in names if name in options})


def _prepare(
    model: "Model",
    prompts: PromptSet[PromptPair],
    *,
    x_new: str = "pair",
    noise_scale: float = 3.0,
    seed: int = 0,
) -> _Plan:
    """Check everything that can be checked without a forward pass."""
    engine.require_heads(model, "models with attention")
    engine.check_choice("x_new", x_new, NEW)
    engine.check_number("noise_scale", noise_scale, at_least=0)
    engine.check_whole("seed", seed)
    scored = scored_pairs(model, prompts, same_length=x_new == "pair")
    changes: Sequence[tuple[Intervention, ...]] = [()] * len(prompts)
    if x_new == "noise":
        changes = _noise(model, prompts, noise_scale, seed)
    elif x_new == "zero":
        changes = [tuple(Ablate(Site("z", n)) for n in range(model.n_layers))] * len(prompts)
    new = scored.corrupted if x_new == "pair" else scored.texts
    paths = [
        PathPrompt(text, other, answers, (length - 1,), change)
        for text, other, ids, length, change in zip(
            scored.texts, new, scored.answers, scored.lengths, changes, strict=True
        )
        for answers in (ids, ids[::-1])
    ]
    senders: list[Node] = [
        (Site("z", n, h),) for n in range(model.n_layers) for h in range(model.n_heads or 0)
    ]
    return _Plan(prompts, scored, paths, senders)


def _noise(
    model: "Model", prompts: PromptSet[PromptPair], scale: float, seed: int
) -> list[tuple[Intervention, ...]]:
    """Return noise on every mention of each pair's country.

    Raises:
        PromptError: pairs that do not say where their country is, all at once.
    """
    mentions = [
        [name for name, *_ in pair.places if name == SUBJECT or name.startswith(f"{SUBJECT}_")]
        for pair in prompts
    ]
    if without := [f"#{i}" for i, names in enumerate(mentions) if not names]:
        raise PromptError(
            f"{len(without)} of {len(prompts)} pairs name no place {SUBJECT!r} to put noise on: "
            f"{', '.join(without[:10])}.\n  Allowed: pairs with places, as ml.prompts.conflicts "
            "makes them.\n  Use these, or x_new='pair'."
        )
    std = scale * float(model.hf.get_input_embeddings().weight.detach().float().std())
    found: list[tuple[Intervention, ...]] = []
    for pair, names in zip(prompts, mentions, strict=True):
        spans = [named_positions(model, [pair], name)[0] for name in names]
        found.append(tuple(AddNoise(Site("embed"), s[0], s[-1], std, seed, 0) for s in spans))
    return found


@analysis(
    version=1, prompt_kind="pair", default_plot="head_grid", per_prompt=False, check=_check_all
)
def conflict_heads(
    model: "Model",
    pairs: PromptSet[Any] | Sequence[PromptPair] | PromptPair,
    *,
    quantity: Quantity = "relative_logit",
    centred: bool = False,
    x_new: Literal["pair", "noise", "zero"] = "pair",
    freeze: Literal["heads", "heads+mlps"] = "heads",
    ln: Literal["recompute", "frozen"] = "recompute",
    noise_scale: float = 3.0,
    seed: int = 0,
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> xr.Dataset:
    """Score every head by what patching its path to the logits does to both answers of a conflict.

    PH3 (Jin et al. 2024, arXiv 2402.18154). The head's output at the last position is replaced by
    its value in another run, all other heads are held, and only the final residual sees it. With
    s(a) the change that this makes to answer a, negative s(memorised) means that the head supports
    memory. **The conflict score is s(in_context) - s(memorised): large and positive for a memory
    head, large and negative for a context head.** The authors' exact formula is not public to us,
    so every reading of it is an option.

    Args:
        model: an attention model on which the engine's fast runs are proven (`verify`).
        pairs: conflicts: `answer` is the one the context gives, `wrong_answer` the memorised one;
            the corrupted prompt is another record of the same wording (`ml.prompts.conflicts`).
        quantity: what s compares. `relative_logit`: change of the answer's logit, divided by its
            size in the original run; `raw_logit`: that change in logits; `probability`: change of
            its probability; `logit_diff`: change of its logit minus the other answer's, which no
            constant added to all logits changes (s of the two answers are then opposite).
        centred: whether the mean over the vocabulary is taken off single logits first, for a
            relative change that does not depend on the offset of the logits.
        x_new: where the head's other value comes from: the corrupted prompt of the `pair`, the
            same prompt with `noise` on the embeddings of its country, or `zero`.
        freeze: `heads` recomputes the MLPs between head and logits, `heads+mlps` holds them.
        ln: `recompute` the final norm on what it receives, or keep it `frozen` at the scale of the
            original run.
        noise_scale: standard deviation of the noise, in units of that of the embedding matrix.
        seed: of the noise.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        progress: called between batches with a partial result; may raise `Cancelled`.
        journal: keeps finished batches, so that a killed run resumes.

    Returns:
        Dataset with `conflict_score[prompt, layer, head]`, `score[prompt, layer, head, answer]`
        (the s above, answers `in_context` and `memorised`), `patched` of the same axes and
        `original[prompt, answer]`, the quantity's reading, in its units. A relative score of a
        logit of 0 is NaN.

    Raises:
        OptionError: an option outside its choices.
        SiteError: a model without attention, or heads without an additive write (`heads+mlps`).
        PromptError: pairs that do not align (`x_new="pair"`), whose answers begin with the same
            token, or that name no country to put noise on; all offenders at once.
        ModelError: blocks that cannot be run with their attention held.
        Cancelled: when `progress` asked to stop.

    Differs from the paper: answers are scored by their first token. Noise is that of causal
    tracing, one draw per pair.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.check_choice("quantity", quantity, QUANTITIES)
    engine.check_choice("freeze", freeze, ("heads", "heads+mlps"))
    engine.check_choice("ln", ln, ("recompute", "frozen"))
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    _check_centred(centred, quantity)
    prompts = as_prompt_set(pairs, kind="pair")
    plan = _prepare(model, prompts, x_new=x_new, noise_scale=noise_scale, seed=seed)
    checks = engine.verify(model)
    reading = AnswerReading(quantity, centred)

    def dataset(original: np.ndarray, patched: np.ndarray) -> xr.Dataset:
        """Arrange readings; called with those so far for a partial picture, and at the end."""
        result = new_result(
            _variables(model, reading, original, patched[:, :, 0]),
            _coordinates(model, plan),
            method="conflict_heads",
            version=1,
            model=model,
            prompts=prompts,
            options=options,
            seed=seed if x_new == "noise" else None,
            started=started,
            checks={"verify": checks.summary()},
        )
        return result.assign_attrs(freeze=freeze, ln=ln, quantity=quantity, x_new=x_new)

    def report(step: Progress, original: np.ndarray, new: np.ndarray, patched: np.ndarray) -> None:
        if progress is not None:
            progress(Progress(step.done, step.total, step.unit, dataset(original, patched)))

    readings = engine.run_paths(
        model,
        plan.paths,
        plan.senders,
        [()],
        freeze=freeze,
        ln=ln,
        read=reading,
        max_batch=max_batch,
        report=None if progress is None else report,
        journal=journal,
    )
    return dataset(readings.original, readings.patched)


def _check_centred(centred: object, quantity: str) -> None:
    """Refuse centring where it would change nothing, or what is no choice.

    Raises:
        OptionError: with the reason.
    """
    if not isinstance(centred, bool):
        raise OptionError(f"centred={centred!r}. Allowed: True, False. Choose one of these.")
    if centred and quantity in ("probability", "logit_diff"):
        raise OptionError(
            f"centred=True with quantity={quantity!r}, which no constant added to the logits "
            "changes. Allowed with: 'relative_logit', 'raw_logit'. Leave centred out."
        )


def _variables(
    model: "Model", reading: AnswerReading, original: np.ndarray, patched: np.ndarray
) -> dict[str, Any]:
    """Arrange `[2 per pair]` and `[2 per pair, head of the model]`."""
    score = scores_of(reading.quantity, original, patched)
    grid = (-1, 2, model.n_layers, model.n_heads or 0)
    cell = ("prompt", "layer", "head", "answer")
    scored, changed = (np.moveaxis(a.reshape(grid), 1, -1) for a in (score, patched))
    units = {"units": reading.__name__}
    relative = {"units": "fraction of the logit"} if reading.quantity == "relative_logit" else units
    return {
        "conflict_score": (cell[:-1], scored[..., 0] - scored[..., 1], relative),
        "score": (cell, scored, relative),
        "patched": (cell, changed, units),
        "original": (("prompt", "answer"), original.reshape(-1, 2), units),
    }


def _coordinates(model: "Model", plan: _Plan) -> dict[str, Any]:
    def words(of: Iterable[str]) -> tuple[str, list[str]]:
        return "prompt", [word.strip() for word in of]

    return {
        "prompt": list(plan.prompts.labels),
        "layer": np.arange(model.n_layers),
        "head": np.arange(model.n_heads or 0),
        "answer": list(ANSWERS),
        "prompt_text": ("prompt", list(plan.scored.texts)),
        "in_context_answer": words(pair.answer for pair in plan.prompts),
        "memorised_answer": words(pair.wrong_answer for pair in plan.prompts),
    }
