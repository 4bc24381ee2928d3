"""The plain loop: one prompt, one row, one `run_with_hooks`, nothing packed, nothing skipped.

Slow and obvious. The engine promises to equal it. Every intervention is its own hook, which writes
where the docstring of the intervention says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mechlab.engine import Base, Row
from mechlab.hooks import (
    Ablate,
    AddNoise,
    Block,
    Freeze,
    Intervention,
    Patch,
    Scale,
    Site,
    Steer,
    hook_name,
    live_sites,
    noise,
)
from mechlab.models import Model

Place = tuple[str, int | None]


@dataclass
class PlainRun:
    """One run of one prompt: `logits` [pos, vocab], and every live site without its batch axis."""

    logits: Tensor
    values: dict[Place, Tensor] = field(default_factory=dict)


def plain_patch_loop(model: Model, bases: Sequence[Base], rows: Sequence[Row]) -> list[Tensor]:
    """Run every row by itself; return its logits [pos, vocab] in the unpadded prompt."""
    sources = [plain_run(model, base.prompt, base.interventions, keep=True) for base in bases]
    return [
        plain_run(
            model,
            bases[row.base].prompt,
            bases[row.base].interventions + row.interventions,
            sources,
        ).logits
        for row in rows
    ]


@torch.no_grad()
def plain_run(
    model: Model,
    prompt: str,
    steps: Sequence[Intervention] = (),
    sources: Sequence[PlainRun] = (),
    *,
    keep: bool = False,
) -> PlainRun:
    """Run one unpadded prompt with interventions; `keep` records every live site."""
    hooks = []
    for step in steps:
        parts = [Patch(s, step.source) for s in step.sites] if isinstance(step, Freeze) else [step]
        hooks += [(hook_name(s.site.name, s.site.layer), _hook(s, prompt, sources)) for s in parts]
    kept: dict[Place, Tensor] = {}
    if keep:
        for name in live_sites(model):
            for layer in (None,) if name == "embed" else range(model.n_layers):
                hooks.append((hook_name(name, layer), _keep(kept, (name, layer))))
    tokens = model.tokenize([prompt]).tokens
    logits = model.bridge.run_with_hooks(tokens, fwd_hooks=hooks, use_cache=False)
    return PlainRun(logits[0], kept)


def _keep(kept: dict[Place, Tensor], place: Place) -> Callable[..., None]:
    def hook(activation: Tensor, hook: Any) -> None:
        kept[place] = activation[0].clone()

    return hook


def _hook(step: Any, prompt: str, sources: Sequence[PlainRun]) -> Callable[..., Tensor]:
    def hook(activation: Tensor, hook: Any) -> Tensor:
        # What returns from hook_resid_mid reaches the MLP only, so that one is written in place.
        new = activation if step.site.name == "resid_mid" else activation.clone()
        _write(new[0], step, prompt, sources)
        return new

    return hook


def _write(new: Tensor, step: Any, prompt: str, sources: Sequence[PlainRun]) -> None:
    """Change one activation without its batch axis, in place."""
    if isinstance(step, Block):
        _cut(new, step)
        return
    if isinstance(step, AddNoise):
        n_positions = step.last - step.first + 1
        draw = noise(step.seed, prompt, step.draw, n_positions, new.shape[-1]) * step.std
        new[step.first : step.last + 1] += draw.to(new.dtype)
        return
    where = _where(step.site)
    if isinstance(step, Patch) or (isinstance(step, Ablate) and step.kind == "resample"):
        source = sources[step.source].values[step.site.name, step.site.layer]
        other = getattr(step, "source_pos", None)
        new[where] = source[where if other is None else _where(step.site, other)]
    elif isinstance(step, Ablate):
        new[where] = 0 if step.reference is None else torch.from_numpy(step.reference.values.copy())
    elif isinstance(step, Scale):
        new[where] *= step.alpha
    elif isinstance(step, Steer):
        new[where] += torch.from_numpy(step.vector.values.copy()) * step.scale
    else:
        raise TypeError(f"the oracle does not know {step}")


def _where(site: Site, pos: int | None = None) -> tuple[Any, ...]:
    """The index of a site in an activation without its batch axis."""
    pos = site.pos if pos is None else pos
    at = slice(None) if pos is None else pos
    if site.name in ("scores", "pattern"):
        return (slice(None) if site.head is None else site.head, at)
    return (at,) if site.head is None else (at, site.head)


def _cut(new: Tensor, step: Block) -> None:
    for head in range(new.shape[0]) if step.heads is None else step.heads:
        for query in step.queries:
            for key in step.keys:
                if key <= query:
                    new[head, query, key] = float("-inf") if step.mode == "mask" else 0.0
