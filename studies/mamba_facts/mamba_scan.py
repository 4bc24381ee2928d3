"""A scan for Mamba whose gradient is cheap on a CPU: the same arithmetic in a fraction of the time.

The implementation in transformers indexes one large tensor at every position, so that its gradient
costs as many tensors of that size. Here gradients are written out and every position is finished
while its numbers are in the processor's cache. A test compares the two.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor
from transformers.models.mamba import modeling_mamba


class SelectiveScan(torch.autograd.Function):
    """`h_t = exp(step_t A) h_{t-1} + step_t x_t B_t` and `y_t = C_t h_t`, with their gradients.

    Shapes: `step` and `x` `[pos, batch, d_inner]`, `a` `[state, d_inner]`, `b` and `c`
    `[pos, state, batch]`; states are `[pos, state, batch, d_inner]`.
    """

    @staticmethod
    def forward(ctx: Any, step: Tensor, x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Return what is read from the states, `[pos, batch, d_inner]`."""
        length, batch, width = x.shape
        states = x.new_empty(length, len(a), batch, width)
        read = torch.empty_like(x)
        for t in range(length):
            torch.mul((step[t] * x[t])[None], b[t][..., None], out=states[t])
            if t:
                states[t].addcmul_(torch.exp(step[t] * a[:, None]), states[t - 1])
            torch.sum(states[t] * c[t][..., None], 0, out=read[t])
        ctx.save_for_backward(step, x, a, b, c, states)
        return read

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Return the gradients of all five."""
        step, x, a, b, c, states = ctx.saved_tensors
        found = tuple(torch.zeros_like(one) for one in (step, x, a, b, c))
        at_step, at_x, at_a, at_b, at_c = found
        held = torch.zeros_like(states[0])  # gradient of the state, from later positions
        for t in range(len(x) - 1, -1, -1):
            torch.sum(gradient[t] * states[t], -1, out=at_c[t])
            held.addcmul_(gradient[t][None], c[t][..., None])
            written = (held * b[t][..., None]).sum(0)
            torch.sum(held * (step[t] * x[t]), -1, out=at_b[t])
            torch.mul(written, step[t], out=at_x[t])
            torch.mul(written, x[t], out=at_step[t])
            if t:
                held *= torch.exp(step[t] * a[:, None])
                faded = held * states[t - 1]
                at_step[t] += (faded * a[:, None]).sum(0)
                at_a += (faded * step[t]).sum(1)
        return found


def mamba_logits(model: Any, tokens: Tensor) -> Tensor:
    """Return the logits `[batch, pos, vocab]` of a `MambaForCausalLM`, equal to its own."""
    residual = model.backbone.embeddings(tokens.T)  # [pos, batch, d_model]
    for block in model.backbone.layers:
        residual = residual + _mixer(block.mixer, block.norm(residual))
    logits: Tensor = model.lm_head(model.backbone.norm_f(residual))
    return logits.transpose(0, 1)


def _mixer(mixer: Any, entering: Tensor) -> Tensor:
    """Return what a mixer adds to the residual, `[pos, batch, d_model]`."""
    stream, gate = mixer.in_proj(entering).chunk(2, -1)
    stream = F.silu(_convolved(mixer.conv1d, stream))
    rank, size = mixer.time_step_rank, mixer.ssm_state_size
    step, into, out_of = mixer.x_proj(stream).split([rank, size, size], -1)
    read = SelectiveScan.apply(
        F.softplus(mixer.dt_proj(step)),
        stream,
        -torch.exp(mixer.A_log).T,
        into.transpose(1, 2),
        out_of.transpose(1, 2),
    )
    added: Tensor = mixer.out_proj((read + stream * mixer.D) * F.silu(gate))
    return added


def _convolved(convolution: Any, stream: Tensor) -> Tensor:
    """Return the causal convolution of every channel along the positions."""
    weight = convolution.weight[:, 0]  # [d_inner, kernel]
    length, kernel = len(stream), weight.shape[1]
    padded = F.pad(stream, (0, 0, 0, 0, kernel - 1, 0))
    found = sum(padded[k : k + length] * weight[:, k] for k in range(kernel))
    return found if convolution.bias is None else found + convolution.bias


@contextmanager
def quick_scan() -> Iterator[None]:
    """Let Mamba models of transformers scan in this way for the length of a `with` block."""
    theirs = modeling_mamba.mamba_selective_scan

    def ours(x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, **more: Any) -> Any:
        if more["return_last_state"]:
            return theirs(x, step, a, b, c, **more)
        step = F.softplus(step + more["delta_bias"][:, None])
        by_position = [part.permute(2, 1, 0) for part in (b, c)]
        read = SelectiveScan.apply(step.permute(2, 0, 1), x.permute(2, 0, 1), a.T, *by_position)
        return (read.permute(1, 2, 0) + x * more["D"][:, None]) * F.silu(more["z"])

    modeling_mamba.mamba_selective_scan = ours
    try:
        yield
    finally:
        modeling_mamba.mamba_selective_scan = theirs
