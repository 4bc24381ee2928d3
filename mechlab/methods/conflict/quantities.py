"""What a patched path does to one answer: the readings of PH3's importance, as numbers."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

__all__ = ["QUANTITIES", "AnswerReading", "Quantity", "scores_of"]

Quantity = Literal["relative_logit", "raw_logit", "probability", "logit_diff"]
QUANTITIES = ("relative_logit", "raw_logit", "probability", "logit_diff")


@dataclass(frozen=True)
class AnswerReading:
    """What is read of the first of two answers, `[row]`.

    Attributes:
        quantity: `relative_logit` and `raw_logit` read its logit, `probability` its probability,
            `logit_diff` its logit minus that of the other answer.
        centred: whether the mean logit over the vocabulary is taken off a single logit.
    """

    quantity: Quantity
    centred: bool

    @property
    def __name__(self) -> str:
        """Return the unit's name, for results."""
        return "probability" if self.quantity == "probability" else "logits"

    def __call__(self, logits: Tensor, answers: Tensor) -> Tensor:
        """Read it off logits `[row, vocab]` and token ids `[row, 2]`."""
        logits = logits.float()
        if self.quantity == "probability":
            return torch.softmax(logits, dim=-1).gather(1, answers[:, :1]).squeeze(1)
        own = logits.gather(1, answers[:, :1]).squeeze(1)
        if self.quantity == "logit_diff":
            return own - logits.gather(1, answers[:, 1:2]).squeeze(1)
        return own - logits.mean(dim=-1) if self.centred else own


def scores_of(quantity: Quantity, original: np.ndarray, patched: np.ndarray) -> np.ndarray:
    """Return each path's score, NaN where a relative one would divide by 0.

    Args:
        quantity: what was read.
        original: reading of the run that is changed, `[...]`.
        patched: readings after a path was patched, `[..., sender]`.
    """
    change: np.ndarray = patched - original[..., None]
    if quantity != "relative_logit":
        return change
    size = np.abs(original)[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        relative: np.ndarray = change / size
    return np.where(size > 0, relative, np.float32(np.nan))
