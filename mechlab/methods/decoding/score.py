"""`score_answers`: how likely given answers are, plainly or by contrast with masked heads.

Gema et al. 2024, section 3 and the multiple-choice tasks of section 4 (arXiv 2410.18860), for
`decode=DeCoRe(...)`.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr

from mechlab.engine import continuation_logits
from mechlab.engine.options import HINTS
from mechlab.errors import OptionError
from mechlab.methods.decoding.decore import DeCoRe, mix
from mechlab.methods.decoding.texts import (
    Branches,
    Heads,
    Prompts,
    answer_lists,
    branches,
    prompt_set,
    read_texts,
    reading,
)
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import PromptSet
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["score_answers"]


@dataclass(frozen=True)
class _Plan:
    """A call, checked; `tokens` are those of each answer, `()` where a prompt has no more."""

    prompts: PromptSet[Any]
    texts: tuple[str, ...]
    read: list[tuple[int, ...]]
    answers: list[tuple[str, ...]]
    names: tuple[str, ...]
    tokens: list[list[tuple[int, ...]]]
    branches: Branches

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Every prompt and answer that there is."""
        return [(i, j) for i, row in enumerate(self.tokens) for j in range(len(row))]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Prompts, answers, tokens of the longest."""
        longest = max(len(ids) for row in self.tokens for ids in row)
        return len(self.tokens), len(self.names), longest


def _check_all(model: "Model", prompts: PromptSet[Any], **options: Any) -> None:
    """Check a whole set, so that the store names all offenders before it computes the first."""
    names = ("answers", "decode", "renormalise", "ablate", "mask", "phase")
    _prepare(model, prompts, **{name: options[name] for name in names if name in options})


def _prepare(
    model: "Model",
    prompts: Any,
    *,
    answers: Any = None,
    decode: Any = None,
    renormalise: Any = True,
    ablate: Heads = (),
    mask: Any = "uniform",
    phase: Any = None,
) -> _Plan:
    """Check everything that can be checked without a forward pass."""
    if not isinstance(renormalise, bool):
        raise OptionError(f"renormalise={renormalise!r}. Allowed: True, False. Choose one.")
    chosen = branches(model, decode, ablate, mask, phase, default="all")
    given = prompt_set(prompts)
    lists, names = answer_lists(given, answers)
    texts = read_texts(given)
    flat = model.answer_tokens(
        [text for text, row in zip(texts, lists, strict=True) for _ in row],
        [answer for row in lists for answer in row],
        answer="full",
    )
    ids = iter(flat)
    tokens = [[next(ids) for _ in row] for row in lists]
    return _Plan(given, texts, reading(model, texts), lists, names, tokens, chosen)


@analysis(version=1, prompt_kind="any", default_plot="lines", check=_check_all, lists=("answers",))
def score_answers(
    model: "Model",
    prompts: Prompts,
    *,
    answers: Sequence[str] | Sequence[Sequence[str]] | None = None,
    decode: DeCoRe | None = None,
    renormalise: bool = True,
    ablate: Heads = (),
    mask: Literal["uniform", "zero"] = "uniform",
    phase: Literal["decode", "all"] | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Score given answers by their log-probability, all tokens of each.

    Args:
        model: a decoder with attention.
        prompts: a text, texts, facts, or pairs, whose clean prompts are read.
        answers: answers to score after every prompt; or a list of lists, one per prompt; by default
            those of the prompts: the target of a fact, answer and wrong answer of a pair.
        decode: `DeCoRe(...)` scores by contrast with a second branch, in which heads are masked.
        renormalise: whether the contrast is made a distribution again, token by token; otherwise it
            is summed as the formula gives it. Of no effect without a contrast.
        ablate: heads to mask, without any contrast.
        mask: how heads of `ablate` are masked, as in `generate`.
        phase: when they are masked: `all` (default, as published for likelihoods) in prompt and
            answer, `decode` from the prompt's last token on.
        progress: called after each answer; may raise `Cancelled`.

    Returns:
        Dataset with `log_probability[prompt, answer]`, summed over an answer's tokens, and
        `token_log_probability[prompt, answer, step]`; `base_log_probability` of the model as it is
        (or ablated), summed; `entropy` of the base branch and `alpha` of (prompt, answer, step),
        alpha 0 without a contrast; all in nats. `choice[prompt]` and `base_choice[prompt]`: index
        of the most likely answer, the first of equals. `n_tokens[prompt, answer]`. Coordinates
        `answer_text` of (prompt, answer), `token` of (prompt, answer, step). Answers that a prompt
        does not have, and steps beyond an answer's end, are NaN. With `plausibility` an answer may
        have -inf.

    Raises:
        OptionError: an option outside its choices, or as many lists of answers as no prompts.
        SiteError: heads that this model does not have.
        PromptError: prompts or answers that are empty, cannot be tokenised or exceed the context;
            all at once.
        ModelError: a model without attention, or one that cannot be run with fast attention.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in HINTS}
    plan = _prepare(
        model,
        prompts,
        answers=answers,
        decode=decode,
        renormalise=renormalise,
        ablate=ablate,
        mask=mask,
        phase=phase,
    )
    found: dict[tuple[int, int], _Scored] = {}
    for cell, scored in _scored(model, plan, renormalise):
        found[cell] = scored
        if progress is not None:
            progress(Progress(len(found), len(plan.cells), "answers"))
    return new_result(
        _variables(plan, found),
        _coordinates(model, plan),
        method="score_answers",
        version=1,
        model=model,
        prompts=plan.prompts,
        options=options,
        seed=None,
        started=started,
    ).assign_attrs(phase=plan.branches.phase or "none")


@dataclass(frozen=True, eq=False)
class _Scored:
    """One answer, per token: `[step]` each, in nats."""

    log_probability: np.ndarray[Any, Any]
    base_log_probability: np.ndarray[Any, Any]
    entropy: np.ndarray[Any, Any]
    alpha: np.ndarray[Any, Any]


def _scored(
    model: "Model", plan: _Plan, renormalise: bool
) -> Iterator[tuple[tuple[int, int], _Scored]]:
    """Yield every answer; those of one prompt stand side by side, so that they share it."""
    masks, cells = plan.branches.masks, plan.cells
    items = [(cell, mask) for cell in cells for mask in masks]
    logits = continuation_logits(
        model,
        [plan.read[i] for (i, _), _ in items],
        [plan.tokens[i][j] for (i, j), _ in items],
        [mask for _, mask in items],
    )
    for i, j in cells:
        both = [next(logits) for _ in masks]
        mixed = mix(both[0], both[1] if len(both) > 1 else None, plan.branches.rule)
        ids = torch.tensor(plan.tokens[i][j], device=mixed.base.device)[:, None]
        scores = mixed.log_probabilities if renormalise else mixed.scores
        parts = (scores.gather(-1, ids)[:, 0], mixed.base.gather(-1, ids)[:, 0])
        yield (
            (i, j),
            _Scored(*(part.cpu().numpy() for part in (*parts, mixed.entropy, mixed.alpha))),
        )


# --- the result -----------------------------------------------------------------------------------


def _variables(plan: _Plan, found: dict[tuple[int, int], _Scored]) -> dict[str, Any]:
    shape = plan.shape
    names = ("log_probability", "base_log_probability", "entropy", "alpha")
    steps = {name: np.full(shape, np.nan) for name in names}
    sums = {name: np.full(shape[:2], np.nan) for name in names[:2]}
    count = np.full(shape[:2], np.nan)
    for (i, j), scored in found.items():
        for name in names:
            values = getattr(scored, name)
            steps[name][i, j, : len(values)] = values
            if name in sums:
                sums[name][i, j] = values.sum()
        count[i, j] = len(scored.alpha)
    cell, units = ("prompt", "answer"), {"units": "nats"}
    return {
        "log_probability": (cell, sums["log_probability"], units),
        "base_log_probability": (cell, sums["base_log_probability"], units),
        "token_log_probability": ((*cell, "step"), steps["log_probability"], units),
        "entropy": ((*cell, "step"), steps["entropy"], units),
        "alpha": ((*cell, "step"), steps["alpha"]),
        "choice": ("prompt", _largest(sums["log_probability"])),
        "base_choice": ("prompt", _largest(sums["base_log_probability"])),
        "n_tokens": (cell, count, {"units": "tokens"}),
    }


def _largest(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the index of the largest of each row, where what is missing never is."""
    missing = np.isnan(values)
    low = np.where(missing, -np.inf, values)
    top = low == low.max(axis=1, keepdims=True)
    found: np.ndarray[Any, Any] = (top & ~missing).argmax(axis=1)
    return found


def _coordinates(model: "Model", plan: _Plan) -> dict[str, Any]:
    shape = plan.shape
    texts = np.full(shape[:2], "", dtype=object)
    tokens = np.full(shape, "", dtype=object)
    for i, j in plan.cells:
        texts[i, j] = plan.answers[i][j].strip()
        for step, token in enumerate(plan.tokens[i][j]):
            tokens[i, j, step] = model.token_string(token)
    return {
        "prompt": list(plan.prompts.labels),
        "answer": list(plan.names),
        "step": np.arange(shape[2]),
        "prompt_text": ("prompt", list(plan.texts)),
        "answer_text": (("prompt", "answer"), texts.astype(str)),
        "token": (("prompt", "answer", "step"), tokens.astype(str)),
    }
