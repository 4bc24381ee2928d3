"""Gemma 2, tiny: a norm stands between each module and the residual stream, and logits are capped.

A head's write is normed together with those of its block, so it has no direct edge of its own; and
a difference of logits is not a difference of unembeddings.
"""

import torch
import toys
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedModel


def make_hf() -> PreTrainedModel:
    """Build the model with random weights, in eval mode."""
    config = Gemma2Config(
        vocab_size=toys.N_VOCAB,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        sliding_window=64,
        final_logit_softcapping=2.0,
        pad_token_id=2,
        bos_token_id=0,
        eos_token_id=1,
        attn_implementation="eager",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Gemma2ForCausalLM(config)
    toys._enliven(model, torch.Generator().manual_seed(0))
    return model.eval()
