"""Where each family keeps its parts in the plain Hugging Face model.

Written down here a second time, on purpose: the oracles share nothing with TransformerLens.
"""

from typing import Any

from torch import nn

_ROOT = {"gpt2": "transformer", "neox": "gpt_neox", "llama": "model"}
_EMBEDDING = {"gpt2": "wte", "neox": "embed_in", "llama": "embed_tokens"}
_ATTENTION = {"gpt2": "attn", "neox": "attention", "llama": "self_attn"}
_OUTPUT = {"gpt2": "attn.c_proj", "neox": "attention.dense", "llama": "self_attn.o_proj"}


def part(model: Any, path: str) -> Any:
    """Follow dots from a module, or from nnsight's envoy of one."""
    for name in path.split("."):
        model = getattr(model, name)
    return model


def embedding_path(family: str) -> str:
    """Path of the token embedding (not the position embedding)."""
    return f"{_ROOT.get(family, 'backbone')}.{_EMBEDDING.get(family, 'embeddings')}"


def block_path(family: str, layer: int) -> str:
    """Path of one block; its output is the residual stream after it."""
    return f"{_ROOT.get(family, 'backbone')}.{'h' if family == 'gpt2' else 'layers'}.{layer}"


def writer_path(family: str, layer: int, site: str) -> str:
    """Path of the module whose output is `attn_out`, `mlp_out`, `mixer_out` or `resid_post`."""
    names = {"attn_out": _ATTENTION.get(family), "mlp_out": "mlp", "mixer_out": "mixer"}
    if site == "resid_post":
        return block_path(family, layer)
    return f"{block_path(family, layer)}.{names[site]}"


def projection_path(family: str, layer: int) -> str:
    """Path of the attention's output projection; its input is `z`, heads side by side."""
    return f"{block_path(family, layer)}.{_OUTPUT[family]}"


def writers(hf: nn.Module, family: str, site: str) -> list[nn.Module]:
    """The modules of one site, in the order of the layers."""
    n_layers = hf.config.num_hidden_layers  # type: ignore[union-attr]
    return [part(hf, writer_path(family, layer, site)) for layer in range(int(n_layers))]  # type: ignore[arg-type]
