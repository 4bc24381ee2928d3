"""Tiny random-weight models and tokenizers, built in memory, for every test that needs a model.

The weights are random but not degenerate. Hugging Face initialises with a standard deviation of
0.02, with zero biases and unit norms; at width 64 that makes attention uniform, logits flat, and a
patch or a dropped bias almost invisible, so that a wrong engine would pass. `_enliven` draws every
matrix with a standard deviation near 1/sqrt(fan_in) and gives every bias and norm its own values:
attention is peaked, every module matters, and every patch moves the logits by more than 1e-3.
"""

from pathlib import Path
from typing import Literal

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerFast

FAMILIES = ("gpt2", "neox", "llama", "mamba", "mamba2")
"""Learned positions; parallel blocks; rotary with grouped queries; two recurrent families."""
ATTENTION_FAMILIES = ("gpt2", "neox", "llama")
RECURRENT_FAMILIES = ("mamba", "mamba2")

N_LAYERS, N_HEADS, N_KV_HEADS, D_MODEL, D_HEAD, D_MLP, N_VOCAB = 3, 4, 2, 64, 16, 128, 320

_SPECIAL = ["<bos>", "<eos>", "<pad>", "<unk>"]
_WORDS = """The the of in is a and to was by city capital country language river tower located born
speaks called near from Paris France Rome Italy Berlin Germany Madrid Spain Cairo Egypt Lima Peru
Oslo Norway Ann Bob Mary John Eiffel Space Needle Big Ben gave book store went When Tower""".split()
_SENTENCES = (
    "The Eiffel Tower is located in the city of Paris. The capital of France is Paris.",
    "When Mary and John went to the store, John gave the book to Mary.",
    "The Space Needle is located in the city of Seattle. Big Ben is in London.",
    "The capital of Germany is Berlin, the capital of Italy is Rome, and so on.",
    "Ann was born in Madrid, the capital of Spain; Bob was born in Cairo, near the river.",
)


def make_tokenizer(kind: Literal["words", "bpe"] = "words") -> PreTrainedTokenizerFast:
    """Build an offline tokenizer with `N_VOCAB` ids that puts `<bos>` in front by itself.

    `words`: one id per word split at spaces (`w0`, `w1`, ... and the words of `_WORDS`); unknown
    words become `<unk>`. `bpe`: byte-level, trained here, so that names it has not seen take
    several tokens and a leading space belongs to the token.
    """
    raw = _word_level() if kind == "words" else _byte_level()
    raw.post_processor = TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 0)]
    )
    # Without add_bos_token and name_or_path TransformerLens raises KeyError('name_or_path').
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        add_bos_token=True,
        name_or_path="local",
    )


def _word_level() -> Tokenizer:
    words = [*_SPECIAL, *_WORDS]
    words += [f"w{i}" for i in range(N_VOCAB - len(words))]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return raw


def _byte_level() -> Tokenizer:
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=N_VOCAB,
        special_tokens=_SPECIAL,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    raw.train_from_iterator(_SENTENCES, trainer)
    return raw


def make_hf(
    family: str, *, seed: int = 0, n_layers: int = N_LAYERS, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Build one random-weight Hugging Face model of a family of `FAMILIES`, in eval mode.

    Same family, seed, layers: same weights. `dtype` casts after drawing, so a float64 model holds
    the float32 model's weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(
            _config(family, n_layers), attn_implementation="eager"
        )
    _enliven(model, torch.Generator().manual_seed(seed))
    return model.to(dtype).eval()


def _config(family: str, n_layers: int) -> transformers.PreTrainedConfig:
    ids = {"vocab_size": N_VOCAB, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    wide = {
        "hidden_size": D_MODEL,
        "num_hidden_layers": n_layers,
        "num_attention_heads": N_HEADS,
        "intermediate_size": D_MLP,
        "max_position_embeddings": 128,
    }
    # chunk_size: Mamba-2 pads every prompt to a multiple of it (256 by default).
    recurrent = {"hidden_size": D_MODEL, "num_hidden_layers": n_layers, "state_size": 8}
    configs = {
        "gpt2": lambda: transformers.GPT2Config(
            n_embd=D_MODEL, n_layer=n_layers, n_head=N_HEADS, n_inner=D_MLP, n_positions=128, **ids
        ),
        "neox": lambda: transformers.GPTNeoXConfig(**wide, **ids),
        "llama": lambda: transformers.LlamaConfig(num_key_value_heads=N_KV_HEADS, **wide, **ids),
        "mamba": lambda: transformers.MambaConfig(**recurrent, **ids),
        "mamba2": lambda: transformers.Mamba2Config(
            num_heads=8, head_dim=16, n_groups=1, chunk_size=16, **recurrent, **ids
        ),
    }
    return configs[family]()


@torch.no_grad()
def _enliven(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Redraw matrices at unit gain and perturb vectors; leave the recurrences stable."""
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "A_log" in name or "conv1d" in name or "dt_proj" in name:
            parameter.add_(0.1 * noise)
        elif parameter.ndim == 1:
            parameter.add_(0.2 * noise)
        elif "wte" in name or "wpe" in name or "embed" in name:
            # A tied embedding is also the unembedding: kept small, or its logits saturate.
            parameter.copy_(noise * (0.2 if tied else 0.5))
        else:
            parameter.copy_(noise * 1.25 / D_MODEL**0.5)


def save_folder(
    family: str, path: Path, *, kind: Literal["words", "bpe"] = "words", seed: int = 0
) -> Path:
    """Save `make_hf(family)` and its tokenizer as a Hugging Face model folder; return the path."""
    make_hf(family, seed=seed).save_pretrained(path)
    make_tokenizer(kind).save_pretrained(path)
    return path
