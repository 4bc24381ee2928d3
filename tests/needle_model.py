"""A two-layer GPT-2 with hand-set weights that finds needles, and the prompts it reads.

L0H1 attends to the token before and marks each position with that word (positions are an angle in
two dimensions). L1H2 looks for a position marked with the current word, that is the one behind its
earlier occurrence, and writes the word found there: an induction head. All other heads attend at
random and write next to nothing. Where nothing is found the model says `hm`.
"""

import math
from functools import cache
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from mechlab.axes import Head
from mechlab.models import Model, wrap_model
from mechlab.prompts import NeedlePrompt, PromptSet

PREVIOUS, INDUCTION = Head(0, 1), Head(1, 2)
N_LAYERS, N_HEADS, D_HEAD, D_MODEL, N_CTX = 2, 3, 48, 144, 120
FILLERS = ("so", "it", "went", "on", "and", "off", "by", "then")
KEYS, ANSWERS = ("k0", "k1", "k2"), ("a0", "a1", "a2", "a3", "a4", "a5")
WORDS = ("<bos>", "<eos>", "<unk>", "hm", ".", *FILLERS, *KEYS, *ANSWERS)
BIG = 1e8  # epsilon and weight of norms that change nothing
TURN = 2 * math.pi / 128


def prompts(length: int = 40, depths: tuple[float, ...] = (0, 50, 100)) -> PromptSet[NeedlePrompt]:
    """Three needles of three words at several depths, each asked for by its key."""
    filler = [f"{' '.join(FILLERS[(i + j) % 8] for j in range(5))} ." for i in range(30)]
    made = [
        NeedlePrompt(
            " ".join(filler), f"{key} {answer} .", key, answer, length, depth, key,
            group=key, stop=".",
        )
        for key, answer in zip(KEYS, ("a0 a1 a2", "a3 a4 a5", "a5 a2 a0"), strict=True)
        for depth in depths
    ]  # fmt: skip
    return PromptSet(tuple(made), "planted needles")


@cache
def model() -> Model:
    """The model, made once; leave it as found."""
    return wrap_model(_hf(), _tokenizer(), name="needle-model")


class _Space:
    """Features as pairs of dimensions (+x, -x), so that centring changes nothing."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def write(self, name: str) -> torch.Tensor:
        if name not in self.names:
            self.names.append(name)
        vector, first = torch.zeros(D_MODEL), 2 * self.names.index(name)
        vector[first], vector[first + 1] = 1.0, -1.0
        return vector

    def read(self, name: str) -> torch.Tensor:
        return self.write(name) / 2


@torch.no_grad()
def _hf() -> Any:
    config = transformers.GPT2Config(
        vocab_size=len(WORDS), n_embd=D_MODEL, n_layer=N_LAYERS, n_head=N_HEADS, n_inner=8,
        n_positions=N_CTX, layer_norm_epsilon=BIG, tie_word_embeddings=False, bos_token_id=0,
        eos_token_id=1,
    )  # fmt: skip
    hf = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    random = torch.Generator().manual_seed(0)
    for name, parameter in hf.named_parameters():
        is_norm = ".ln_" in name and name.endswith("weight")
        parameter.copy_(torch.randn(parameter.shape, generator=random) if parameter.ndim > 1 else
                        torch.full(parameter.shape, BIG**0.5 if is_norm else 0.0))  # fmt: skip
    space, body = _Space(), hf.transformer
    _embed(hf, space)
    for block in body.h:
        block.mlp.c_proj.weight.mul_(1e-4)
        block.attn.c_attn.weight.mul_(0.3)
        output = block.attn.c_proj.weight
        output.mul_(1e-4)
    _previous(body.h[0].attn, space)
    _induction(body.h[1].attn, space)
    return hf.eval()


def _embed(hf: Any, space: _Space) -> None:
    for weight in (hf.transformer.wte.weight, hf.transformer.wpe.weight, hf.lm_head.weight):
        weight.zero_()
    for token, word in enumerate(WORDS):
        hf.transformer.wte.weight[token] = space.write(f"is {word}") + space.write("one")
        hf.lm_head.weight[token] = space.read(f"out {word}")
    hf.lm_head.weight[WORDS.index("hm")] += 0.01 * space.read("one")
    for place in range(N_CTX):
        hf.transformer.wpe.weight[place] = (
            math.cos(TURN * place) * space.write("cos")
            + math.sin(TURN * place) * space.write("sin")
        )  # fmt: skip


def _parts(attention: Any, head: int) -> tuple[torch.Tensor, ...]:
    """Query, key and value maps [d_model, d_head] and output map [d_head, d_model], all zero."""
    qkv = attention.c_attn.weight.view(D_MODEL, 3, N_HEADS, D_HEAD)
    output = attention.c_proj.weight.view(N_HEADS, D_HEAD, D_MODEL)
    qkv[:, :, head], output[head] = 0, 0
    return qkv[:, 0, head], qkv[:, 1, head], qkv[:, 2, head], output[head]


def _previous(attention: Any, space: _Space) -> None:
    q, k, v, o = _parts(attention, PREVIOUS.head)
    cos, sin, gain = math.cos(TURN), math.sin(TURN), 1e5 * D_HEAD**0.5
    q[:, 0] = gain * (cos * space.read("cos") + sin * space.read("sin"))
    q[:, 1] = gain * (cos * space.read("sin") - sin * space.read("cos"))
    k[:, 0], k[:, 1] = space.read("cos"), space.read("sin")
    for place, word in enumerate(WORDS):
        v[:, place], o[place] = space.read(f"is {word}"), space.write(f"after {word}")


def _induction(attention: Any, space: _Space) -> None:
    q, k, v, o = _parts(attention, INDUCTION.head)
    for place, word in enumerate(WORDS):
        q[:, place] = 200 * D_HEAD**0.5 * space.read(f"is {word}")
        k[:, place] = space.read(f"after {word}")
        v[:, place], o[place] = space.read(f"is {word}"), space.write(f"out {word}")


def _tokenizer() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<bos>", eos_token="<eos>", pad_token="<eos>",
        unk_token="<unk>", add_bos_token=True, name_or_path="local",
    )  # fmt: skip
