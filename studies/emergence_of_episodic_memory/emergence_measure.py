"""What is measured over a model's checkpoints, and over as many models without any training."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

import mechlab as ml

Prompts = ml.prompts.PromptSet
Over = Callable[..., xr.Dataset]
"""From a method, prompts and options to its result with the axis `checkpoint`."""
SHARE = 0.5
"""Induction heads are those with at least this share of the best head's matching score."""
KINDS = ("zero", "mean")
MARGIN = 5
"""Places at either end of a list that are not probed: every probe has all lags."""


@dataclass(frozen=True)
class Lists:
    """What is read: the same at every checkpoint.

    Attributes:
        find: repeated lists that induction heads are found on.
        held: other repeated lists.
        probed: lists with one token again, those of one list in a group.
        length: tokens of a list.
    """

    find: Prompts
    held: Prompts
    probed: Prompts
    length: int


@dataclass(frozen=True)
class Measured:
    """What the claims are tested on; every result but `last` has the axis `checkpoint`.

    Attributes:
        heads: induction heads at the last checkpoint, best first.
        lists: what was read.
        scores: `ml.induction_scores`, on the lists that heads were found on.
        attention: `ml.attention_by_lag` of patterns, with what no repeat gives as baseline.
        recall: `ml.output_crp` intact and without the induction heads, by kind of ablation.
        loss: `ml.copy_loss` on the other repeated lists.
        last: `ml.memory_ablation` of the last model on these.
    """

    heads: Sequence[ml.Head]
    lists: Lists
    scores: xr.Dataset
    attention: xr.Dataset
    recall: Mapping[str, xr.Dataset]
    loss: xr.Dataset
    last: xr.Dataset


def lists_of(count: int, length: int, probes: int, seed: int) -> Lists:
    """Return the prompts: `count` lists of each kind, `probes` places of each list probed."""
    room = length - 2 * MARGIN
    places = [MARGIN + (2 * i + 1) * room // (2 * probes) for i in range(probes)]
    return Lists(
        ml.prompts.repeated_tokens(count, length, seed=seed),
        ml.prompts.repeated_tokens(count, length, seed=seed + 1),
        ml.prompts.single_probe_lists(count, length, positions=places, seed=seed + 2),
        length,
    )


def measure(over: Over, last: ml.Model, lists: Lists, draws: int, seed: int) -> Measured:
    """Measure everything at every checkpoint; heads are those of the last.

    Args:
        over: runs a method at every checkpoint.
        last: the model of the last checkpoint.
        lists: what is read.
        draws: random sets beside the induction heads.
        seed: of these.
    """
    scores = _timed(over, ml.induction_scores, lists.find)
    heads = induction_heads(scores.isel(checkpoint=-1))
    by_lag = {"source": "pattern", "baseline": "no_repeat", "resamples": 200}
    attention = _timed(over, ml.attention_by_lag, lists.probed, **by_lag)
    ways: dict[str, dict[str, Any]] = {kind: {"ablation": kind} for kind in KINDS}
    ways["mean"]["reference"] = ml.prompts.without_repeats(lists.probed)
    recall = {
        kind: _timed(over, ml.output_crp, lists.probed, ablate={"induction": heads}, **way)
        for kind, way in ways.items()
    }
    loss = _timed(over, ml.copy_loss, lists.held)
    groups = {"induction": heads}
    ablated = ml.memory_ablation(
        last, lists.held, groups=groups, draws=draws, kinds=KINDS, seed=seed
    )
    return Measured(heads, lists, scores, attention, recall, loss, ablated)


def induction_heads(scores: xr.Dataset) -> list[ml.Head]:
    """Return heads with at least half the matching score of the best, best first.

    At most half of all heads: some must be left to compare with.
    """
    matching = scores.prefix_matching.mean("prompt")
    strong = int((matching >= SHARE * matching.max()).sum())
    return ml.top_heads(matching, k=max(1, min(strong, matching.size // 2)))


def trained(name: str, steps: Sequence[int] | None, **load: Any) -> Over:
    """Return what runs a method at the checkpoints of a model."""

    def over(method: Any, prompts: Prompts, **options: Any) -> xr.Dataset:
        return ml.over_checkpoints(method, name, prompts, checkpoints=steps, **load, **options)

    return over


def untrained(model: ml.Model, steps: Sequence[int], seed: int) -> Over:
    """Return what runs a method on as many models of the same shape, each with weights of its own.

    They stand where the checkpoints stood: a course of training in which nothing is learned.
    """

    def over(method: Any, prompts: Prompts, **options: Any) -> xr.Dataset:
        parts = [
            method(ml.untrained(model, seed + number), prompts, **options)
            for number in range(len(steps))
        ]
        axis = xr.Variable("checkpoint", list(steps), {"units": "training steps"})
        return xr.concat(parts, axis, compat="override", coords="minimal", combine_attrs="override")

    return over


def _timed(over: Over, method: Any, prompts: Prompts, **options: Any) -> xr.Dataset:
    started = time.monotonic()
    found = over(method, prompts, **options)
    took = time.monotonic() - started
    steps = found.sizes["checkpoint"]
    print(f"{method.__name__}: {steps} checkpoints, {took:.1f} s", file=sys.stderr)
    return found
