"""Keys and values of one prompt at a time; the next prompt keeps what it begins alike with.

Prompts are visited in sorted order, so that neighbours share the longest beginnings: a walk over
their trie that holds only the path from its root to where it stands.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mechlab.engine.generation.masks import Factors, HeadMask
from mechlab.engine.generation.twin import Twin

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Path"]


@dataclass
class Path:
    """The keys and values of one sequence, in buffers that are made once.

    Attributes:
        model: the model.
        twin: its twin.
        capacity: longest sequence in tokens.
        chunk: tokens that run at once.
        mask: heads masked wherever this path computes; `None` masks none.
        tokens: the sequence whose keys and values are there.
        keys: one `[1, kv_head, capacity, d_head]` per layer, filled up to `len(tokens)`.
        values: as `keys`.
    """

    model: "Model"
    twin: Twin
    capacity: int
    chunk: int
    mask: HeadMask | None = None
    tokens: tuple[int, ...] = ()
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    def reach(self, tokens: Sequence[int]) -> None:
        """Make the path hold these tokens: cut it back to what is shared, and compute the rest."""
        tokens = tuple(tokens)
        shared = _shared(self.tokens, tokens)
        self.tokens = tokens[:shared]  # should the pass fail, nothing wrong is left
        if shared < len(tokens):
            self._compute(tokens[shared:], shared, self.mask, keep=1)
        self.tokens = tokens

    def peek(self, tokens: Sequence[int], mask: HeadMask | None) -> Tensor:
        """Return the logits after each of some tokens that follow the path, which stays as it is.

        Args:
            tokens: what follows.
            mask: heads masked at these tokens.

        Returns:
            `[token, vocab]`, float32.
        """
        return torch.cat(self._compute(tokens, len(self.tokens), mask, keep=self.chunk))

    def _compute(
        self, tokens: Sequence[int], start: int, mask: HeadMask | None, *, keep: int
    ) -> list[Tensor]:
        logits = []
        factors = _factors(self.model, mask)
        for at in range(0, len(tokens), self.chunk):
            ids = torch.tensor([tokens[at : at + self.chunk]], device=self.model.device)
            first, width = start + at, ids.shape[1]
            positions = torch.arange(first, first + width, device=ids.device)[None]
            reader = _Chunk(self, first, factors)
            found = self.twin.run(ids, positions, reader, keep=min(keep, width))
            logits.append(found[0])
        return logits


class _Chunk:
    """Reads one chunk of tokens: writes their keys and values, and attends to all before them."""

    def __init__(self, path: Path, first: int, factors: Factors) -> None:
        self.path = path
        self.first = first
        self.factors = factors
        self._visible: Tensor | None = None

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        keys = self._extended(self.path.keys, layer, key)
        values = self._extended(self.path.values, layer, value)
        query = self.factors.on_queries(layer, query)
        width = query.shape[2]
        visible = self._mask(width, query) if self.first and width > 1 else None
        repeats = query.shape[1] // key.shape[1]
        out = torch.empty(*query.shape[:3], value.shape[-1], dtype=value.dtype, device=value.device)
        for member in range(repeats):  # keys of grouped heads are never copied
            heads = slice(member, None, repeats)
            out[:, heads] = scaled_dot_product_attention(
                query[:, heads],
                keys,
                values,
                attn_mask=visible,
                is_causal=self.first == 0 and width > 1,
                scale=scaling,
            )
        return self.factors.on_outputs(layer, out)

    def _extended(self, buffers: dict[int, Tensor], layer: int, new: Tensor) -> Tensor:
        if layer not in buffers:
            shape = (1, new.shape[1], self.path.capacity, new.shape[3])
            buffers[layer] = torch.empty(shape, dtype=new.dtype, device=new.device)
        end = self.first + new.shape[2]
        buffers[layer][:, :, self.first : end] = new
        return buffers[layer][:, :, :end]

    def _mask(self, width: int, like: Tensor) -> Tensor:
        """Return `[query, key]`, 0 where a query sees a key and -inf elsewhere; once per chunk."""
        if self._visible is None:
            self._visible = torch.zeros(
                width, self.first + width, dtype=like.dtype, device=like.device
            )
            later = torch.ones(width, width, dtype=torch.bool, device=like.device).triu(1)
            self._visible[:, self.first :].masked_fill_(later, -torch.inf)
        return self._visible


def _factors(model: "Model", mask: HeadMask | None) -> Factors:
    return Factors([mask], n_heads=model.n_heads or 0, device=model.device)


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens two sequences begin alike with."""
    for index, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return index
    return min(len(a), len(b))
