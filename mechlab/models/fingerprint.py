"""What makes two models the same: digests of weights and tokenizer.

A fingerprint holds what changes numbers (weights, precision, weight processing, attention
implementation, tokenizer, BOS rule) and never where the model lies: no device, no path.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from mechlab.canonical import digest

__all__ = ["bare_weights", "mark_weights", "tokenizer_digest", "weight_digest"]

_NAMES = "mechlab_weight_names"


def mark_weights(hf: nn.Module) -> None:
    """Note the names of all weights, before a bridge wraps the modules that hold them.

    Wrapping inserts levels into the names and lists some weights twice. The note stays on the
    module, so that a module wrapped twice keeps its digest.
    """
    if not hasattr(hf, _NAMES):
        setattr(hf, _NAMES, tuple(sorted(map(_bare, hf.state_dict()))))


def bare_weights(hf: nn.Module) -> dict[str, Tensor]:
    """Return the weights under the names they had before wrapping, tied ones once.

    Args:
        hf: a Hugging Face module, wrapped by a bridge or not.

    Returns:
        Name to tensor, sorted by name; of several names for one tensor the first is kept.
    """
    found = {_bare(name): tensor for name, tensor in hf.state_dict().items()}
    names = getattr(hf, _NAMES, None) or sorted(found)
    weights: dict[str, Tensor] = {}
    seen: set[tuple[int, torch.Size]] = set()
    for name in names:
        place = (found[name].data_ptr(), found[name].shape)
        if found[name].numel() == 0 or place not in seen:
            weights[name] = found[name]
        seen.add(place)
    return weights


def _bare(name: str) -> str:
    return name.replace("_original_component.", "")


def weight_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the sha256 over names, dtypes, shapes and bytes of all tensors.

    Hashing releases the interpreter lock, so tensors are hashed side by side; 0.5 GB take about
    a second on one core.
    """
    names = sorted(weights)
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = list(pool.map(lambda name: _tensor_digest(weights[name]), names))
    return digest(dict(zip(names, digests, strict=True)))


def _tensor_digest(tensor: Tensor) -> str:
    head = f"{tensor.dtype}{tuple(tensor.shape)}".encode()
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    found = hashlib.sha256(head)
    if flat.numel():
        found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """Return the sha256 of a fast tokenizer's own JSON and its special tokens.

    Padding and truncation are left out: tokenizers write the settings of the last call there.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content.pop("padding", None)
    content.pop("truncation", None)
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return digest({"tokenizer": content, "special": special})
