"""ROME, R-ROME, p-ROME and fine-tuning in plain PyTorch on a plain Hugging Face model.

Nothing of mechlab runs here: every prompt alone, unpadded, through whole forward passes, with one
hook on the module that is edited and the closed form written out.
"""

from collections.abc import Callable, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def output_hook(module: nn.Module, function: Callable[[Tensor, Tensor], Tensor]):
    handle = module.register_forward_hook(lambda _, args, out: function(args[0], out))
    try:
        yield
    finally:
        handle.remove()


def logits_of(model: nn.Module, ids: Sequence[int]) -> Tensor:
    return model(torch.tensor([list(ids)]), use_cache=False).logits[0]


def keys_at(model: nn.Module, module: nn.Module, rows: Sequence[tuple[list[int], int]]) -> Tensor:
    """Inputs of the module at one position of each row, `[row, d_in]`."""
    found: list[Tensor] = []
    for ids, position in rows:
        with (
            torch.no_grad(),
            output_hook(module, lambda k, out, p=position: found.append(k[0, p]) or out),
        ):
            logits_of(model, ids)
    return torch.stack(found)


def second_moment(model: nn.Module, module: nn.Module, texts: Sequence[Sequence[int]]) -> Tensor:
    """Mean of k k^T over all tokens of all texts, one text at a time."""
    keys: list[Tensor] = []
    for ids in texts:
        with torch.no_grad(), output_hook(module, lambda k, out: keys.append(k[0].double()) or out):
            logits_of(model, ids)
    every = torch.cat(keys)
    return every.T @ every / len(every)


def best_value(
    model: nn.Module,
    module: nn.Module,
    prompts: Sequence[tuple[list[int], int]],
    target: list[int],
    kl_row: tuple[list[int], int],
    v0: Tensor,
    *,
    steps: int,
    clamp: float,
    lr: float = 0.5,
    kl_weight: float = 0.0625,
    decay: float = 0.5,
) -> Tensor:
    """Adam on the vector added at one position of each prompt; return v0 + delta."""
    delta = torch.zeros_like(v0, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=lr)
    with torch.no_grad():
        start = logits_of(model, kl_row[0])[kl_row[1]].log_softmax(-1)

    def added(position: int) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda _, out: out + delta * (torch.arange(out.shape[1]) == position)[:, None]

    for step in range(steps):
        adam.zero_grad()
        nll = []
        for ids, position in prompts:
            with output_hook(module, added(position)):
                chances = logits_of(model, [*ids, *target[:-1]]).log_softmax(-1)
            places = range(len(ids) - 1, len(ids) - 1 + len(target))
            nll.append(-sum(chances[p, t] for p, t in zip(places, target, strict=True)))
        with output_hook(module, added(kl_row[1])):
            now = logits_of(model, kl_row[0])[kl_row[1]].log_softmax(-1)
        loss = torch.stack(nll).mean() / len(target)
        loss = loss + kl_weight * (now.exp() * (now - start)).sum()
        loss = loss + decay * delta.norm() / v0.norm() ** 2
        if float(loss.detach()) < 0.05 or step == steps - 1:
            break
        loss.backward()
        adam.step()
        with torch.no_grad():
            if delta.norm() > clamp * v0.norm():
                delta *= clamp * v0.norm() / delta.norm()
    return (v0 + delta).detach()


def new_weight(
    weight: Tensor, bias: Tensor | None, keys: Tensor, value: Tensor, moment: Tensor, variant: str
) -> Tensor:
    """W' of `[d_out, d_in]`: the closed form, with an explicit inverse."""
    offset = 0 if bias is None else bias
    mean, bare = keys.mean(0), keys[0]
    u = torch.linalg.inv(moment) @ (bare if variant == "p-rome" else mean)
    k = mean if variant == "r-rome" else bare
    residual = value - (weight @ k + offset)
    return weight + torch.outer(residual, u) / (u @ k)


def fine_tuned(
    model: nn.Module,
    parameter: nn.Parameter,
    ids: list[int],
    target: list[int],
    *,
    steps: int,
    lr: float,
    bound: float | None,
) -> Tensor:
    """Adam on the parameter itself; return its change."""
    before = parameter.detach().clone()
    parameter.requires_grad_()
    adam = torch.optim.Adam([parameter], lr=lr)
    for _ in range(steps):
        adam.zero_grad()
        chances = logits_of(model, [*ids, *target[:-1]]).log_softmax(-1)
        places = range(len(ids) - 1, len(ids) - 1 + len(target))
        loss = -sum(chances[p, t] for p, t in zip(places, target, strict=True)) / len(target)
        loss.backward()
        adam.step()
        if bound is not None:
            with torch.no_grad():
                parameter.copy_(parameter.clamp(before - bound, before + bound))
    return (parameter - before).detach()
