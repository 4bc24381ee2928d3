"""From scores to shares: what counts as a success, and how sure the model is of it."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from mechlab.prompts.edit_kind import CHANGED_KINDS, PROMPT_KINDS

__all__ = ["MEASURES", "PROTOCOLS", "Protocol", "harmonic_mean", "magnitudes", "successes"]

Array = np.ndarray[Any, Any]

Protocol = Literal["counterfact", "zsre", "exact"]
"""What counts as a success; `evaluate_edit` explains."""

PROTOCOLS = ("counterfact", "zsre", "exact")

MEASURES: Mapping[str, str] = {
    kind: "efficacy" if kind == "rewrite" else kind for kind in PROMPT_KINDS
}
"""Name of the variable that averages each kind of prompt."""

NEW, TRUE = 0, 1  # places on the axis `target`


def successes(nll: Array, accuracy: Array, there: Array, protocol: Protocol) -> Array:
    """Return each prompt's success.

    Args:
        nll: `[..., prompt_kind, prompt, target]`, in nats.
        accuracy: the same axes, share of the object's tokens that are the model's top token.
        there: the same axes, whether that object exists; a number that is missing although it
            exists (an overflow) is a failure.
        protocol: which rule.

    Returns:
        `[..., prompt_kind, prompt]`, between 0 and 1, NaN where an object that the rule needs does
        not exist.
    """
    found = np.full(nll.shape[:-1], np.nan)
    for number, kind in enumerate(PROMPT_KINDS):
        wins = NEW if kind in CHANGED_KINDS else TRUE
        at = (..., number, slice(None), slice(None))
        if protocol == "counterfact":
            exists = there[at].all(-1)
            value = (nll[at][..., wins] < nll[at][..., 1 - wins]).astype(float)
        else:
            exists = there[at][..., wins]
            value = accuracy[at][..., wins]
            value = (value == 1).astype(float) if protocol == "exact" else value
        found[..., number, :] = np.where(exists, value, np.nan)
    return found


def magnitudes(nll: Array) -> Array:
    """Return by how much the right object is more probable, `[..., prompt_kind, prompt]`.

    Probabilities are geometric means over an object's tokens, `exp(-nll)`.
    """
    probability = np.exp(-nll)
    sign = np.array([1.0 if kind in CHANGED_KINDS else -1.0 for kind in PROMPT_KINDS])
    difference: Array = probability[..., NEW] - probability[..., TRUE]
    return sign[:, None] * difference


def harmonic_mean(values: Array) -> Array:
    """Return the harmonic mean over the first axis: 0 where any is 0, NaN where any is NaN."""
    values = np.asarray(values, dtype=float)
    with np.errstate(divide="ignore"):
        found: Array = len(values) / (1 / values).sum(axis=0)
    return found
