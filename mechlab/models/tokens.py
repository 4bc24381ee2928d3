"""Token batches: rows of different length side by side, padded on the left under a mask."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Span", "TokenBatch", "pad_left", "position_ids"]

Span = tuple[int, int]
"""Start and end of a stretch of characters, end excluded."""


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Tokenised texts, one row per text, padded on the left.

    Left padding keeps the last token of every row in the last column, where next-token
    predictions are read. Padded positions hold some valid token id and are masked out.

    Attributes:
        tokens: `[batch, pos]`, int64, on the model's device.
        mask: `[batch, pos]`, int64, 1 for a real token and 0 for padding.
        lengths: number of real tokens per row, the beginning-of-sequence token included.
        starts: column of the first real token per row; `starts[i] + lengths[i]` is the width.
        offsets: per row and *unpadded* token the characters it covers in the text; `(0, 0)` for
            the beginning-of-sequence token.
        texts: the texts as given.
    """

    tokens: Tensor
    mask: Tensor
    lengths: tuple[int, ...]
    starts: tuple[int, ...]
    offsets: tuple[tuple[Span, ...], ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.lengths)

    @property
    def width(self) -> int:
        """Number of columns: the length of the longest row."""
        return int(self.tokens.shape[1])

    @property
    def position_ids(self) -> Tensor:
        """`[batch, pos]`, int64: each real token's place in its own row, counted from 0."""
        return position_ids(self.mask)

    def row(self, index: int) -> Tensor:
        """Return the unpadded token ids of one row, `[length]`."""
        return self.tokens[index, self.starts[index] :]

    def to(self, device: torch.device | str) -> "TokenBatch":
        """Return the same batch with its tensors on `device`."""
        return TokenBatch(
            self.tokens.to(device),
            self.mask.to(device),
            self.lengths,
            self.starts,
            self.offsets,
            self.texts,
        )


def position_ids(mask: Tensor) -> Tensor:
    """Return the positions that real tokens would have without padding.

    Args:
        mask: `[batch, pos]`, 1 for real tokens and 0 for padding.

    Returns:
        `[batch, pos]`, int64; padding in front gets 0, which the mask makes irrelevant.
    """
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def pad_left(rows: Sequence[Sequence[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Return tokens and mask, both `[batch, pos]` int64, from rows of different length."""
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width), filler, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        tokens[index, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[index, width - len(row) :] = 1
    return tokens, mask
