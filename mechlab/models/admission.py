"""Which models are let in: those not proven are refused by name, with the reason."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from torch import Tensor

from mechlab.errors import ModelError

__all__ = ["RECURRENT", "check_config", "check_finite", "check_module"]

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_ATTENTION_KINDS = {"attention", "full_attention", "sliding_attention", "chunked_attention"}
_RECURRENT_KINDS = {"linear_attention", "mamba", "recurrent"}

RECURRENT = ("mamba", "mamba2", "falcon_mamba", "rwkv")
"""Families without attention: their blocks carry a state, and no length limits them."""


def check_config(name: str, config: Any) -> None:
    """Refuse a configuration that mechlab has not proven.

    Args:
        name: what the model is called, for the message.
        config: a Hugging Face configuration.

    Raises:
        ModelError: naming the model, its kind and the reason.
    """
    for kind, reason in _REFUSALS:
        if detail := reason(config):
            raise ModelError(
                f"{name} ({config.model_type}) is {kind}: {detail}.\n"
                "  Allowed: causal language models on one device, dense, unquantised, with full "
                "attention or with Mamba blocks.\n"
                "  Such models are refused until the engine is proven equal to plain runs on "
                "them; choose another model (`mechlab models` lists those present)."
            )


def _encoder_decoder(config: Any) -> str:
    return "it has an encoder beside the decoder" if config.is_encoder_decoder else ""


def _quantised(config: Any) -> str:
    found = getattr(config, "quantization_config", None)
    return "its configuration has a quantization_config" if found else ""


def _experts(config: Any) -> str:
    found = {name: getattr(config, name, None) for name in _EXPERTS}
    many = [f"{name}={n}" for name, n in found.items() if isinstance(n, int) and n > 1]
    return ", ".join(many)


def _sliding(config: Any) -> str:
    """Return the window if it is shorter than the context, so that some tokens are not seen."""
    context = getattr(config, "max_position_embeddings", None)
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    if getattr(config, "use_sliding_window", True) is False or "sliding_attention" not in kinds:
        window = None
    if "local" in (getattr(config, "attention_layers", None) or []):  # GPT-Neo's name for it
        window = config.window_size
    if getattr(config, "attention_chunk_size", None):
        window = config.attention_chunk_size
    if not isinstance(window, int) or (isinstance(context, int) and window >= context):
        return ""
    return f"its attention sees {window} tokens of a context of {context}"


def _hybrid(config: Any) -> str:
    kinds = {*(getattr(config, "layer_types", None) or [])}
    kinds |= {*(getattr(config, "layers_block_type", None) or [])}
    known = _RECURRENT_KINDS if config.model_type in RECURRENT else _ATTENTION_KINDS
    others = sorted(kinds - known)
    return f"it has blocks of the kind {', '.join(others)}" if others else ""


def _several_parts(config: Any) -> str:
    text = getattr(config, "text_config", None)
    return "its text model is only a part" if text is not None else ""


def _not_causal(config: Any) -> str:
    names = getattr(config, "architectures", None) or []
    if not names or any(name.endswith(_CAUSAL) for name in names):
        return ""
    return f"{', '.join(names)} is not trained to predict the next token"


_REFUSALS: tuple[tuple[str, Callable[[Any], str]], ...] = (
    ("an encoder-decoder model", _encoder_decoder),
    ("quantised", _quantised),
    ("a mixture of experts", _experts),
    ("a model with sliding-window attention", _sliding),
    ("a hybrid model", _hybrid),
    ("a model of several modalities", _several_parts),
    ("not a causal language model", _not_causal),
)


def check_module(name: str, hf: Any) -> None:
    """Refuse a module in memory that mechlab cannot run.

    Raises:
        ModelError: when it has no language-model head, is quantised, or lies on several devices
            or on none.
    """
    if not isinstance(hf, transformers.PreTrainedModel):
        raise ModelError(
            f"{name} is a {type(hf).__name__}, not a Hugging Face model.\n"
            "  Allowed: a transformers.PreTrainedModel with a language-model head.\n"
            "  Pass the Hugging Face module itself (of a bridge: bridge.original_model)."
        )
    devices = {str(tensor.device) for tensor in hf.parameters()}
    reason = ""
    if hf.get_output_embeddings() is None:
        reason = f"{type(hf).__name__} has no head that predicts the next token"
    elif getattr(hf, "is_quantized", False):
        reason = "its weights are quantised"
    elif len(devices) > 1 or "meta" in devices:
        reason = f"its weights lie on {', '.join(sorted(devices))}"
    if reason:
        raise ModelError(
            f"{name} cannot be used: {reason}.\n"
            "  Allowed: a causal language model with its head, unquantised, on one device.\n"
            "  Load it with transformers.AutoModelForCausalLM.from_pretrained(...).to(device)."
        )


def check_finite(name: str, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that hold NaN or infinity.

    Args:
        name: what the model is called, for the message.
        weights: name to tensor.

    Raises:
        ModelError: naming every such tensor and how many of its values are not finite.
    """
    bad = {key: _not_finite(tensor) for key, tensor in weights.items()}
    if lines := [f"  {key}: {n} of {weights[key].numel()} values" for key, n in bad.items() if n]:
        dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
        raise ModelError(
            f"{name} has weights that are NaN or infinite (read as {dtype}):\n"
            + "\n".join(lines[:10])
            + (f"\n  ... and {len(lines) - 10} more tensors" if len(lines) > 10 else "")
            + "\n  Allowed: finite weights only.\n  Fetch or save the model again; weights too "
            "large for float16 need dtype='bfloat16' or 'float32'."
        )


def _not_finite(tensor: Tensor) -> int:
    if not tensor.is_floating_point():
        return 0
    # One sum is far cheaper than a mask; it is finite unless some value is not, or it overflows.
    if torch.isfinite(tensor.detach().sum(dtype=torch.float64)):
        return 0
    return int((~torch.isfinite(tensor)).sum())
