"""The simplified context model of Ji-An et al. 2024: one list, one-hot items, an absorbing end.

Items are one-hot, `n` of them and an end state after the last. Encoding binds each item to a
context that drifts by `beta_enc` a step, which in closed form is `memory`. Recall starts from the
context of one item, draws the next in proportion to what the context supports, and moves the
context on by `beta_rec` towards what that item brings back: itself and, by `gamma_ft`, the contexts
that it was met in. Unlike the model of Polyn et al. 2009 it recalls an item as often as it is
drawn, has no primacy and no temperature, and its context drifts by `1 - beta`, not by `rho`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mechlab.errors import OptionError

__all__ = ["Cell", "exact_crp", "memory", "simulated_crp"]

Array = np.ndarray[Any, Any]

TINY = np.finfo(np.float32).tiny
"""Keeps an empty context from dividing by zero: item 0 has no item before it."""


@dataclass(frozen=True)
class Cell:
    """One setting of the model.

    Attributes:
        beta_enc: drift of context in study, within (0, 1].
        beta_rec: drift of context in recall, within [0, 1].
        gamma_ft: share of the studied contexts in what an item brings back, within [0, 1].
    """

    beta_enc: float
    beta_rec: float
    gamma_ft: float

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            OptionError: naming every value out of range.
        """
        wrong = [
            f"{name}={value}"
            for name, value in vars(self).items()
            if not 0 <= value <= 1 or (name == "beta_enc" and value == 0)
        ]
        if wrong:
            raise OptionError(
                f"{', '.join(wrong)} out of range. Allowed: beta_enc above 0 and up to 1, beta_rec "
                "and gamma_ft from 0 to 1. Correct it."
            )


def memory(beta_enc: float, items: int) -> Array:
    """Return what context `i` supports item `j` with, `[items + 1, items + 1]`.

    `M = (I - (1 - beta_enc) T)^-1 T` with the shift `T`: `(1 - beta_enc)^(j - i - 1)` for `j > i`,
    else 0; the last row and column are the end state.
    """
    step = np.arange(items + 1)[None, :] - np.arange(items + 1)[:, None] - 1
    return np.where(step >= 0, (1 - beta_enc) ** np.maximum(step, 0), 0.0)


def exact_crp(cell: Cell, max_lag: int) -> Array | None:
    """Return the CRP by lag where it has a closed form, else `None`; see `simulated_crp`.

    `gamma_ft = 0` and `beta_rec = 1`: the next item follows the law of its row of `memory`.
    `gamma_ft = 0` and `beta_rec = 0`: all items are drawn from the start's row, so that a lag is
    the difference of two independent draws; the published table has no first transition here.
    """
    if cell.gamma_ft != 0 or cell.beta_rec not in (0, 1):
        return None
    share, lags = 1 - cell.beta_enc, np.arange(-max_lag, max_lag + 1)
    if cell.beta_rec == 1:
        law = np.where(lags > 0, share ** np.maximum(lags - 1, 0), 0.0)
    else:
        law = share ** np.abs(lags).astype(float)
    normal: Array = law / law.sum()
    return normal


def simulated_crp(
    cell: Cell,
    max_lag: int,
    *,
    items: int,
    starts: int,
    recalls: int,
    samples: int,
    random: np.random.Generator,
) -> tuple[Array, Array]:
    """Simulate recalls from each of the first items and average the lags of what comes next.

    Items are drawn, as published; what is counted at each step is the probability of every lag and
    not the one that was drawn, which has the same mean and so little noise that forty recalls do
    what thousands would. (Lists that end early weigh the same; the difference that this makes lies
    below the noise of 40,000 counted recalls.)

    Args:
        cell: the setting.
        max_lag: lags up to here are counted, the others only in the number of transitions.
        items: list length.
        starts: recalls start from the contexts of items 0, 1, …; the first lag is relative to it.
        recalls: simulated recalls per start.
        samples: items drawn per recall at most; the end state ends it earlier.
        random: source of all draws.

    Returns:
        CRP `[2 * max_lag + 1]`, summing to 1, and its standard error over starts.
    """
    bound = memory(cell.beta_enc, items).astype(np.float32)
    brought = _brought_back(bound, cell.gamma_ft)
    previous = np.repeat(np.arange(starts), recalls)
    context = np.eye(items + 1, dtype=np.float32)[previous]
    alive = np.ones(len(previous), dtype=bool)
    shares = np.zeros((len(previous), 2 * max_lag + 1))
    transitions = np.zeros(len(previous))
    for _ in range(samples):
        support = context[alive] @ bound
        drawn = _draw(support, random)
        goes_on = drawn < items
        rows, drawn = np.flatnonzero(alive)[goes_on], drawn[goes_on]
        alive[alive] = goes_on
        if not len(rows):
            break
        shares[rows] += _by_lag(support[goes_on, :items], previous[rows], max_lag)
        transitions[rows] += 1
        previous[rows] = drawn
        moved = (1 - cell.beta_rec) * context[rows] + cell.beta_rec * brought[drawn]
        context[rows] = moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), TINY)
    with np.errstate(invalid="ignore"):
        shares /= transitions[:, None]
    by_start = np.nanmean(shares.reshape(starts, recalls, -1), axis=1)
    by_start = by_start / by_start.sum(axis=1, keepdims=True)
    return by_start.mean(axis=0), by_start.std(axis=0, ddof=1) / np.sqrt(starts)


def _by_lag(support: Array, previous: Array, max_lag: int) -> Array:
    """Return the probability of each lag of the next item, given that there is one."""
    place = previous[:, None] + np.arange(-max_lag, max_lag + 1)
    known = np.take_along_axis(support, np.clip(place, 0, support.shape[1] - 1), axis=1)
    inside = (place >= 0) & (place < support.shape[1])
    made: Array = np.where(inside, known, 0.0) / support.sum(axis=1, keepdims=True)
    return made


def _brought_back(bound: Array, gamma_ft: float) -> Array:
    """Return the context that each item brings back, of length 1, `[item, items + 1]`."""
    identity = np.eye(len(bound), dtype=np.float32)
    mixed = (1 - gamma_ft) * identity + gamma_ft * bound.T
    unit: Array = mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), TINY)
    return unit


def _draw(support: Array, random: np.random.Generator) -> Array:
    """Draw one item per row in proportion to its support."""
    total = np.cumsum(support, axis=1)
    mark = random.random(len(support), dtype=np.float32)[:, None] * total[:, -1:]
    drawn: Array = np.minimum((total <= mark).sum(axis=1), support.shape[1] - 1)
    return drawn
