"""The model of this study: a small Mamba, trained on the facts that `atlas` was trained on.

Sentences about 197 countries and four relations in the words of `atlas`, with the same two of
twelve sentences per country and relation held out; every fact is equally frequent here.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from mamba_scan import mamba_logits

import mechlab as ml

RELATIONS = ("capital", "language", "currency", "continent")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights."""

    seed: int = 0
    layers: int = 6
    width: int = 128
    state: int = 4
    rows: int = 48
    """Rows of a step."""
    tokens: int = 24
    """Predicted tokens of a row: about two and a half sentences."""
    steps: int = 900
    learning_rate: float = 4e-3
    warmup: int = 100
    weight_decay: float = 0.05
    elsewhere: float = 0.2
    """Loss weight of every token that is not part of an answer."""
    version: int = 1
    """Raised when the code of the training changes the weights."""


@dataclass(frozen=True)
class Sentence:
    """A fact as token ids."""

    ids: tuple[int, ...]
    answer: int
    """Index of the answer's first token."""


def trained(
    recipe: Recipe,
    store: ml.Store,
    *,
    save_every: int = 50,
    report: Callable[[int, float], None] | None = None,
) -> Path:
    """Return the folder of the trained model; a killed training goes on where it was saved.

    Args:
        recipe: what to train.
        store: where it is kept.
        save_every: steps between saved states.
        report: called after each step with the number of steps and the loss, in nats.
    """

    def train(out: Path, states: Path) -> None:
        model = build(recipe)
        losses = ml.organisms.train_language_model(
            model,
            batches(recipe),
            ml.organisms.Schedule(
                recipe.steps,
                learning_rate=recipe.learning_rate,
                warmup=recipe.warmup,
                weight_decay=recipe.weight_decay,
            ),
            states,
            logits=mamba_logits,
            save_every=save_every,
            report=report,
        )
        model.save_pretrained(out)
        np.save(out / "losses.npy", losses, allow_pickle=False)
        for name in TOKENIZER:
            shutil.copy(Path(ml.organisms.path("atlas")) / name, out / name)

    return store.trained_model({"study": "mamba_facts", **asdict(recipe)}, train)


def build(recipe: Recipe) -> transformers.MambaForCausalLM:
    """Return the model with freshly drawn weights, float32."""
    config = transformers.MambaConfig(
        vocab_size=ml.organisms.card("atlas")["architecture"]["vocabulary"],
        hidden_size=recipe.width,
        num_hidden_layers=recipe.layers,
        state_size=recipe.state,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return transformers.MambaForCausalLM(config)


@cache
def facts(*, held_out: bool) -> tuple[ml.prompts.Fact, ...]:
    """Return the facts in the sentences that are trained on, or in those that never are."""
    found = []
    for relation in RELATIONS:
        all_ways = list(ml.prompts.world_facts(relations=[relation], templates=None))
        ways = len(all_ways) // len(ml.prompts.countries())
        for index, fact in enumerate(all_ways):
            rank, way = divmod(index, ways)
            if (way in ml.organisms.held_out_templates(rank, relation)) == held_out:
                found.append(fact)
    return tuple(found)


def batches(recipe: Recipe) -> Callable[[int], tuple[Array, Array]]:
    """Return what gives the rows of a step, and the loss weights of what they predict.

    A row is <bos> and sentences drawn evenly, cut off at the row's end.
    """
    first, later = _encoded(before=""), _encoded(before=" ")
    most = 1 + recipe.tokens // min(len(sentence.ids) for sentence in later)

    def batch(step: int) -> tuple[Array, Array]:
        draws = np.random.default_rng((recipe.seed, step))
        tokens = np.zeros((recipe.rows, recipe.tokens + 1), dtype=np.int64)
        weights = np.full((recipe.rows, recipe.tokens + 1), recipe.elsewhere, dtype=np.float32)
        for row, drawn in enumerate(draws.integers(len(later), size=(recipe.rows, most))):
            filled = 1
            for place, index in enumerate(drawn):
                sentence = (later if place else first)[index]
                part = sentence.ids[: recipe.tokens + 1 - filled]
                tokens[row, filled : filled + len(part)] = part
                weights[row, filled + sentence.answer : filled + len(part)] = 1.0
                filled += len(part)
        return tokens, weights[:, 1:]

    return batch


@cache
def _encoded(before: str) -> tuple[Sentence, ...]:
    """Return the facts that are trained on, with a text in front and a full stop behind."""
    known = facts(held_out=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(ml.organisms.path("atlas")))
    prompts = tokenizer([before + fact.prompt for fact in known], add_special_tokens=False)
    answers = tokenizer([f" {fact.target}." for fact in known], add_special_tokens=False)
    pairs = zip(prompts["input_ids"], answers["input_ids"], strict=True)
    return tuple(Sentence((*prompt, *answer), len(prompt)) for prompt, answer in pairs)
