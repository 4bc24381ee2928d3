"""The plain ways: values by whole forward passes, a forward pass that ends at a layer."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import transformers as tf
from retrieval_baselines import word_tokenizer
from torch import Tensor, nn

import mechlab as ml

__all__ = ["WORDS", "Shape", "best_value", "forward_until", "gpt2_shape", "moment_until"]

WORDS = 998
"""Words of the tokenizer; the embedding keeps GPT-2's 50,257 rows."""


@dataclass(frozen=True)
class Shape:
    """A model twice (wrapped and untouched), and the module that is edited in the untouched one."""

    model: ml.Model
    plain: Any
    layer: int

    @property
    def module(self) -> nn.Module:
        """The MLP's output projection of the layer."""
        module: nn.Module = self.plain.transformer.h[self.layer].mlp.c_proj
        return module


def gpt2_shape(layer: int, *, quick: bool = False) -> Shape:
    """Return GPT-2-small's shape with random weights, larger than at initialisation."""
    tokenizer = word_tokenizer([f"w{n}" for n in range(WORDS)])
    size = {"n_embd": 32, "n_layer": layer + 2, "n_head": 4, "vocab_size": 1000} if quick else {}
    config = tf.GPT2Config(**{"bos_token_id": None, "eos_token_id": None, **size})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = tf.GPT2LMHeadModel(config).eval().requires_grad_(False)
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            if weight.ndim == 2:
                weight.mul_(5 if "wte" in name else 2)
    model = ml.wrap_model(copy.deepcopy(plain), tokenizer, name="gpt2-shape", prepend_bos=False)
    return Shape(model, plain, layer)


@contextmanager
def changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Put `change(output)` in the place of what leaves the module."""
    handle = module.register_forward_hook(lambda _, args, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def best_value(
    shape: Shape,
    rows: Sequence[Sequence[int]],
    lookups: Sequence[int],
    target: int,
    settings: dict[str, float],
) -> Tensor:
    """Return the vector that the published procedure finds, `[d_model]`.

    Each step is one forward pass of all rows, all layers and all positions, logits at all
    positions, and one backward pass; rows are padded on the right (Meng et al. 2022, public code).

    Args:
        shape: the model.
        rows: token ids of the prompt in each context; the last row is the unrelated sentence.
        lookups: position of the subject's last token in each row.
        target: the new object's only token.
        settings: steps, learning_rate, kl_weight, decay_weight and clamp.
    """
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    mask = (torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]).long()
    each, at = torch.arange(len(rows)), torch.tensor(lookups)
    ends = torch.tensor([len(row) - 1 for row in rows[:-1]])
    seen: list[Tensor] = []

    def run(change: Callable[[Tensor], Tensor]) -> Tensor:
        with changed(shape.module, change):
            logits: Tensor = shape.plain(ids, attention_mask=mask, use_cache=False).logits
        return logits.log_softmax(-1)

    with torch.no_grad():
        first = run(lambda output: seen.append(output) or output)[-1, at[-1]]
    v0 = seen[0][0, at[0]].norm()
    delta = torch.zeros(seen[0].shape[-1], requires_grad=True)
    adam = torch.optim.Adam([delta], lr=settings["learning_rate"])
    for step in range(int(settings["steps"])):
        adam.zero_grad()
        logs = run(lambda output: output.index_put((each, at), output[each, at] + delta))
        now = logs[-1, at[-1]]
        loss = -logs[each[:-1], ends, target].mean()
        loss = loss + settings["kl_weight"] * (now.exp() * (now - first)).sum()
        loss = loss + settings["decay_weight"] * delta.norm() / v0**2
        loss.backward()
        if step == settings["steps"] - 1:
            break
        delta.grad.nan_to_num_(nan=0.0)  # type: ignore[union-attr]
        adam.step()
        with torch.no_grad():
            delta.mul_((settings["clamp"] * v0 / delta.norm()).clamp(max=1.0))
    return delta.detach()


class _There(Exception):  # noqa: N818 - a signal, not an error
    """Ends a forward pass."""


def forward_until(shape: Shape, rows: Tensor, read: Callable[[Tensor], None]) -> None:
    """Run rows of one length up to what enters the layer's projection, and no further."""

    def stop(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        read(args[0])
        raise _There

    handle = shape.module.register_forward_pre_hook(stop)
    try:
        with torch.no_grad(), suppress(_There):
            shape.plain(rows, use_cache=False)
    finally:
        handle.remove()


def moment_until(shape: Shape, rows: Tensor) -> Tensor:
    """Return the mean of k k^T in float64 over rows, one after the other."""
    found: list[Tensor] = []
    for row in rows:
        forward_until(shape, row[None], lambda keys: found.append(keys[0].double()))
    keys = torch.cat(found)
    return keys.T @ keys / len(keys)
