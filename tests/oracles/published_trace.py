"""Causal tracing as it was published: one forward pass per cell, on the plain Hugging Face model.

Written from the description of the public code of Meng et al. 2022 with torch hooks only; it
shares no line and no hook mechanism with mechlab or TransformerLens. Each pass holds one clean row
and `samples` noised rows; restoring copies from row 0 into the others inside a hook.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from oracles.modules import block_path, embedding_path, part, writers
from torch import Tensor
from torch.nn import Module

SECOND_NORM = {"gpt2": "ln_2", "llama": "post_attention_layernorm"}
"""The norm whose input is `resid_mid`, in families whose blocks are sequential."""
SEVERED = {"mlp": "mlp_out", "attn": "attn_out", "mixer": "mixer_out"}


def window_layers(layer: int, window: int, n_layers: int) -> range:
    """Layers restored around `layer`: the published code's convention, clipped at the ends."""
    return range(max(0, layer - window // 2), min(n_layers, layer - (-window // 2)))


@torch.no_grad()
def corrupted_probabilities(
    hf: Module, family: str, tokens: Tensor, first: int, draws: Tensor, scored: int | None = None
) -> tuple[int, Tensor]:
    """Scored token (default: clean top-1), and its probability [1 + samples]; row 0 is clean."""
    with noised(hf, family, first, draws):
        probabilities = final_probabilities(hf, tokens, len(draws))
    scored = int(probabilities[0].argmax()) if scored is None else scored
    return scored, probabilities[:, scored]


@torch.no_grad()
def restored_probabilities(
    hf: Module,
    family: str,
    tokens: Tensor,
    first: int,
    draws: Tensor,
    *,
    site: str,
    scored: int,
    window: int = 1,
    sever: str | None = None,
    positions: Sequence[int] | None = None,
) -> Tensor:
    """Probability of `scored` [layer, pos, sample], one forward pass for every (layer, pos).

    Args:
        hf, family: the plain model.
        tokens: [pos], one prompt.
        first: first noised position.
        draws: noise [sample, span, d_model] added to the token embeddings.
        site: `resid_pre`, `resid_mid`, `resid_post` (one layer), or a writer (window of layers).
        scored: token id.
        window: layers restored together at a writer.
        sever: `mlp`, `attn` or `mixer`: hold these outputs of the restored token at the values of
            the corrupted run in all layers.
        positions: positions to trace; the others are NaN.
    """
    n_layers = int(hf.config.num_hidden_layers)  # type: ignore[arg-type, union-attr]
    result = torch.full((n_layers, len(tokens), len(draws)), float("nan"))
    for pos in range(len(tokens)) if positions is None else positions:
        held = _recorded(hf, family, tokens, first, draws, pos, sever) if sever else {}
        for layer in range(n_layers):
            layers = [layer] if site.startswith("resid") else window_layers(layer, window, n_layers)
            with ExitStack() as stack:
                stack.enter_context(noised(hf, family, first, draws))
                for restored_layer in layers:
                    stack.enter_context(_restored(hf, family, site, restored_layer, pos))
                for module, values in held.items():
                    stack.enter_context(_forced(module, pos, values))
                rows = final_probabilities(hf, tokens, len(draws))
            result[layer, pos] = rows[1:, scored]
    return result


@torch.no_grad()
def interchanged_probabilities(
    hf: Module,
    family: str,
    tokens: Tensor,
    other: Tensor,
    aligned: Mapping[int, int],
    *,
    site: str,
    scored: int,
    window: int = 1,
    sever: str | None = None,
) -> Tensor:
    """Probability of `scored` [layer, pos] in the run on `other`, with clean states put into it.

    `aligned` gives for positions of `tokens` their counterparts in `other`; the rest is NaN.
    `site` is the output of a block or a writer.
    """
    modules = writers(hf, family, site)
    clean = _outputs(hf, tokens, modules)
    held = writers(hf, family, SEVERED[sever]) if sever else []
    corrupted = _outputs(hf, other, held)
    result = torch.full((len(modules), len(tokens)), float("nan"))
    for pos, target in aligned.items():
        for layer in range(len(modules)):
            layers = [layer]
            if not site.startswith("resid"):
                layers = list(window_layers(layer, window, len(modules)))
            with ExitStack() as stack:
                for at in layers:
                    value = clean[modules[at]][pos]
                    stack.enter_context(_forced(modules[at], target, value, first_row=0))
                for module in held:
                    value = corrupted[module][target]
                    stack.enter_context(_forced(module, target, value, first_row=0))
                result[layer, pos] = final_probabilities(hf, other, 0)[0, scored]
    return result


def _outputs(hf: Module, tokens: Tensor, modules: Sequence[Module]) -> dict[Module, Tensor]:
    """Outputs [pos, d_model] of modules in a plain run."""
    found: dict[Module, Tensor] = {}
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(
                _after(module, lambda out, module=module: found.update({module: out[0].clone()}))
            )
        final_probabilities(hf, tokens, 0)
    return found


@torch.no_grad()
def final_probabilities(hf: Module, tokens: Tensor, n_samples: int) -> Tensor:
    """Softmax in float32 at the last position, [1 + samples, vocab], of identical rows."""
    logits = hf(tokens[None].expand(1 + n_samples, -1), use_cache=False).logits[:, -1]
    return logits.float().softmax(-1)


@contextmanager
def noised(hf: Module, family: str, first: int, draws: Tensor) -> Iterator[None]:
    """Add one draw to the token embeddings of each row but the first."""

    def edit(output: Tensor) -> None:
        output[1:, first : first + draws.shape[1]] += draws.to(output.dtype)

    with _after(part(hf, embedding_path(family)), edit):
        yield


def _recorded(
    hf: Module,
    family: str,
    tokens: Tensor,
    first: int,
    draws: Tensor,
    pos: int,
    sever: str,
) -> dict[Module, Tensor]:
    """Pass 1 of the severed variant: outputs of one token in the corrupted run, all layers."""
    found: dict[Module, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(noised(hf, family, first, draws))
        for module in writers(hf, family, SEVERED[sever]):
            stack.enter_context(
                _after(
                    module, lambda out, module=module: found.update({module: out[1:, pos].clone()})
                )
            )
        final_probabilities(hf, tokens, len(draws))
    return found


@contextmanager
def _restored(hf: Module, family: str, site: str, layer: int, pos: int) -> Iterator[None]:
    def copy_clean(state: Tensor) -> None:
        state[1:, pos] = state[0, pos]

    if site == "resid_pre":
        around = _before(part(hf, block_path(family, layer)), copy_clean)
    elif site == "resid_mid":
        norm = part(hf, f"{block_path(family, layer)}.{SECOND_NORM[family]}")
        around = _before(norm, copy_clean)  # in place, so the residual branch sees it too
    else:
        around = _after(writers(hf, family, site)[layer], copy_clean)
    with around:
        yield


@contextmanager
def _forced(module: Module, pos: int, values: Tensor, first_row: int = 1) -> Iterator[None]:
    def force(output: Tensor) -> None:
        output[first_row:, pos] = values

    with _after(module, force):
        yield


@contextmanager
def _after(module: Module, edit: Callable[[Tensor], Any]) -> Iterator[None]:
    """Let `edit` change the module's output in place."""

    def hook(_: Module, __: Any, output: Any) -> None:
        edit(output[0] if isinstance(output, tuple) else output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _before(module: Module, edit: Callable[[Tensor], Any]) -> Iterator[None]:
    """Let `edit` change the module's input in place."""

    def hook(_: Module, args: tuple[Any, ...]) -> None:
        edit(args[0])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
