"""The likelihood of recall sequences, for many settings and lists at once."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mechlab.methods.recall.equations import (
    Memory,
    Rules,
    drift,
    log_choice,
    stop_probability,
    study,
)

__all__ = ["sequence_log_likelihood"]

Array = np.ndarray[Any, Any]

NUMBERS_AT_ONCE = 2**21
"""So many context units are held at a time."""


def sequence_log_likelihood(
    values: Mapping[str, Array], recalled: Array, items: int, rules: Rules
) -> Array:
    """Return the log likelihood of each list under each setting, `[setting, list]`.

    Args:
        values: parameters by name, `[setting]`.
        recalled: zero-based positions, each at most once, -1 after the end, `[list, item]`.
        items: list length.
        rules: which form of the model.
    """
    settings = len(next(iter(values.values())))
    at_once = max(1, NUMBERS_AT_ONCE // (max(1, len(recalled)) * (items + 2)))
    parts = [
        _part({name: array[start : start + at_once] for name, array in values.items()},
              recalled, items, rules)
        for start in range(0, settings, at_once)
    ]  # fmt: skip
    return np.concatenate(parts)


def _part(values: Mapping[str, Array], recalled: Array, items: int, rules: Rules) -> Array:
    memory = study(values, items, rules)
    settings = len(memory.start)
    total = np.zeros((settings, len(recalled)))
    going = np.arange(len(recalled))
    context = np.repeat(memory.start[:, None], len(recalled), axis=1)
    available = np.ones((len(recalled), items), dtype=bool)
    with np.errstate(divide="ignore"):
        for output in range(items + 1):
            stop = stop_probability(output, items, values, rules)[:, None]
            item = recalled[going, output] if output < items else np.full(len(going), -1)
            on = item >= 0
            total[:, going[~on]] += np.log(stop)
            going, item, context, available = going[on], item[on], context[:, on], available[on]
            if not len(going):
                break
            chosen = _chosen(memory, context, available, item, values, rules)
            total[:, going] += np.log1p(-stop) + chosen
            available[np.arange(len(going)), item] = False
            beta = np.broadcast_to(values["beta_rec"][:, None], context.shape[:2])
            context = drift(context, memory.brought[:, item], beta)
    return total


def _chosen(
    memory: Memory,
    context: Array,
    available: Array,
    item: Array,
    values: Mapping[str, Array],
    rules: Rules,
) -> Array:
    """Return the log probability of the items that were recalled, `[setting, list]`."""
    support = context @ memory.to_item.transpose(0, 2, 1)
    score = log_choice(support, available, values, rules)
    found: Array = score[:, np.arange(len(item)), item]
    return found
