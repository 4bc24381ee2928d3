"""From a Hugging Face module and a tokenizer to a `Model`."""

import copy
from dataclasses import replace
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from mechlab.errors import ModelError
from mechlab.models.admission import RECURRENT, check_config, check_finite, check_module
from mechlab.models.encoding import make_encoder
from mechlab.models.fingerprint import bare_weights, mark_weights, weight_digest
from mechlab.models.model import Model, Origin, Shape
from mechlab.models.quiet import quiet

__all__ = ["wrap", "wrap_model"]


def wrap_model(
    hf_model: Any, tokenizer: Any, *, name: str = "in-memory", prepend_bos: bool | None = None
) -> Model:
    """Make a `Model` from a Hugging Face model and tokenizer in memory.

    The module is **modified in place**: the bridge wraps its submodules, switches it to eager
    attention and evaluation mode, and its parameters are frozen. It keeps working as a Hugging
    Face model and may be wrapped again. Pass `copy.deepcopy(hf_model)` to keep yours untouched.
    The tokenizer is not modified.

    Args:
        hf_model: a causal language model with its head, on one device.
        tokenizer: its fast tokenizer.
        name: what the model is called in results; part of the fingerprint.
        prepend_bos: whether texts get a beginning-of-sequence token; `None` follows the
            tokenizer's own convention (what it does with `add_special_tokens=True`).

    Raises:
        ModelError: for an architecture that is not proven, a module without a head, weights that
            are not finite, or a tokenizer without character offsets.
        OptionError: when a BOS is asked for and the tokenizer has none.
    """
    check_module(name, hf_model)
    return wrap(hf_model, tokenizer, Origin(name, "memory"), prepend_bos=prepend_bos)


def wrap(hf: Any, tokenizer: Any, origin: Origin, *, prepend_bos: bool | None) -> Model:
    """Check a module, boot a bridge on it and freeze it.

    Raises:
        ModelError: see `wrap_model`; also when TransformerLens has no adapter for the
            architecture.
    """
    check_config(origin.name, hf.config)
    mark_weights(hf)
    check_finite(origin.name, bare_weights(hf))
    d_vocab = int(hf.get_input_embeddings().weight.shape[0])
    encoder = make_encoder(
        tokenizer, prepend_bos=prepend_bos, n_ctx=_context(hf.config), d_vocab=d_vocab
    )
    hf.eval()
    unwrapped = _unwrapped_run(hf, d_vocab)
    bridge = _boot(hf, tokenizer, origin.name)
    bridge.cfg.default_prepend_bos = encoder.bos_id is not None
    if origin.weights == "processed":
        origin = replace(origin, raw_digest=weight_digest(bare_weights(hf)))
        _process(bridge, origin.name)
    hf.eval().requires_grad_(False)
    model = Model(bridge, hf, encoder, shape=_shape(bridge, hf.config, d_vocab), origin=origin)
    model.unwrapped_run = unwrapped
    return model


def _unwrapped_run(hf: Any, d_vocab: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a few token ids and their logits before the bridge touches the module.

    Once wrapped, the module runs the bridge's own parts, so this is the only independent witness
    that wrapping changed nothing.
    """
    ids = torch.arange(6).mul(7919).add(11).remainder(d_vocab)[None]
    with torch.no_grad():
        logits = hf(ids.to(next(hf.parameters()).device), use_cache=False).logits
    return ids, logits.float().cpu()


def _boot(hf: Any, tokenizer: Any, name: str) -> Any:
    weight = next(hf.parameters())
    try:
        with quiet():
            # A short alias such as 'gpt2-small' as the name would be looked up and warned about.
            return TransformerBridge.boot_transformers(
                f"mechlab/{name}",
                hf_model=hf,
                tokenizer=_tokenizer_for_bridge(tokenizer, name),
                device=str(weight.device),
                dtype=weight.dtype,
            ).eval()
    except Exception as err:
        raise ModelError(
            f"TransformerLens cannot wrap {name} ({hf.config.model_type}): {err}\n"
            "  Allowed: architectures with an adapter in TransformerLens 4.3; GPT-2, GPT-NeoX, "
            "Llama, Mamba and Mamba-2 are proven.\n"
            "  Choose another model (`mechlab models` lists those present)."
        ) from err


def _process(bridge: Any, name: str) -> None:
    """Fold norms into the weights after them and centre what writes to the residual stream."""
    try:
        with quiet(), torch.no_grad():
            bridge.enable_compatibility_mode(disable_warnings=True)
    except Exception as err:
        raise ModelError(
            f"weights='processed' does not work on {name}: {err}\n  Allowed here: 'raw'.\n"
            "  Use weights='raw'; log-probabilities are the same."
        ) from err
    bridge.requires_grad_(False)


def _tokenizer_for_bridge(tokenizer: Any, name: str) -> Any:
    """Return a copy that the bridge may change.

    The bridge adds missing special tokens, and reloads the tokenizer by its name to make it put
    a BOS in front, which fails for one that was made in memory (`KeyError: 'name_or_path'`).
    Saying that this is done already keeps it from trying.
    """
    mine = copy.deepcopy(tokenizer)
    mine.init_kwargs = {**mine.init_kwargs, "name_or_path": name, "add_bos_token": True}
    return mine


def _context(config: Any) -> int | None:
    if config.model_type in RECURRENT:
        return None
    for field in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        if isinstance(value := getattr(config, field, None), int):
            return value
    return None


def _shape(bridge: Any, config: Any, d_vocab: int) -> Shape:
    attention = config.model_type not in RECURRENT
    heads = int(bridge.cfg.n_heads) if attention else None
    kv_heads = getattr(bridge.cfg, "n_key_value_heads", None) or heads
    return Shape(
        family=str(config.model_type),
        n_layers=int(bridge.cfg.n_layers),
        n_heads=heads,
        n_kv_heads=int(kv_heads) if attention and kv_heads else None,
        d_head=int(bridge.cfg.d_head) if attention else None,
        d_model=int(bridge.cfg.d_model),
        d_vocab=d_vocab,
        n_ctx=_context(config),
    )
