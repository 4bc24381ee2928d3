"""Path patching as written down: three whole runs per edge, one prompt, `run_with_hooks`.

Slow and obvious; shares nothing with the engine. Heads are held by their queries, keys and values,
as in the IOI code, and not by their outputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mechlab.hooks import Site
from mechlab.models import Model

Run = dict[str, Tensor]
WRITES = {"z": "attn.hook_z", "mlp_out": "hook_mlp_out"}
READS = {
    "q": ("attn.hook_q",),
    "k": ("attn.hook_k",),
    "v": ("attn.hook_v",),
    "pattern": ("attn.hook_q", "attn.hook_k"),
    "z": ("attn.hook_q", "attn.hook_k", "attn.hook_v"),
    "mlp_out": ("mlp.hook_in",),
}


@torch.no_grad()
def path_logits(
    model: Model,
    original: str,
    new: str,
    sender: Sequence[Site],
    receiver: Sequence[Site],
    *,
    freeze: str,
    ln: str = "recompute",
    positions: Sequence[int] | None = None,
) -> Tensor:
    """Return the logits of the last position after a path was patched; `()` receives as logits.

    Receivers are set at every position, unless they name one.
    """
    runs = [_all_of(model, text) for text in (new, original)]
    a, b = runs
    recorded: Run = {}
    hooks: list[tuple[str, Any]] = []
    for site in receiver:  # recorded before anything is held
        hooks += [(name, _record(recorded, name)) for name in _reads(site)]
    hooks += _held(model, b, freeze, ln, receiver)
    for site in sender:
        name = _write_name(site)
        hooks.append((name, _put(a[name], site, positions)))
    logits = _run(model, original, hooks)
    if not receiver:
        return logits[0, -1]
    setting = [(n, _put(recorded[n], s, None)) for s in receiver for n in _reads(s)]
    return _run(model, original, setting)[0, -1]


def _reads(site: Site) -> list[str]:
    return [f"blocks.{site.layer}.{name}" for name in READS[site.name]]


def _write_name(site: Site) -> str:
    name = "z" if site.name == "attn_out" else site.name  # all heads of a block
    return "blocks.0.hook_in" if name == "embed" else f"blocks.{site.layer}.{WRITES[name]}"


def _all_of(model: Model, text: str) -> Run:
    kept: Run = {}
    wanted = ("hook_in", "attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z")
    wanted += ("hook_mlp_out", "ln1.hook_scale", "ln2.hook_scale")
    there = model.bridge.hook_dict
    names = [f"blocks.{n}.{name}" for n in range(model.n_layers) for name in wanted]
    names = [name for name in [*names, "ln_final.hook_scale"] if name in there]
    _run(model, text, [(name, _record(kept, name)) for name in names])
    return kept


def _held(
    model: Model, b: Run, freeze: str, ln: str, receiver: Sequence[Site]
) -> list[tuple[str, Any]]:
    names = [f"attn.hook_{name}" for name in "qkv"]
    names += ["hook_mlp_out"] if freeze == "heads+mlps" else []
    full = [f"blocks.{layer}.{name}" for layer in range(model.n_layers) for name in names]
    if ln == "frozen" and not receiver:
        full.append("ln_final.hook_scale")
    if ln == "frozen":
        for site in receiver:
            full += [f"blocks.{site.layer}.ln2.hook_scale"] if site.name == "mlp_out" else []
            full += [f"blocks.{site.layer}.ln1.hook_scale"]
    return [(name, lambda value, hook, name=name: b[name]) for name in full if name in b]


def _record(kept: Run, name: str) -> Callable[..., None]:
    def hook(value: Tensor, hook: Any) -> None:
        kept[name] = value.clone()

    return hook


def _put(values: Tensor, site: Site, positions: Sequence[int] | None) -> Callable[..., Tensor]:
    """Overwrite a site by other values, at its own position or the given ones."""

    def hook(value: Tensor, hook: Any) -> Tensor:
        where: Any = slice(None) if positions is None else list(positions)
        where = where if site.pos is None else [site.pos]
        out = value.clone()
        if site.head is None:
            out[:, where] = values[:, where]
        else:
            out[:, where, site.head] = values[:, where, site.head]
        return out

    return hook


def _run(model: Model, text: str, hooks: list[tuple[str, Any]]) -> Tensor:
    tokens = model.tokenize([text]).tokens
    logits: Tensor = model.bridge.run_with_hooks(tokens, fwd_hooks=hooks, use_cache=False)
    return logits
