"""Direct effects of what each module writes, on one token's logit, at a scale of choice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechlab.engine import Recording
from mechlab.engine.readout import LinearReadout, exact
from mechlab.engine.verify import TOLERANCE
from mechlab.errors import ModelError
from mechlab.hooks import Place

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Modules", "Reading"]


@dataclass(frozen=True)
class Modules:
    """The modules of a model in the order in which they write.

    Attributes:
        places: (site, layer) of each.
        stage: modules of one stage read the same state; one writes for another only across stages.
        labels: names in results: `embed`, `L0.attn`, ..., `bias`.
    """

    places: tuple[Place, ...]
    stage: tuple[int, ...]
    labels: tuple[str, ...]

    @classmethod
    def of(cls, model: "Model") -> "Modules":
        """Name them; call it after `engine.verify`, which finds out about parallel blocks."""
        sites = ("attn_out", "mlp_out") if model.has_attention else ("mixer_out",)
        places = [(site, layer) for layer in range(model.n_layers) for site in sites]
        parallel = bool(model.parallel_blocks)
        stage = [layer if parallel else number for number, (_, layer) in enumerate(places)]
        names = [f"L{layer}.{site.removesuffix('_out')}" for site, layer in places]
        return cls(tuple(places), tuple(stage), ("embed", *names, "bias"))

    def downstream(self, place: Place) -> list[bool]:
        """Return for every label whether it can react to one place."""
        own = self.stage[self.places.index(place)]
        return [False, *(stage > own for stage in self.stage), False]


@dataclass(frozen=True, eq=False)
class Reading:
    """Some runs of one prompt, read towards one token; everything float64.

    Attributes:
        components: `[run, component]`: of each label, at the scale `scale` of the first run given.
        logit: `[run]`, the token's centred logit, as the model has it.
        frozen_logit: `[run]`, the same with the final norm at that scale.
    """

    components: Tensor
    logit: Tensor
    frozen_logit: Tensor

    @classmethod
    def of(
        cls,
        model: "Model",
        readout: LinearReadout,
        modules: Modules,
        runs: Sequence[Recording],
        token: int,
        scale: Tensor | None = None,
    ) -> "Reading":
        """Decompose runs; `scale` holds the final norm there, by default at the first run's.

        Raises:
            ModelError: when the readout is not linear, or writes do not add up to the residual.
        """
        final = torch.stack([run.final for run in runs])
        logits = torch.stack([run.logits for run in runs])
        own = readout.prove(model, final, logits)
        held = own[:1] if scale is None else scale
        ids = torch.tensor([token], device=final.device)
        plain = readout.directions(ids, centred=True)[0]
        behind = readout.norm.pulled_back(plain)
        constant = readout.biases(ids, centred=True)[0]
        if readout.norm.bias is not None:
            constant = constant + plain @ readout.norm.bias
        writes = torch.stack([_writes(run, modules) for run in runs])
        _refuse_gap(model, writes.sum(1), exact(final))
        shares = writes @ behind / held
        bias = constant.expand(len(runs), 1)
        whole = exact(final) @ behind
        wide = exact(logits)
        logit = wide[:, token] - wide.mean(-1)
        if readout.soft_cap is not None:  # logits are those before the cap
            logit = whole / own + constant
        return cls(torch.cat([shares, bias], 1), logit, whole / held + constant)


def _writes(run: Recording, modules: Modules) -> Tensor:
    """Return what the embeddings and each module wrote at the last position."""
    entering = run.values["resid_pre", 0][-1]
    return torch.stack([exact(v) for v in (entering, *(run.values[p][-1] for p in modules.places))])


def _refuse_gap(model: "Model", added: Tensor, final: Tensor) -> None:
    gap = float((added - final).abs().max())
    size = max(1.0, float(final.abs().max()))
    if not gap <= TOLERANCE.get(model.dtype, 1e-2) * size:
        raise ModelError(
            f"what the modules of {model.name} ({model.family}) write does not add up to its final "
            f"residual (off by {gap:.1e}): something else changes the residual stream.\n"
            "  Allowed: models whose blocks add their modules' outputs to the residual stream.\n"
            "  Use ml.ablate, which measures total effects alone."
        )
