"""What a model's parts write into the residual stream, and what each is worth behind the norm.

Every write is taken from the run itself. That heads' outputs add up to what their attention wrote,
and attention weights times values to a head's output, is checked on every prompt: a model on which
it does not hold is refused with the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechlab.axes import Head
from mechlab.engine import Recording, require_proven
from mechlab.engine.readout import exact, linear_norm
from mechlab.engine.verify import TOLERANCE
from mechlab.errors import SiteError
from mechlab.hooks import Place

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Component", "Seen", "Writes"]


@dataclass(frozen=True)
class Component:
    """One write to the residual stream.

    Attributes:
        label: name in results, `L3.mlp`.
        kind: `embed`, `pos_embed`, `attn`, `attn_bias`, `mlp` or `mixer`.
        layer: block index, -1 outside the blocks.
    """

    label: str
    kind: str
    layer: int = -1


@dataclass(frozen=True, eq=False)
class Seen:
    """What one run wrote at its last position.

    Attributes:
        vectors: write of every component, `[component, d_model]`, float64.
        final: residual entering the final norm, `[d_model]`.
        logits: `[vocab]`.
        attention: per layer what the attention wrote, `[d_model]`; empty without heads.
        z: per layer the heads' outputs, `[head, d_head]`.
        patterns: per layer the last row of the attention weights, `[head, pos]`.
        values: per layer the values, `[pos, kv_head, d_head]`.
    """

    vectors: Tensor
    final: Tensor
    logits: Tensor
    attention: list[Tensor]
    z: list[Tensor]
    patterns: list[Tensor]
    values: list[Tensor]


class Writes:
    """The additive writes of one model."""

    def __init__(self, model: "Model", *, heads: bool = False, sources: bool = False) -> None:
        """Find out what writes; call it with the model's lock held.

        Args:
            model: the model.
            heads: whether attention is to be split by head.
            sources: whether heads are to be split by the token they read; implies `heads`.

        Raises:
            SiteError: on a model whose parts do not add up to its residual stream, or without
                heads where heads are asked for.
        """
        if (heads or sources) and not model.has_attention:
            raise SiteError(
                f"{model.name} ({model.family}) is recurrent and has no attention heads. Allowed: "
                "the decomposition by component, in which every mixer is one. Use by='component'."
            )
        self.model = model
        self.heads, self.sources = heads or sources, sources
        positions = model.bridge._modules.get("pos_embed")
        self._has_positions = type(positions).__name__ == "PosEmbedBridge"  # others are rotary
        self.sites = ["attn_out", "mlp_out"] if model.has_attention else ["mixer_out"]
        self._inner = [*(["z"] if self.heads else []), *(["pattern", "v"] if sources else [])]
        outer = ["resid_pre", *(["embed"] if self._has_positions else [])]
        require_proven(model, [*outer, *self.sites, *self._inner])
        self._attentions = [block.attn for block in model.bridge.blocks if model.has_attention]
        self._post_norms = [getattr(block, "ln1_post", None) for block in model.bridge.blocks]
        self.components = tuple(self._components())

    def _components(self) -> list[Component]:
        found = [Component("embed", "embed")]
        found += [Component("pos_embed", "pos_embed")] if self._has_positions else []
        for layer in range(self.model.n_layers):
            for kind in (site.removesuffix("_out") for site in self.sites):
                found.append(Component(f"L{layer}.{kind}", kind, layer))
                if kind == "attn" and self._bias(layer) is not None:
                    found.append(Component(f"L{layer}.attn_bias", "attn_bias", layer))
        return found

    def _bias(self, layer: int) -> Tensor | None:
        """Return the bias that the attention of a layer writes beside its heads, if any."""
        bias = self._attentions[layer].b_O
        if self._post_norms[layer] is not None or not isinstance(bias, Tensor):
            return None
        return exact(bias.detach())

    @property
    def places(self) -> list[Place]:
        """Sites to record."""
        outer: list[Place] = [("resid_pre", 0)]
        outer += [("embed", None)] if self._has_positions else []
        names = [*self.sites, *self._inner]
        return outer + [(name, layer) for layer in range(self.model.n_layers) for name in names]

    def look(self, recording: Recording) -> Seen:
        """Keep of a recording what the last position needs."""
        values, layers = recording.values, range(self.model.n_layers)
        return Seen(
            self._vectors(recording),
            recording.final,
            recording.logits,
            [values["attn_out", n][-1].clone() for n in layers if self.heads],
            [values["z", n][-1].clone() for n in layers if self.heads],
            [values["pattern", n][:, -1].clone() for n in layers if self.sources],
            [values["v", n].clone() for n in layers if self.sources],
        )

    def _vectors(self, recording: Recording) -> Tensor:
        values = recording.values
        entering = exact(values["resid_pre", 0][-1])
        found = [entering]
        if self._has_positions:
            embedded = exact(values["embed", None][-1])
            found = [embedded, entering - embedded]
        for layer in range(self.model.n_layers):
            for site in self.sites:
                write = exact(values[site, layer][-1])
                bias = self._bias(layer) if site == "attn_out" else None
                found += [write] if bias is None else [write - bias, bias]
        return torch.stack(found)

    def head_shares(self, seen: Sequence[Seen], directions: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what each head, and each token it read, wrote along directions.

        Args:
            seen: runs.
            directions: in the residual stream, `[run, answer, d_model]`, float64.

        Returns:
            `[run, layer, head, answer]`, and per run `[layer, head, pos, answer]` (empty without
            sources).

        Raises:
            SiteError: when heads do not add up to their attention's write, or attention weights
                times values to a head's output.
        """
        heads, sources = [], []
        for layer in range(self.model.n_layers):
            z = exact(torch.stack([one.z[layer] for one in seen]))
            weight = exact(self._attentions[layer].W_O.detach())
            here = self._before_post_norm(layer, seen, z, weight, directions)
            worth = torch.einsum("hdm,nam->nhda", weight, here)
            heads.append(torch.einsum("nhd,nhda->nha", z, worth))
            sources.append(
                [
                    self._source_shares(layer, one, z[n], worth[n])
                    for n, one in enumerate(seen)
                    if self.sources
                ]
            )
        return torch.stack(heads, 1), [torch.stack(layers) for layers in zip(*sources, strict=True)]

    def head_vectors(self, seen: Seen, heads: Sequence[Head]) -> Tensor:
        """Return what single heads wrote to the residual stream, `[head, d_model]`, float64.

        Raises:
            SiteError: as in `head_shares`.
        """
        unit = torch.eye(
            self.model.d_model, dtype=exact(seen.final).dtype, device=seen.final.device
        )
        found = []
        for head in heads:
            weight = exact(self._attentions[head.layer].W_O.detach())
            z = exact(seen.z[head.layer])
            axes = self._before_post_norm(head.layer, [seen], z[None], weight, unit[None])[0]
            found.append(axes @ (z[head.head] @ weight[head.head]))
        return torch.stack(found)

    def _before_post_norm(
        self, layer: int, seen: Sequence[Seen], z: Tensor, weight: Tensor, directions: Tensor
    ) -> Tensor:
        """Return directions in front of the norm that follows the heads, if there is one."""
        added = torch.einsum("nhd,hdm->nm", z, weight)
        bias = self._attentions[layer].b_O
        if isinstance(bias, Tensor):
            added = added + exact(bias.detach())
        written = exact(torch.stack([one.attention[layer] for one in seen]))
        module, model = self._post_norms[layer], self.model
        if module is None:
            self._check("heads times W_O and the output bias", "attn_out", layer, added, written)
            return directions
        norm = linear_norm(module, model.d_model, model.dtype, model.device)
        scales = norm.scales(added.to(model.dtype))[:, None]
        linear = norm(added, scales)
        self._check("heads behind the norm that follows them", "attn_out", layer, linear, written)
        return norm.pulled_back(directions) / scales[:, None]

    def _source_shares(self, layer: int, seen: Seen, z: Tensor, worth: Tensor) -> Tensor:
        """Return what each head copied from each token is worth, `[head, pos, answer]`."""
        pattern, values = exact(seen.patterns[layer]), exact(seen.values[layer])
        group = pattern.shape[0] // values.shape[1]
        values = values.repeat_interleave(group, dim=1)  # each kv head serves a group in a row
        added = torch.einsum("hs,shd->hd", pattern, values)
        self._check("attention weights times values", "z", layer, added, z)
        return torch.einsum("hs,shd,hda->hsa", pattern, values, worth)

    def _check(self, what: str, site: str, layer: int, added: Tensor, written: Tensor) -> None:
        gap = float((added - written).abs().max())
        size = max(1.0, float(written.abs().max()))
        if not gap <= TOLERANCE.get(self.model.dtype, 1e-2) * size:
            raise SiteError(
                f"layer {layer} of {self.model.name} ({self.model.family}) cannot be split like "
                f"this: {what} differ from {site!r} by {gap:.1e}, as where a gate, a sink or "
                "another norm comes in between, or where an intervention overwrote the sum.\n"
                "  Allowed: attention whose heads' outputs are added as they are.\n"
                "  Use by='component', or measure heads by interventions (activation patching)."
            )
