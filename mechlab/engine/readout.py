"""The way from the final residual to the logits, made linear at one residual.

A norm divides by a scale that depends on all of its input. With the scale held at its value in one
run the norm is a linear map plus a constant, and so is the whole way to the logits: each vector
that was added to the residual then has a share of every logit of its own, and the shares add up.

How a norm centres and weighs its input is read from the module and proven on its own output; the
scale is the one that the module really used.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mechlab.engine.verify import TOLERANCE
from mechlab.errors import ModelError

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["LinearNorm", "LinearReadout", "exact", "linear_norm", "linear_readout"]

FIT = {torch.float64: 1e-5, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}
"""Largest allowed distance, relative to its length, between a norm's output and the linear form.
In float64 no smaller than in float32: transformers computes RMS norms in float32 always."""


def exact(tensor: Tensor) -> Tensor:
    """Return the tensor in float64, or in float32 on a device that has nothing wider."""
    return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)


@dataclass(frozen=True, eq=False)
class LinearNorm:
    """A norm as `gain * (x - mean(x)) / scale + bias`, with `scale` to be held fixed.

    Attributes:
        module: the model's own module, `[row, pos, d_model]` to the same shape.
        centred: whether the mean over `d_model` is subtracted (LayerNorm; not RMSNorm).
        gain: `[d_model]`, float64, as it multiplies (one added where the module stores an offset).
        bias: `[d_model]`, float64, or `None`.
    """

    module: Any
    centred: bool
    gain: Tensor
    bias: Tensor | None

    def scales(self, states: Tensor) -> Tensor:
        """Return the scale by which the module divides each state.

        Args:
            states: `[row, d_model]`, in the model's precision.

        Returns:
            `[row]`, float64.

        Raises:
            ModelError: when the module's output is not of the linear form.
        """
        output = self.module(states[:, None])[:, 0]
        inverse, misfit = _fit(exact(output), exact(states), self)
        _refuse_misfit(float(misfit.max()), states.dtype, type(self.module).__name__)
        return 1 / inverse

    def pulled_back(self, directions: Tensor) -> Tensor:
        """Return what a direction behind the norm weighs in front of it, for a scale of 1.

        Args:
            directions: `[..., d_model]`.

        Returns:
            `[..., d_model]`: the dot product of a vector with it, divided by the scale, is the dot
            product of the direction with the normed vector, bias left out.
        """
        weighed = directions * self.gain
        return weighed - weighed.mean(-1, keepdim=True) if self.centred else weighed

    def __call__(self, vectors: Tensor, scale: Tensor) -> Tensor:
        """Return vectors `[..., d_model]` behind the norm, bias left out, at a given scale."""
        vectors = exact(vectors)
        centred = vectors - vectors.mean(-1, keepdim=True) if self.centred else vectors
        return centred * self.gain / scale


def linear_norm(module: Any, d_model: int, dtype: torch.dtype, device: torch.device) -> LinearNorm:
    """Read a norm module's form and prove it on a few random states.

    Raises:
        ModelError: when no form of a LayerNorm or RMSNorm gives the module's own output.
    """
    inner = getattr(module, "original_component", None) or module
    weight, bias = getattr(inner, "weight", None), getattr(inner, "bias", None)
    shift = exact(bias) if isinstance(bias, Tensor) else None
    one = exact(torch.ones(d_model, device=device))
    gains = [one] if not isinstance(weight, Tensor) else [exact(weight), 1 + exact(weight), one]
    random = torch.randn(4, d_model, generator=torch.Generator().manual_seed(0)) + 0.5
    states = random.to(device=device, dtype=dtype)
    output = exact(module(states[:, None])[:, 0])
    forms = [LinearNorm(module, centred, g, shift) for centred in (True, False) for g in gains]
    misfits = [float(_fit(output, exact(states), form)[1].max()) for form in forms]
    best = min(range(len(forms)), key=lambda i: misfits[i])
    _refuse_misfit(misfits[best], dtype, type(inner).__name__)
    return forms[best]


def _fit(output: Tensor, states: Tensor, form: LinearNorm) -> tuple[Tensor, Tensor]:
    """Return the inverse scale per row that fits best, and the relative distance that is left."""
    target = output if form.bias is None else output - form.bias
    shape = form(states, states.new_ones(()))
    inverse = (target * shape).sum(-1) / (shape * shape).sum(-1)
    left = (target - shape * inverse[:, None]).norm(dim=-1)
    return inverse, left / target.norm(dim=-1).clamp(min=1e-30)


def _refuse_misfit(misfit: float, dtype: torch.dtype, name: str) -> None:
    if not misfit <= FIT.get(dtype, 2e-2):
        raise ModelError(
            f"the norm {name} is not a LayerNorm or RMSNorm: its output is off by {misfit:.1e} of "
            "its length from gain * (x - mean) / scale + bias.\n"
            "  Allowed: norms of that form, with or without mean, gain and bias.\n"
            "  Measure effects by interventions instead (activation patching, ablation)."
        )


@dataclass(frozen=True, eq=False)
class LinearReadout:
    """Final norm and unembedding of a model, with the norm's scale to be held fixed.

    Attributes:
        norm: the final norm.
        unembed: `[d_model, vocab]`, the model's own tensor.
        unembed_bias: `[vocab]`; zeros where the model has none.
        multiplier: by which the model multiplies its logits (1 in most).
        soft_cap: `c` where the model's logits are `c * tanh(logits / c)`, else `None`. Shares are
            of the logits before it.
        mean_column, mean_bias: averages over the vocabulary, `[d_model]` and `[]`, float64.
    """

    norm: LinearNorm
    unembed: Tensor
    unembed_bias: Tensor
    multiplier: float
    soft_cap: float | None
    mean_column: Tensor
    mean_bias: Tensor

    def directions(self, tokens: Tensor, *, centred: bool) -> Tensor:
        """Return the unembedding columns of tokens, `[..., d_model]`, float64.

        Args:
            tokens: ids of any shape.
            centred: subtract the average over the vocabulary, as only differences of logits mean
                anything.
        """
        columns = exact(self.unembed[:, tokens.reshape(-1)].T).reshape(*tokens.shape, -1)
        return self.multiplier * (columns - self.mean_column if centred else columns)

    def biases(self, tokens: Tensor, *, centred: bool) -> Tensor:
        """Return the unembedding biases of tokens, shaped like them."""
        found = exact(self.unembed_bias[tokens])
        return self.multiplier * (found - self.mean_bias if centred else found)

    def logits(self, vectors: Tensor, scales: Tensor, constants: Tensor | None = None) -> Tensor:
        """Return the logits of vectors, soft cap included, at given scales.

        Args:
            vectors: `[row, d_model]`.
            scales: `[row]`.
            constants: 1 where the biases of norm and unembedding count, 0 where not, `[row]`;
                default 1.

        Returns:
            `[row, vocab]` in the precision of the unembedding.
        """
        count = exact(torch.ones_like(scales) if constants is None else constants)[:, None]
        normed = self.norm(vectors, scales[:, None])
        if self.norm.bias is not None:
            normed = normed + self.norm.bias * count
        wide = normed.to(self.unembed.dtype) @ self.unembed
        found = self.multiplier * (wide + self.unembed_bias * count.to(wide.dtype))
        cap = self.soft_cap
        return found if cap is None else cap * torch.tanh(found / cap)

    def prove(self, model: "Model", finals: Tensor, logits: Tensor) -> Tensor:
        """Refuse a model that does more between residual and logits than a norm and a product.

        Args:
            model: the model.
            finals: residuals that entered its final norm, `[row, d_model]`.
            logits: what the model made of them, `[row, vocab]`.

        Returns:
            The norm's scales, `[row]`.

        Raises:
            ModelError: when the linear readout gives other logits.
        """
        scales = self.norm.scales(finals)
        gap = float((self.logits(finals, scales) - logits).abs().max())
        size = max(1.0, float(logits.abs().max()))
        if not gap <= TOLERANCE.get(model.dtype, 5e-2) * size:
            raise ModelError(
                f"the logits of {model.name} ({model.family}) are not those of its final norm and "
                f"unembedding (off by {gap:.1e}): something else lies between residual and logits."
                "\n  Allowed: models whose logits are unembed(norm(residual)), perhaps multiplied "
                "or soft-capped.\n"
                "  Measure effects by interventions instead (activation patching, ablation)."
            )
        return scales


def linear_readout(model: "Model") -> LinearReadout:
    """Read the final norm and the unembedding of a model; call it with the model's lock held.

    Raises:
        ModelError: when the model has no final norm of the usual form in front of its unembedding.
    """
    bridge = model.bridge
    module = getattr(bridge, "ln_final", None)
    if module is None:
        raise ModelError(
            f"{model.name} ({model.family}) has no final norm in front of its unembedding.\n"
            "  Allowed: decoders whose logits are unembed(norm(residual)).\n"
            "  Use ml.logit_lens with norm='own', which runs the model's own head."
        )
    unembed, bias = bridge.W_U.detach(), bridge.b_U.detach()
    multiplier, cap = _output_transform(bridge, model.dtype, model.device)
    return LinearReadout(
        linear_norm(module, model.d_model, model.dtype, model.device),
        unembed,
        bias,
        multiplier,
        cap,
        exact(unembed.mean(-1, dtype=exact(unembed[:1, :1]).dtype)),
        exact(bias).mean(),
    )


def _output_transform(
    bridge: Any, dtype: torch.dtype, device: torch.device
) -> tuple[float, float | None]:
    """Return by what the model multiplies its logits, and its soft cap."""
    transform = getattr(getattr(bridge, "adapter", None), "apply_output_logits_transform", None)
    if not callable(transform):
        return 1.0, None
    wide = torch.float32 if device.type == "mps" else torch.float64
    small, huge = 1e-4, 1e9
    probes = transform(torch.tensor([[small, huge]], dtype=wide, device=device))[0]
    slope, limit = float(probes[0]) / small, float(probes[1])
    capped = abs(limit) < 0.5 * abs(slope) * huge
    return slope, limit if capped else None
