"""The equations of CMR, for many settings of its parameters at once.

Context has a unit per item, one for the start of the list and one for a distractor after it. Every
array begins with the axis `setting`, and a parameter is an array `[setting]`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["Memory", "Rules", "drift", "log_choice", "stop_probability", "study"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Rules:
    """Which of the published forms of the model is meant; see `CMR`."""

    association: Literal["updated", "previous"] = "updated"
    choice: Literal["softmax", "power"] = "softmax"
    stopping: Literal["exponential", "none"] = "exponential"


@dataclass(frozen=True)
class Memory:
    """What a studied list leaves behind.

    Attributes:
        studied: contexts before the first item and after each, `[setting, item + 1, unit]`.
        to_item: what context supports each item with (M^CF), `[setting, item, unit]`.
        brought: the context that each item brings back (M^FC f), of length 1,
            `[setting, item, unit]`.
        start: the context that recall begins with, `[setting, unit]`.
    """

    studied: Array
    to_item: Array
    brought: Array
    start: Array


def drift(context: Array, entering: Array, beta: Array) -> Array:
    """Move a context of length 1 towards another: `rho c + beta c_IN` (Howard & Kahana 2002).

    `rho = sqrt(1 + beta^2 ((c . c_IN)^2 - 1)) - beta (c . c_IN)` keeps the length at 1.

    Args:
        context: `[..., unit]`.
        entering: `[..., unit]`.
        beta: `[...]`.
    """
    cosine = np.einsum("...u,...u->...", context, entering)
    inside = 1 + beta**2 * (cosine**2 - 1)
    rho = np.sqrt(np.maximum(inside, 0)) - beta * cosine  # rounding takes the root below 0
    moved = rho[..., None] * context + beta[..., None] * entering
    length = np.sqrt(np.einsum("...u,...u->...", moved, moved))  # 1, but for rounding
    moved /= length[..., None]
    made: Array = moved
    return made


def study(values: Mapping[str, Array], items: int, rules: Rules) -> Memory:
    """Study a list of items that are new and unlike each other.

    Args:
        values: parameters by name, `[setting]`; see `CMR`.
        items: list length.
        rules: which context is associated with an item.
    """
    own = np.eye(items + 2)  # units: start of the list, the items, the distractor
    beta = values["beta_enc"]
    contexts = [np.tile(own[0], (len(beta), 1))]
    for item in range(1, items + 1):
        contexts.append(drift(contexts[-1], own[item], beta))
    studied = np.stack(contexts, axis=1)
    bound = studied[:, 1:] if rules.association == "updated" else studied[:, :-1]
    before = own[None, 1 : items + 1]  # what an item brings and is supported by before any study
    gamma_fc, gamma_cf = (values[name][:, None, None] for name in ("gamma_fc", "gamma_cf"))
    decay = np.exp(-values["phi_d"][:, None] * np.arange(items))
    primacy = 1 + values["phi_s"][:, None] * decay
    brought = (1 - gamma_fc) * before + gamma_fc * bound
    after = drift(studied[:, -1], own[-1], values["beta_dist"])
    return Memory(
        studied=studied,
        to_item=(1 - gamma_cf) * before + gamma_cf * primacy[:, :, None] * bound,
        brought=brought / np.linalg.norm(brought, axis=-1, keepdims=True),
        start=drift(after, own[0], values["beta_start"]),
    )


def log_choice(
    support: Array, available: Array, values: Mapping[str, Array], rules: Rules
) -> Array:
    """Return the log probability of each item, given that one is recalled.

    Args:
        support: `[setting, list, item]`.
        available: not yet recalled, `[list, item]`; at least one in each list.
        values: parameters by name, `[setting]`.
        rules: softmax or power.

    Returns:
        `[setting, list, item]`, minus infinity for what is not available. Where the power rule
        finds no support at all, every available item is as likely.
    """
    if rules.choice == "softmax":
        score = support / values["temperature"][:, None, None]
    else:
        with np.errstate(divide="ignore"):
            score = values["power"][:, None, None] * np.log(support)
    score = np.where(available, score, -np.inf)
    top = score.max(axis=-1, keepdims=True)
    score = np.where(np.isfinite(top), score, np.where(available, 0.0, -np.inf))
    score -= np.where(np.isfinite(top), top, 0.0)
    made: Array = score - np.log(np.exp(score).sum(axis=-1, keepdims=True))
    return made


def stop_probability(recalled: int, items: int, values: Mapping[str, Array], rules: Rules) -> Array:
    """Return the probability of ending recall after so many items, `[setting]`."""
    if recalled >= items:
        return np.ones_like(values["theta_s"])
    if rules.stopping == "none":
        return np.zeros_like(values["theta_s"])
    grown: Array = np.minimum(values["theta_s"] * np.exp(values["theta_r"] * recalled), 1.0)
    return grown
