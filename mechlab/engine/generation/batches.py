"""Which groups of rows are decoded together, and in what order prompts are visited."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechlab.engine.batching import free_bytes
from mechlab.engine.generation.masks import HeadMask, prefix_mask
from mechlab.engine.generation.rows import DecodeRow

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Prefix", "decode_batches", "prefixes_of", "token_bytes"]

ROWS_AT_ONCE = {"cpu": 32, "cuda": 128}
BYTES_AT_ONCE = {"cpu": 2**29, "cuda": 2**33}
"""Keys and values that one batch may copy. Prompts longer than that are decoded one after the
other, in the buffers in which they were read. The CUDA figures are guesses."""

Prefix = tuple[tuple[int, ...], HeadMask | None]
"""Tokens of a prompt up to its last but one, and what masks them."""


@dataclass(frozen=True)
class _Group:
    index: int
    rows: tuple[DecodeRow, ...]
    prefixes: tuple[Prefix, ...]


def prefixes_of(rows: Sequence[DecodeRow], prompts: Sequence[Sequence[int]]) -> list[Prefix]:
    """Return what is computed before the first step, per row."""
    return [(tuple(prompts[row.prompt][:-1]), prefix_mask(row.mask)) for row in rows]


def token_bytes(model: "Model") -> int:
    """Return what keys and values of one token take in all layers."""
    heads = model.n_kv_heads or model.n_heads or 1
    return 2 * model.n_layers * heads * (model.d_head or 1) * model.dtype.itemsize


def decode_batches(
    model: "Model",
    prompts: Sequence[Sequence[int]],
    groups: Sequence[Sequence[DecodeRow]],
    *,
    max_new_tokens: int,
    at_once: int | None,
) -> Iterator[list[int]]:
    """Yield groups that are decoded together, neighbours in the trie of their prompts.

    The cut depends on free memory only when that is short.

    Args:
        model: the model.
        prompts: token ids.
        groups: rows of each.
        max_new_tokens: steps.
        at_once: upper bound on rows, which a single group may exceed.
    """
    device = model.device.type
    rows = at_once or ROWS_AT_ONCE.get(device, ROWS_AT_ONCE["cpu"])
    budget = BYTES_AT_ONCE.get(device, BYTES_AT_ONCE["cpu"])
    tokens = min(budget, int(0.4 * free_bytes(model.device))) // token_bytes(model)
    order = _order(prompts, groups)
    batch: list[int] = []
    seen: set[Prefix] = set()
    n_rows = 0
    for group in order:
        wider = seen | set(group.prefixes)
        more = n_rows + len(group.rows)
        copied = sum(len(prefix) for prefix, _ in wider) if len(wider) > 1 else 0
        if batch and (more > rows or copied + more * max_new_tokens > tokens):
            yield batch
            batch, wider, more = [], set(group.prefixes), len(group.rows)
        batch.append(group.index)
        seen, n_rows = wider, more
    if batch:
        yield batch


def _order(prompts: Sequence[Sequence[int]], groups: Sequence[Sequence[DecodeRow]]) -> list[_Group]:
    """Sort groups by what masks their prompts and then by the prompts' tokens."""
    made = [
        _Group(index, tuple(rows), tuple(prefixes_of(rows, prompts)))
        for index, rows in enumerate(groups)
    ]
    classes: dict[HeadMask | None, int] = {}
    for group in made:
        for _, mask in group.prefixes:
            classes.setdefault(mask, len(classes))
    return sorted(made, key=lambda g: [(classes[mask], tokens) for tokens, mask in g.prefixes])
