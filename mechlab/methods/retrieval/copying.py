"""Which head copied which token: arithmetic on what heads attended to while a model wrote.

At each step the model writes a token. A head copies if the position that it attends to most lies in
the needle and holds that very token (Wu et al. 2024, section 2).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["copies", "head_scores"]

Array = np.ndarray[Any, Any]


def copies(
    attended: Array, written: Sequence[int], read: Sequence[int], needle: Sequence[int]
) -> Array:
    """Count how often each head copied each token of the needle.

    Args:
        attended: most attended position, axes (step, layer, head), of the query that produced the
            token of that step.
        written: the tokens produced, one per step.
        read: the tokens of the prompt.
        needle: positions of the needle's tokens in the prompt.

    Returns:
        int64, axes (layer, head, needle_pos).
    """
    places = np.asarray(needle, dtype=np.int64)
    steps = len(written)
    if not steps or not len(places):
        return np.zeros((*attended.shape[1:], len(places)), dtype=np.int64)
    there = np.asarray(read)[places]  # needle_pos
    same = np.asarray(written)[:, None] == there[None]  # step, needle_pos
    looked = attended[:steps, ..., None] == places  # step, layer, head, needle_pos
    found: Array = (looked & same[:, None, None]).sum(axis=0)
    return found


def head_scores(counts: Array, *, dedupe: bool = True) -> Array:
    """Return the score of each head from counts, axes (layer, head, needle_pos).

    Args:
        counts: as `copies` returns them.
        dedupe: whether a needle position counts once however often it was copied, as in the
            published formula; without, each copy counts, as in the published code, and scores may
            exceed 1.

    Returns:
        float64, axes (layer, head); NaN where the needle has no tokens.
    """
    if not counts.shape[-1]:
        return np.full(counts.shape[:-1], np.nan)
    counted = counts > 0 if dedupe else counts
    score: Array = counted.sum(axis=-1) / counts.shape[-1]
    return score
