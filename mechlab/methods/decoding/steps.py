"""What happens at each step of a generation: a token is chosen, and what was seen is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mechlab.engine import Decoded
from mechlab.methods.decoding.decore import mix
from mechlab.methods.decoding.sampling import Sampling, pick, uniforms
from mechlab.methods.decoding.texts import Branches

__all__ = ["COLUMNS", "Chooser", "Written"]

COLUMNS = (
    "token_id",
    "base_token_id",
    "log_probability",
    "base_log_probability",
    "masked_log_probability",
    "entropy",
    "alpha",
)


@dataclass(frozen=True, eq=False)
class Written:
    """What followed one prompt: `[step, column]`, float64, in the order of `COLUMNS`."""

    table: np.ndarray[Any, Any]
    stopped: bool

    def packed(self) -> np.ndarray[Any, Any]:
        """Return it as one array; the first row says whether the text ended by itself."""
        head = np.full((1, len(COLUMNS)), float(self.stopped))
        return np.concatenate([head, self.table])

    @classmethod
    def unpacked(cls, array: np.ndarray[Any, Any]) -> "Written":
        """Undo `packed`."""
        return cls(array[1:], bool(array[0, 0]))

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """Return one column, `[step]`."""
        found: np.ndarray[Any, Any] = self.table[:, COLUMNS.index(name)]
        return found


@dataclass(frozen=True)
class _Note:
    """What is known of one step of one prompt when its token is chosen."""

    log_probability: float
    entropy: float
    alpha: float
    base_token: int


@dataclass
class Chooser:
    """Chooses a token for all branches of a prompt, and keeps what it saw.

    Attributes:
        branches: the rows of each prompt, and how they are contrasted.
        sampling: how to draw.
        texts: the prompts; a draw depends on the text, not on its place among others.
        notes: by prompt and step; a batch that is begun again writes the same ones.
    """

    branches: Branches
    sampling: Sampling | None
    texts: Sequence[str]
    notes: dict[tuple[int, int], _Note] = field(default_factory=dict)

    def __call__(self, logits: Tensor, step: int, rows: Sequence[int]) -> Tensor:
        """Return one token id per row, the same for the branches of a prompt."""
        width = len(self.branches.masks)
        prompts = [row // width for row in rows[::width]]
        masked = logits[1::width] if self.branches.rule is not None else None
        mixed = mix(logits[::width], masked, self.branches.rule)
        draws = torch.tensor(
            uniforms(self.sampling, [self.texts[prompt] for prompt in prompts], step),
            dtype=mixed.base.dtype,
            device=logits.device,
        )
        chosen = pick(mixed.scores, self.sampling, draws)
        own = pick(mixed.base, self.sampling, draws)
        score = mixed.log_probabilities.gather(-1, chosen[:, None])[:, 0]
        columns = [part.tolist() for part in (score, mixed.entropy, mixed.alpha, own)]
        for prompt, *values in zip(prompts, *columns, strict=True):
            self.notes[prompt, step] = _Note(*values)
        return chosen.repeat_interleave(width)

    def written(self, prompt: int, rows: Sequence[Decoded]) -> Written:
        """Return what followed a prompt, from what the engine and this saw."""
        base, masked = rows[0], rows[1] if self.branches.rule is not None else None
        notes = [self.notes.pop((prompt, step)) for step in range(len(base.tokens))]
        nothing = np.full(len(notes), np.nan)
        columns = {
            "token_id": base.tokens,
            "base_token_id": [note.base_token for note in notes],
            "log_probability": [note.log_probability for note in notes],
            "base_log_probability": base.logprob,
            "masked_log_probability": nothing if masked is None else masked.logprob,
            "entropy": [note.entropy for note in notes],
            "alpha": [note.alpha for note in notes],
        }
        table = np.array([columns[name] for name in COLUMNS], dtype=np.float64)
        return Written(table.T.reshape(-1, len(COLUMNS)), base.stopped)
