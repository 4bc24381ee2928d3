"""The same edits by nnsight, on its own copy of the plain model: another hook mechanism entirely.

One trace per row, as nnsight's multi-invoke traces have had scoping faults. `nnsight.NNsight` wraps
a bare module; its `LanguageModel` is deprecated in 0.8.1 and only adds tokenising.
"""

from typing import Any

import torch
from nnsight import NNsight
from oracles.modules import block_path, embedding_path, part, projection_path, writer_path
from torch import Tensor
from torch.nn import Module


@torch.no_grad()
def site_value(hf: Module, family: str, tokens: Tensor, layer: int, site: str) -> Tensor:
    """Output [pos, d_model] of a block or of one of its writers."""
    lens = NNsight(hf)
    with lens.trace(tokens, use_cache=False):
        saved = _tensor_of(part(lens, writer_path(family, layer, site)).output).save()
    return saved[0]


@torch.no_grad()
def head_values(hf: Module, family: str, tokens: Tensor, layer: int) -> Tensor:
    """`z` [pos, head, d_head]: the input of the output projection, taken apart."""
    lens = NNsight(hf)
    with lens.trace(tokens, use_cache=False):
        saved = part(lens, projection_path(family, layer)).input.save()
    return saved[0].unflatten(-1, (hf.config.num_attention_heads, -1))  # type: ignore[union-attr]


@torch.no_grad()
def written(
    hf: Module, family: str, tokens: Tensor, layer: int, site: str, pos: int, value: Tensor
) -> Tensor:
    """Logits [pos, vocab] with `value` written to a block's or writer's output at `pos`."""
    lens = NNsight(hf)
    with lens.trace(tokens, use_cache=False):
        _tensor_of(part(lens, writer_path(family, layer, site)).output)[:, pos] = value
        logits = lens.output.logits.save()
    return logits[0]


@torch.no_grad()
def written_head(
    hf: Module, family: str, tokens: Tensor, layer: int, head: int, pos: int, value: Tensor
) -> Tensor:
    """Logits [pos, vocab] with one head's `z` at `pos` replaced by `value` [d_head]."""
    lens, d_head = NNsight(hf), len(value)
    with lens.trace(tokens, use_cache=False):
        columns = slice(head * d_head, (head + 1) * d_head)
        part(lens, projection_path(family, layer)).input[:, pos, columns] = value
        logits = lens.output.logits.save()
    return logits[0]


@torch.no_grad()
def noised(hf: Module, family: str, tokens: Tensor, first: int, draw: Tensor) -> Tensor:
    """Logits [pos, vocab] with `draw` [span, d_model] added to the token embeddings."""
    lens = NNsight(hf)
    with lens.trace(tokens, use_cache=False):
        part(lens, embedding_path(family)).output[:, first : first + len(draw)] += draw
        logits = lens.output.logits.save()
    return logits[0]


@torch.no_grad()
def noised_and_restored(
    hf: Module,
    family: str,
    tokens: Tensor,
    first: int,
    draw: Tensor,
    layer: int,
    pos: int,
    value: Tensor,
) -> Tensor:
    """Logits [pos, vocab] of the noised run with one block's output at `pos` set to `value`."""
    lens = NNsight(hf)
    with lens.trace(tokens, use_cache=False):
        part(lens, embedding_path(family)).output[:, first : first + len(draw)] += draw
        _tensor_of(part(lens, block_path(family, layer)).output)[:, pos] = value
        logits = lens.output.logits.save()
    return logits[0]


def _tensor_of(output: Any) -> Any:
    """Attention modules return (output, weights); blocks return a plain tensor."""
    return output[0] if isinstance(output, tuple) else output
