"""The published way to retrieval scores, written plainly; the model and prompts of the study."""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

import mechlab as ml

__all__ = ["Case", "Published", "llama_case", "prompt_tokens", "published"]

NEEDLE, QUESTION = 16, 12
"""Words of the needle, all of which are its answer, and of the question."""
SENTENCE = 9
"""Words of a sentence of the haystack, before its full stop."""


@dataclass(frozen=True)
class Case:
    """A model twice (wrapped and untouched), and the tests.

    Attributes:
        model: for mechlab.
        plain: the same weights in a module that no bridge has touched.
        prompts: one test per length and depth, lengths first.
        words: what the haystack is made of, as token ids in order.
        needle, question: their token ids.
    """

    model: ml.Model
    plain: Any
    prompts: Any
    words: list[int]
    needle: list[int]
    question: list[int]


def llama_case(lengths: Sequence[int], depths: int, *, quick: bool = False) -> Case:
    """Return a Llama shape with random weights, 8 layers x 16 heads x 512, and needle prompts."""
    vocabulary = [f"w{n}" for n in range(998)]
    tokenizer = word_tokenizer(vocabulary)
    plain = random_llama(len(tokenizer), max(lengths) + 64, quick=quick)
    model = ml.wrap_model(copy.deepcopy(plain), tokenizer, name="llama-shape", prepend_bos=False)
    draw = random.Random(0)
    hidden = draw.sample(vocabulary, NEEDLE + QUESTION)
    others = [word for word in vocabulary if word not in set(hidden)]
    text = " ".join(
        " ".join(draw.choices(others, k=SENTENCE)) + " ."
        for _ in range(1 + max(lengths) // (SENTENCE + 1))
    )
    needle, question = " ".join(hidden[:NEEDLE]), " ".join(hidden[NEEDLE:])
    prompts = ml.prompts.PromptSet(
        tuple(
            ml.prompts.NeedlePrompt(
                text, f" {needle}", f" {question}", needle, length, round(depth), stop=""
            )
            for length in lengths
            for depth in np.linspace(0, 100, depths)
        )
    )

    def ids(words: str) -> list[int]:
        return list(tokenizer(words)["input_ids"])

    return Case(model, plain, prompts, ids(text), ids(needle), ids(question))


def random_llama(n_words: int, context: int, *, quick: bool) -> Any:
    """Return random weights that are large enough for attention to be peaked."""
    size: dict[str, Any] = {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 16,
        "intermediate_size": 1408,
    }
    if quick:
        size = {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
        }
    config = tf.LlamaConfig(vocab_size=n_words, max_position_embeddings=context, **size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            if weight.ndim == 2:
                weight.mul_(50 if "embed" in name else 3)
    return plain.eval().requires_grad_(False)


def word_tokenizer(vocabulary: Sequence[str]) -> tf.PreTrainedTokenizerFast:
    """Return a tokenizer with one id per word, for the full stop, and for anything else."""
    names = [*vocabulary, ".", "<unk>"]
    raw = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}, "<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", pad_token="<unk>", name_or_path="words"
    )


def prompt_tokens(case: Case, start: int, total: int) -> list[int]:
    """Return a test's token ids: haystack, needle at `start`, the rest of it, question."""
    rest = total - NEEDLE - QUESTION
    return [*case.words[:start], *case.needle, *case.words[start:rest], *case.question]


@dataclass(frozen=True)
class Published:
    """What the published procedure finds in one test.

    Attributes:
        tokens: as written.
        attended: `[step, layer, head]`, most attended position.
        score: `[layer, head]`, 1 / (needle tokens) for each time one was copied.
    """

    tokens: list[int]
    attended: np.ndarray
    score: np.ndarray


def published(case: Case, ids: Sequence[int], start: int, steps: int) -> Published:
    """Read one test as Wu et al. do: all of it from its first token, then weights step by step.

    Prefill with fast attention up to the last token; then token by token with eager attention and
    returned weights; at each step a loop over layers and heads takes the top position and compares.
    """
    plain, config = case.plain, case.plain.config
    shape = (config.num_hidden_layers, config.num_attention_heads)
    score, attended, tokens = np.zeros(shape), np.zeros((steps, *shape), np.int64), []
    prompt = torch.tensor(ids)
    with torch.no_grad():
        plain.set_attn_implementation("sdpa")
        past = plain(prompt[None, :-1], use_cache=True, logits_to_keep=1).past_key_values
        plain.set_attn_implementation("eager")
        token = prompt[-1]
        for step in range(steps):
            out = plain(
                token.view(1, 1), past_key_values=past, use_cache=True, output_attentions=True
            )
            past = out.past_key_values
            token = out.logits[0, -1].argmax()
            tokens.append(int(token))
            for layer in range(shape[0]):
                for head in range(shape[1]):
                    _, at = out.attentions[layer][0][head][-1].topk(1)
                    place = int(at)
                    attended[step, layer, head] = place
                    inside = start <= place < start + NEEDLE
                    if inside and token.item() == prompt[place].item():
                        score[layer, head] += 1 / NEEDLE
    return Published(tokens, attended, score)
