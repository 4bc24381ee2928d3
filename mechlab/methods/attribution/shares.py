"""The logits of runs, split into the shares of what was written to their residual stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechlab.engine.readout import LinearReadout, exact
from mechlab.engine.verify import TOLERANCE
from mechlab.errors import ModelError
from mechlab.methods.attribution.writes import Component, Seen, Writes

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Share", "Shares"]


@dataclass(frozen=True, eq=False)
class Share:
    """The decomposition of one run.

    Attributes:
        component: `[component, answer]`.
        head: `[layer, head, answer]`, or `None` when not asked for.
        source: `[layer, head, pos, answer]`, or `None`.
        logit: the model's own logits, centred, `[answer]`.
        left: what the components leave of them, `[answer]`.
        scale: of the final norm; NaN where none was applied.
        weights: of each answer in the metric.
    """

    component: Tensor
    head: Tensor | None
    source: Tensor | None
    logit: Tensor
    left: Tensor
    scale: float
    weights: Tensor

    def metric(self, values: Tensor) -> Tensor:
        """Turn the last axis, the answers, into the metric."""
        return values @ self.weights


class Shares:
    """Splits logits of runs into the shares of their writes."""

    def __init__(
        self,
        model: "Model",
        writes: Writes,
        readout: LinearReadout,
        norm: str,
        weights: Sequence[float],
    ) -> None:
        """List the parts; `weights` are those of each answer's logit in the metric."""
        self.model, self.writes, self.readout, self.norm = model, writes, readout, norm
        self.weights = exact(torch.tensor(weights, device=model.device))
        constants = []
        if readout.norm.bias is not None:
            constants.append(Component("final_norm_bias", "final_norm_bias"))
        if bool(readout.unembed_bias.any()):
            constants.append(Component("unembed_bias", "unembed_bias"))
        self.components = (*writes.components, *constants)

    def split(
        self,
        seen: Sequence[Seen],
        answers: Sequence[Sequence[int]],
        scale_of: Sequence[Tensor] | None,
    ) -> list[Share]:
        """Split runs; `scale_of` are the final residuals whose scale is used, default their own.

        Raises:
            ModelError: when the readout is not linear, or the shares do not add up.
        """
        readout = self.readout
        tokens = torch.tensor(answers, device=self.model.device)
        final = torch.stack([one.final for one in seen])
        logits = torch.stack([one.logits for one in seen])
        own = readout.prove(self.model, final, logits)
        plain = readout.directions(tokens, centred=True)  # [run, answer, d_model]
        behind = readout.norm.pulled_back(plain)
        constants = self._constants(plain, tokens)  # [run, constant, answer]
        truth = self._truth(logits, final, behind, own, tokens, constants)
        vectors = torch.stack([one.vectors for one in seen])
        written = torch.einsum("ncm,nam->nca", vectors, behind) / own[:, None, None]
        self._prove_sum(written, constants, truth)
        scale, directions = own, behind
        if scale_of is not None:
            scale = readout.norm.scales(torch.stack(list(scale_of)))
        if self.norm == "none":
            scale, directions = torch.ones_like(own), plain
            constants = self._without_norm(constants)
        directions = directions / scale[:, None, None]
        written = torch.einsum("ncm,nam->nca", vectors, directions)
        components = torch.cat([written, constants], 1)
        left = truth - components.nansum(1)
        heads, sources = None, None
        if self.writes.heads:
            heads, sources = self.writes.head_shares(seen, directions)
        return [
            Share(
                components[n],
                None if heads is None else heads[n],
                sources[n] if sources else None,
                truth[n],
                left[n],
                float("nan") if self.norm == "none" else float(scale[n]),
                self.weights,
            )
            for n in range(len(seen))
        ]

    def _constants(self, directions: Tensor, tokens: Tensor) -> Tensor:
        """Return the shares of final-norm bias and unembedding bias, `[run, constant, answer]`."""
        kinds = [one.kind for one in self.components[len(self.writes.components) :]]
        found = directions.new_zeros(len(tokens), len(kinds), tokens.shape[1])
        for place, kind in enumerate(kinds):
            if kind == "unembed_bias":
                found[:, place] = self.readout.biases(tokens, centred=True)
            elif self.readout.norm.bias is not None:
                found[:, place] = directions @ self.readout.norm.bias
        return found

    def _without_norm(self, constants: Tensor) -> Tensor:
        """Return the constants with NaN for the norm's bias, which then does not exist."""
        kinds = [one.kind for one in self.components[len(self.writes.components) :]]
        found = constants.clone()
        found[:, [kind == "final_norm_bias" for kind in kinds]] = float("nan")
        return found

    def _truth(
        self,
        logits: Tensor,
        final: Tensor,
        behind: Tensor,
        own: Tensor,
        tokens: Tensor,
        constants: Tensor,
    ) -> Tensor:
        """Return the model's own centred logits of the answers, before a soft cap."""
        if self.readout.soft_cap is None:
            wide = exact(logits)
            return wide.gather(1, tokens) - wide.mean(-1, keepdim=True)
        # A saturated cap cannot be undone; that the linear logits give the capped ones is proven.
        return torch.einsum("nm,nam->na", exact(final), behind) / own[:, None] + constants.sum(1)

    def _prove_sum(self, written: Tensor, constants: Tensor, truth: Tensor) -> None:
        """Refuse shares that do not add up to the model's logits."""
        parts = torch.cat([written, constants], 1)
        gap = (parts.sum(1) - truth).abs()
        size = parts.abs().sum(1).clamp(min=1)
        limit = TOLERANCE.get(self.model.dtype, 1e-2)
        if bad := [n for n in range(len(gap)) if not bool((gap[n] <= limit * size[n]).all())]:
            raise ModelError(
                f"the parts of {self.model.name} ({self.model.family}) do not add up to its "
                f"logits (off by {float(gap[bad].max()):.1e} in {len(bad)} of {len(gap)} runs): "
                "something changes the residual stream beside what the blocks write, such as an "
                "intervention on the residual itself.\n"
                "  Allowed: interventions on the sites that write (embed, q, k, v, scores, "
                "pattern, z, attn_out, mlp_out, mixer_out).\n"
                "  Leave the others out, or measure effects by interventions alone."
            )
