"""Attention-only GPT-2s with planted heads on one-hot tokens and positions: what they do is exact.

The residual stream holds a token's one-hot, its position's one-hot, the token before it (written by
a previous-token head), the logits, a constant and a balance that keeps every mean at 0. Norms are
the identity (see `circuits`). Scores lead by 104, where float32's softmax is exactly 0 or 1. The
last head of every layer is uniform and silent, except on words that no list holds, by which
`engine.verify` finds all sites alive.
"""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import transformers
from circuits import BIG
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

from mechlab.axes import Head

if TYPE_CHECKING:
    from mechlab.models import Model

N_LISTED, N_WORDS, N_POS, N_HEADS = 32, 60, 72, 4
N_VOCAB = N_WORDS + 4
D_HEAD = N_VOCAB + N_POS
D_MODEL = N_HEADS * D_HEAD
LEAD = 104.0
TOK, POS, PREV, OUT = (slice(a, a + n) for a, n in (
    (0, N_VOCAB), (N_VOCAB, N_POS), (N_VOCAB + N_POS, N_VOCAB), (2 * N_VOCAB + N_POS, N_VOCAB)
))  # fmt: skip
ONE, BALANCE = 3 * N_VOCAB + N_POS, 3 * N_VOCAB + N_POS + 1


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """60 words, and a BOS that is not put in front of texts."""
    words = ["<bos>", "<eos>", "<pad>", "<unk>", *(f"w{i}" for i in range(N_WORDS))]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {f"{kind}_token": f"<{kind}>" for kind in ("bos", "eos", "pad", "unk")}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, add_bos_token=False, name_or_path="local", **special
    )


def shapes(kind: str) -> tuple[Tensor, Tensor]:
    """Query and key maps `[d_model, d_head]` of a planted pattern."""
    q, k = torch.zeros(2, D_MODEL, D_HEAD)
    tokens, places = torch.eye(N_VOCAB), torch.eye(N_POS)
    if kind == "previous":
        q[POS, :N_POS] = LEAD * torch.roll(places, -1, 1) * (torch.arange(N_POS) > 0)[:, None]
        k[POS, :N_POS] = places
    elif kind == "duplicate":  # the same token, but not itself
        q[TOK, :N_VOCAB] = LEAD * tokens
        k[TOK, :N_VOCAB] = tokens
        q[POS, N_VOCAB:] = -2 * LEAD * places
        k[POS, N_VOCAB:] = places
    elif kind == "induction":
        q[TOK, :N_VOCAB] = LEAD * tokens
        k[PREV, :N_VOCAB] = tokens
    elif kind == "recency":  # weight proportional to position + 1
        q[ONE, 0] = 1
        k[POS, 0] = torch.arange(1, N_POS + 1).log()
    else:
        assert kind == "uniform"
    return q * D_HEAD**0.5, k


def words(count: int = N_LISTED) -> range:
    """Token ids for lists, the pool of all tests."""
    return range(4, 4 + count)


def planted(
    heads: Mapping[str, tuple[str, str, Any]], n_layers: int = 2, bias: str | None = None
) -> "Model":
    """Return a model of the heads given, `{"L0H0": (pattern, what it writes, how much)}`.

    A head writes `prev` or `out` of the token that it reads, a number times; or `out` through a
    matrix `[vocab, vocab]`. Other heads attend uniformly and write nothing. The head `bias` writes
    the same vector everywhere.
    """
    from mechlab.axes import heads as parsed
    from mechlab.models import wrap_model

    hf = _empty(n_layers)
    for block in hf.transformer.h:
        _enliven(block.attn)
    for name, (pattern, to, gain) in heads.items():
        place = parsed(name)[0]
        block = hf.transformer.h[place.layer].attn
        qkv = block.c_attn.weight.data.view(D_MODEL, 3, N_HEADS, D_HEAD)
        out = block.c_proj.weight.data.view(N_HEADS, D_HEAD, D_MODEL)
        qkv[:, 0, place.head], qkv[:, 1, place.head] = shapes(pattern)
        qkv[TOK, 2, place.head, :N_VOCAB] = torch.eye(N_VOCAB)
        matrix = gain if isinstance(gain, Tensor) else gain * torch.eye(N_VOCAB)
        out[place.head, :N_VOCAB, {"prev": PREV, "out": OUT}[to]] = matrix
        out[place.head, :N_VOCAB, BALANCE] = -matrix.sum(1)
    if bias is not None:
        place = parsed(bias)[0]
        block = hf.transformer.h[place.layer].attn
        block.c_attn.bias.data.view(3, N_HEADS, D_HEAD)[2, place.head, 0] = 1.0
        block.c_proj.weight.data.view(N_HEADS, D_HEAD, D_MODEL)[place.head, 0, OUT.start + 5] = 2.0
    return wrap_model(hf, tokenizer(), name="planted")


@cache
def induction(gain: float = 30.0) -> "Model":
    """L0H0 notes the token before, L1H0 finds what followed and raises it by `gain`."""
    return planted({"L0H0": ("previous", "prev", 1.0), "L1H0": ("induction", "out", gain)})


@cache
def patterns() -> "Model":
    """One layer: a previous-token, a duplicate-token, a recency and a uniform head."""
    return planted(
        {
            "L0H0": ("previous", "out", 3.0),
            "L0H1": ("duplicate", "out", -1.0),
            "L0H2": ("recency", "out", torch.diag(torch.ones(N_VOCAB - 1), 1) * 0.5),
        },
        n_layers=1,
    )


PREVIOUS, INDUCTION = Head(0, 0), Head(1, 0)


@torch.no_grad()
def _enliven(attention: Any) -> None:
    """Let the last head look at, and write for, words beyond those of lists."""
    value = torch.zeros(D_MODEL)
    value[TOK][4 + N_LISTED :] = torch.linspace(-1, 1, N_WORDS - N_LISTED)
    qkv = attention.c_attn.weight.data.view(D_MODEL, 3, N_HEADS, D_HEAD)
    qkv[ONE, 0, -1, 0] = D_HEAD**0.5
    qkv[:, 1, -1, 0] = 2 * value
    qkv[:, 2, -1, 0] = value
    output = attention.c_proj.weight.data.view(N_HEADS, D_HEAD, D_MODEL)
    output[-1, 0, OUT.stop - 1], output[-1, 0, BALANCE] = 3.0, -3.0


@torch.no_grad()
def _empty(n_layers: int) -> Any:
    """A GPT-2 whose blocks write nothing: every next token is equally probable."""
    config = transformers.GPT2Config(
        vocab_size=N_VOCAB, n_embd=D_MODEL, n_layer=n_layers, n_head=N_HEADS, n_inner=4,
        n_positions=N_POS, layer_norm_epsilon=BIG, tie_word_embeddings=False, bos_token_id=0,
        eos_token_id=1, pad_token_id=2, attn_implementation="eager",
    )  # fmt: skip
    hf = transformers.AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in hf.named_parameters():
        parameter.fill_(BIG**0.5 if ".ln_" in name and "weight" in name else 0.0)
    body = hf.transformer
    body.wte.weight[:, TOK] = torch.eye(N_VOCAB)
    body.wte.weight[:, BALANCE] = -2.0
    body.wte.weight[:, ONE] = 1.0
    body.wpe.weight[:, POS] = torch.eye(N_POS)
    body.wpe.weight[:, BALANCE] = -1.0
    hf.lm_head.weight[:, OUT] = torch.eye(N_VOCAB)
    return hf
