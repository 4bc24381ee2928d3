"""From one recall to the next: the lag-CRP and the lag rank.

A transition counts when both its items are on the list and recalled for the first time; one with a
repeat or an intrusion at either end is left out. What is available is every item not yet recalled.
Both are as in psifr.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from mechlab.methods.recall.sequences import Sequences, read_sequences

__all__ = ["lag_crp", "lag_rank"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Step:
    """All transitions that leave one output position.

    Attributes:
        rows: lists with a transition here, `[transition]`.
        lag: of the transition, `[transition]`.
        lags: from the item recalled to every item of the list, `[transition, item]`.
        available: which of them were not yet recalled, `[transition, item]`.
    """

    rows: Array
    lag: Array
    lags: Array
    available: Array


def lag_crp(recalls: xr.DataArray) -> xr.Dataset:
    """Return the conditional response probability by lag (Kahana 1996).

    The lag of a transition is the serial position of the next recall minus that of the last one.
    Each transition counts once for its own lag, and once for the lag of each item still available.

    Args:
        recalls: `[list, output_position]`, as `ml.prompts.recall_sequences` makes them.

    Returns:
        Of the axes subject and lag (minus to plus the list length less 1): `actual`, `possible`
        (transitions), and `prob`, their ratio: NaN where nothing was possible, as at lag 0.
        `average_subjects` averages it.

    Raises:
        OptionError: when `recalls` has another form.
    """
    held = read_sequences(recalls)
    farthest = held.length - 1
    size = 2 * farthest + 1
    actual, possible = (np.zeros((len(held.subjects), size), dtype=int) for _ in range(2))
    for step in _steps(held):
        owner = held.subject_of[step.rows]
        np.add.at(actual, (owner, step.lag + farthest), 1)
        which, item = np.nonzero(step.available)
        np.add.at(possible, (owner[which], step.lags[which, item] + farthest), 1)
    with np.errstate(invalid="ignore"):
        prob = actual / np.where(possible > 0, possible, np.nan)
    axes = ("subject", "lag")
    return xr.Dataset(
        {
            "prob": (axes, prob, {"units": "probability"}),
            "actual": (axes, actual, {"units": "transitions"}),
            "possible": (axes, possible, {"units": "transitions"}),
        },
        {"subject": held.subjects, "lag": np.arange(-farthest, farthest + 1)},
        {"list_length": held.length, "measure": "lag-CRP"},
    )


def lag_rank(recalls: xr.DataArray) -> xr.Dataset:
    """Return how near in the list the next recall is among all that were available.

    The temporal factor: the percentile rank of each transition's absolute lag among those of the
    available items, 1 for the nearest and 0 for the farthest, ties averaged. A transition to the
    only item left has no rank.

    Args:
        recalls: `[list, output_position]`, as `ml.prompts.recall_sequences` makes them.

    Returns:
        Of the axis subject: `lag_rank`, the mean over transitions (0.5 is chance, NaN without any),
        and `transitions`, their number.

    Raises:
        OptionError: when `recalls` has another form.
    """
    held = read_sequences(recalls)
    total, count = np.zeros(len(held.subjects)), np.zeros(len(held.subjects), dtype=int)
    for step in _steps(held):
        distance, own = np.abs(step.lags), np.abs(step.lag)[:, None]
        nearer = ((distance < own) & step.available).sum(axis=1)
        equal = ((distance == own) & step.available).sum(axis=1)
        others = step.available.sum(axis=1) - 1
        some = others > 0
        rank = 1 - (nearer + (equal - 1) / 2)[some] / others[some]
        np.add.at(total, held.subject_of[step.rows[some]], rank)
        np.add.at(count, held.subject_of[step.rows[some]], 1)
    mean = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return xr.Dataset(
        {
            "lag_rank": ("subject", mean, {"units": "percentile rank"}),
            "transitions": ("subject", count),
        },
        {"subject": held.subjects},
        {"list_length": held.length, "measure": "lag rank"},
    )


def _steps(held: Sequences) -> Iterator[_Step]:
    """Yield the transitions from each output position to the next."""
    available = np.ones((len(held.places), held.length), dtype=bool)
    every = np.arange(held.length)
    for output in range(held.places.shape[1] - 1):
        now, after = held.places[:, output], held.places[:, output + 1]
        first = np.flatnonzero(held.valid[:, output])
        available[first, now[first]] = False
        rows = np.flatnonzero(held.valid[:, output] & held.valid[:, output + 1])
        lags = every[None, :] - now[rows, None]
        yield _Step(rows, after[rows] - now[rows], lags, available[rows])
