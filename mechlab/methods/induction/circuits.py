"""Eigenvalues of OV circuits, from weights alone."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from mechlab.engine.readout import LinearNorm, exact, linear_norm
from mechlab.errors import SiteError

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["ov_eigenvalues"]

Array = np.ndarray[Any, Any]
SMALL = 1e-9
"""Eigenvalues that add up to less than this share of the circuit's size are rounding."""
FEW = 5e10
"""Up to so many products of vocabulary and width are worked out in float64."""


def ov_eigenvalues(model: "Model", product: Literal["full", "ov"]) -> tuple[Array, Array, str]:
    """Return score `[layer, head]`, status of the same axes, and the convention in words.

    The nonzero eigenvalues of `W_E W_V W_O W_U`, `[vocab, vocab]`, are those of
    `W_O W_U W_E W_V`, `[d_head, d_head]`.

    Raises:
        SiteError: a model without matrices W_V and W_O of its own per head.
        ModelError: a norm that is neither LayerNorm nor RMSNorm.
    """
    with model.lock, torch.no_grad():
        around, middle = _middle(model, product)
        scores, reasons = [], []
        for layer in range(model.n_layers):
            values, outputs = _matrices(model, layer)
            norm = _norm(model, model.bridge.blocks[layer], "ln1")
            read = values if norm is None else norm.pulled_back(values.mT).mT
            small = outputs @ read if middle is None else outputs @ middle @ read
            size = outputs.flatten(1).norm(dim=1) * read.flatten(1).norm(dim=1)
            score, reason = _scored(small, size if middle is None else size * middle.norm())
            scores.append(score)
            reasons.append(reason)
    return np.stack(scores), np.stack(reasons), around


def _middle(model: "Model", product: str) -> tuple[str, Tensor | None]:
    """Return the convention, and `W_U W_E` with the final norm folded in, `[d_model, d_model]`."""
    folded = "ln1 folded into W_V (gain, centring where the norm centres)"
    if product == "ov":
        return f"W_V W_O; {folded}", None
    embed, unembed = model.bridge.W_E.detach(), model.bridge.W_U.detach()
    wide = embed.shape[0] * embed.shape[1] ** 2 <= FEW
    total = torch.zeros(len(unembed), embed.shape[1], device=embed.device, dtype=torch.float32)
    total = exact(total) if wide else total
    mean = unembed.mean(dim=1, dtype=total.dtype)
    for start in range(0, len(embed), 4096):
        columns = unembed[:, start : start + 4096].to(total.dtype) - mean[:, None]
        total += columns @ embed[start : start + 4096].to(total.dtype)
    norm = _norm(model, model.bridge, "ln_final")
    total = exact(total)
    total = total if norm is None else norm.pulled_back(total.mT).mT
    return (
        f"W_E W_V W_O W_U; W_E token embedding alone, W_U centred over the vocabulary; {folded}, "
        "ln_final into W_U",
        total,
    )


def _matrices(model: "Model", layer: int) -> tuple[Tensor, Tensor]:
    """Return W_V `[head, d_model, d_head]`, repeated for grouped queries, and W_O, in float64."""
    attention = model.bridge.blocks[layer].attn
    values, outputs = (getattr(attention, name, None) for name in ("W_V", "W_O"))
    if not (isinstance(values, Tensor) and isinstance(outputs, Tensor) and values.ndim == 3):
        raise SiteError(
            f"{model.name} ({model.family}): layer {layer} has no matrices W_V and W_O of its own "
            "per head. Allowed: models whose values are one product per head. Use kind='olsson' or "
            "'behavioural', which read activations."
        )
    values, outputs = exact(values.detach()), exact(outputs.detach())
    return values.repeat_interleave(len(outputs) // len(values), dim=0), outputs


def _norm(model: "Model", owner: Any, name: str) -> LinearNorm | None:
    module = getattr(owner, "_modules", {}).get(name)
    if module is None:
        return None
    return linear_norm(module, model.d_model, model.dtype, model.device)


def _scored(small: Tensor, size: Tensor) -> tuple[Array, Array]:
    """Return score and status of circuits `[head, d_head, d_head]`."""
    finite = torch.isfinite(small).flatten(1).all(1)
    values = torch.linalg.eigvals(torch.where(finite[:, None, None], small, 0.0))
    whole = values.abs().sum(-1)
    there = finite & (whole > SMALL * size)
    trace = small.diagonal(dim1=1, dim2=2).sum(-1)
    score = torch.where(there, trace / whole, torch.nan).cpu().numpy()
    reasons = ["the circuit is zero or nilpotent", "weights are not finite"]
    status = np.where(there.cpu().numpy(), "ok", np.where(finite.cpu().numpy(), *reasons))
    return score, status
