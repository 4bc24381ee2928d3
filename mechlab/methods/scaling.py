"""`scale_heads`: turn heads up, down, off or round, and see which answer wins (Yu et al. 2023)."""

import hashlib
import inspect
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechlab import engine
from mechlab.axes import Head
from mechlab.engine import Base, Positions, Row
from mechlab.engine.options import HINTS
from mechlab.engine.positions import PositionOption
from mechlab.errors import OptionError
from mechlab.hooks import Intervention, Scale, Site
from mechlab.metrics import logit_diff
from mechlab.models import ScoredPairs, head_sets, random_heads, scored_pairs
from mechlab.progress import Journal, ProgressCallback
from mechlab.prompts import PromptPair, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["scale_heads"]

OUTCOMES = ("in_context", "memorised", "other")
Heads = Sequence[Head | str]


class _TopAndDifference:
    """The most probable token and the logit difference of a row, `[row, 2]`."""

    outputs = 2

    def __call__(self, logits: Tensor, answers: Tensor) -> Tensor:
        """Read both; token ids are exact in float32 up to 16 million."""
        return torch.stack([logits.argmax(-1).float(), logit_diff(logits, answers)], dim=1)


@dataclass(frozen=True)
class _Plan:
    """A sweep, checked: sets of heads by name, and which set each control belongs to."""

    prompts: PromptSet[PromptPair]
    scored: ScoredPairs
    sets: dict[str, tuple[Head, ...]]
    control_of: dict[str, str]
    alpha: tuple[float, ...]
    positions: Positions


def _prepare(
    model: "Model",
    prompts: PromptSet[PromptPair],
    *,
    heads: Any,
    alpha: Sequence[float] = (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0),
    together: bool = False,
    positions: Any = "all",
    controls: int = 0,
    seed: int = 0,
) -> _Plan:
    """Check everything that can be checked without a forward pass."""
    engine.require_heads(model, "models with attention")
    engine.check_whole("controls", controls, at_least=0)
    engine.check_whole("seed", seed)
    if not isinstance(together, bool):
        raise OptionError(f"together={together!r}. Allowed: True, False. Choose one of these.")
    factors = _factors(alpha)
    place = Positions.make(positions)
    if place.each:
        raise OptionError(
            "positions='each' is not a way to scale. Allowed: 'all', 'last', a list, or places."
        )
    chosen = head_sets(model, heads, together=together)
    sets, control_of = _with_controls(model, chosen, controls, seed)
    scored = scored_pairs(model, prompts, same_length=False)
    place = place.within(model, prompts, scored.lengths)
    return _Plan(prompts, scored, sets, control_of, factors, place)


def _factors(alpha: object) -> tuple[float, ...]:
    factors = tuple(alpha) if isinstance(alpha, Iterable) and not isinstance(alpha, str) else ()
    for factor in factors:
        engine.check_number("alpha", factor)
    if not factors or len(set(factors)) != len(factors):
        raise OptionError(
            f"alpha={alpha!r:.60}. Allowed: a list of different numbers, such as (0, 1, 2). 1 "
            "changes nothing, 0 removes, negative numbers reverse."
        )
    return tuple(float(factor) for factor in factors)


def _with_controls(
    model: "Model", chosen: Mapping[str, tuple[Head, ...]], controls: int, seed: int
) -> tuple[dict[str, tuple[Head, ...]], dict[str, str]]:
    """Return the sets, and after them for each the random sets of the same layers."""
    sets, control_of = dict(chosen), dict.fromkeys(chosen, "")
    for name, group in chosen.items():
        for draw in range(controls):
            digest = hashlib.sha256(f"{seed}\x1f{'+'.join(map(str, group))}\x1f{draw}".encode())
            drawn = random_heads(
                model,
                seed=int.from_bytes(digest.digest()[:8], "little"),
                exclude=group,
                same_layers_as=group,
            )
            label = f"{name} control {draw}"
            sets[label], control_of[label] = tuple(drawn), name
    return sets, control_of


def _check_all(model: "Model", prompts: PromptSet[PromptPair], **options: Any) -> None:
    """Check a whole set, so that the store names all offenders before it computes the first."""
    known = inspect.signature(_prepare).parameters
    _prepare(model, prompts, **{name: value for name, value in options.items() if name in known})


@analysis(
    version=1, prompt_kind="pair", default_plot="lines", check=_check_all, lists=("positions",)
)
def scale_heads(
    model: "Model",
    pairs: PromptSet[Any] | Sequence[PromptPair] | PromptPair,
    *,
    heads: Heads | Mapping[str, Heads],
    alpha: Sequence[float] = (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0),
    together: bool = False,
    positions: PositionOption = "all",
    controls: int = 0,
    seed: int = 0,
    max_batch: int | None = None,
    mode: Literal["auto", "wavefront", "packed", "plain"] = "auto",
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> xr.Dataset:
    """Multiply the output `z` of heads by a factor and read which answer wins.

    Yu, Merullo and Pavlick 2023 scale the value vectors of one head at run time; the pattern does
    not change, so that this is the same as scaling its `z`. Under grouped queries a value vector
    serves several heads, and only scaling `z` acts on one.

    Args:
        model: a decoder with attention.
        pairs: pairs whose clean prompts are run; `answer` is the one the context gives,
            `wrong_answer` the memorised one.
        heads: query heads (`ml.Head` or `"L9H6"`), or a mapping from names to sets of them.
        alpha: factors: 1 changes nothing, 0 removes, negative ones reverse.
        together: whether a list of heads is one set, scaled together, or each its own.
        positions: `all`, the `last`, a list of positions, negative ones counted from the end, one
            such list per pair, or places by name (of a pair's `places`, or `end`).
        controls: random sets per set, drawn from the same layers without its own heads.
        seed: decides the controls, together with the heads they are controls of.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        mode: how the engine runs; `plain` is the slow reference.
        progress: called between batches with a partial result; may raise `Cancelled`.
        journal: keeps finished batches, so that a killed run resumes.

    Returns:
        Dataset with `share[prompt, head_set, alpha, outcome]`, 1 for the outcome and 0 for the
        others, so that its mean over prompts is the share of each: `in_context` or `memorised` when
        the most probable next token begins that answer, else `other`; `logit_diff[prompt,
        head_set, alpha]`, answer minus wrong answer, `effect` of the same axes, scaled minus
        unscaled, and `unscaled_logit_diff[prompt]`, in logits; `top_token` of the same axes.
        Coordinates of `head_set`: `members`, `is_control`, `control_of`.

    Raises:
        OptionError: an option outside its range or choices; too few heads to draw controls from.
        SiteError: heads that this model does not have, or a model without attention.
        PromptError: pairs that cannot be tokenised or whose answers begin with the same token; all
            offenders at once.
        Cancelled: when `progress` asked to stop.

    Differs from the paper: outcomes are read from the first generated token; the paper's grid of
    factors is not known. The choice of heads and its held-out test are left to the caller.
    """
    started, positions = time.time(), engine.plain_positions(positions)
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.check_choice("mode", mode, engine.MODES)
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    prompts = as_prompt_set(pairs, kind="pair")
    plan = _prepare(
        model,
        prompts,
        heads=heads,
        alpha=alpha,
        together=together,
        positions=positions,
        controls=controls,
        seed=seed,
    )
    checks = engine.verify(model)
    engine.require_proven(model, ["z"])

    def dataset(read_bases: np.ndarray, read_rows: np.ndarray) -> xr.Dataset:
        """Arrange readings; called with the rows so far for a partial picture, and at the end."""
        return new_result(
            _variables(model, plan, read_bases, read_rows),
            _coordinates(plan),
            method="scale_heads",
            version=1,
            model=model,
            prompts=prompts,
            options=options,
            seed=seed if controls else None,
            started=started,
            checks={"verify": checks.summary()},
        )

    readings = engine.run(
        model,
        [Base(text) for text in plan.scored.texts],
        _rows(plan),
        read=_TopAndDifference(),
        answers=plan.scored.answers,
        mode=mode,
        max_batch=max_batch,
        progress=progress,
        partial=dataset,
        journal=journal,
    )
    return dataset(readings.bases, readings.rows).assign_attrs(engine_mode=readings.mode)


def _rows(plan: _Plan) -> list[Row]:
    """Return rows by prompt, set and factor; prompts of equal positions share interventions."""
    made: dict[tuple[int | None, ...], list[tuple[Intervention, ...]]] = {}
    rows = []
    for base, length in enumerate(plan.scored.lengths):
        (cell,) = plan.positions.cells(length, base)
        at = (None,) if cell is None else tuple(pos % length for pos in cell)
        if at not in made:
            made[at] = [
                _scaled([Site("z", h.layer, h.head, pos) for h in group for pos in at], factor)
                for group in plan.sets.values()
                for factor in plan.alpha
            ]
        rows += [Row(base, steps) for steps in made[at]]
    return rows


def _scaled(sites: Sequence[Site], factor: float) -> tuple[Intervention, ...]:
    """Return what scales the sites; times 1 is no change to the bit, so nothing is run for it."""
    return () if factor == 1 else tuple(Scale(site, factor) for site in sites)


def _variables(model: "Model", plan: _Plan, bases: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    shape = (len(plan.prompts), len(plan.sets), len(plan.alpha))
    top, difference = rows[:, 0].reshape(shape), rows[:, 1].reshape(shape)
    unscaled = bases[:, 1]
    answers = np.array(plan.scored.answers)
    right = top == answers[:, 0, None, None]
    wrong = top == answers[:, 1, None, None]
    share = np.stack([right, wrong, ~(right | wrong)], axis=-1).astype(np.float32)
    share[np.isnan(top)] = np.nan
    tokens = {t: "" if np.isnan(t) else model.token_string(int(t)) for t in np.unique(top)}
    names = np.array([tokens[t] if t in tokens else "" for t in top.ravel()], dtype=object)
    cell, units = ("prompt", "head_set", "alpha"), {"units": "logits"}
    return {
        "share": ((*cell, "outcome"), share, {"units": "share of prompts"}),
        "logit_diff": (cell, difference, units),
        "effect": (cell, difference - unscaled[:, None, None], units),
        "unscaled_logit_diff": ("prompt", unscaled, units),
        "top_token": (cell, names.reshape(shape).astype(str)),
    }


def _coordinates(plan: _Plan) -> dict[str, Any]:
    members = ["+".join(map(str, group)) for group in plan.sets.values()]
    return {
        "prompt": list(plan.prompts.labels),
        "head_set": list(plan.sets),
        "alpha": list(plan.alpha),
        "outcome": list(OUTCOMES),
        "members": ("head_set", members),
        "is_control": ("head_set", [bool(name) for name in plan.control_of.values()]),
        "control_of": ("head_set", list(plan.control_of.values())),
        "prompt_text": ("prompt", list(plan.scored.texts)),
        "answer": ("prompt", [pair.answer.strip() for pair in plan.prompts]),
        "wrong_answer": ("prompt", [pair.wrong_answer.strip() for pair in plan.prompts]),
    }
