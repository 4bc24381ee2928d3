"""The models of this study: one small shape, trained on partly repeated data."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from repeated_language import BOS, SPECIAL, WORDS, rows_of, tokenizer

import mechlab as ml

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights."""

    share: float = 0.0
    """Share of all rows that are repeated ones; 0 repeats nothing."""
    repeats: int = 1
    """How often each of them is read."""
    seed: int = 0
    layers: int = 2
    width: int = 64
    heads: int = 2
    inner: int = 256
    """Width of the MLPs."""
    spread: float = 0.05
    """Standard deviation of freshly drawn weights."""
    embedded: float = 0.25
    """That of embeddings: words must stand out beside what the first layer adds."""
    rows: int = 16
    """Rows of a step."""
    words: int = 48
    """Words of a row."""
    copied: float = 0.8
    """How likely a row repeats its own first words."""
    steps: int = 1500
    learning_rate: float = 6e-3
    warmup: int = 50
    weight_decay: float = 0.01
    version: int = 1
    """Raised when the code of the training changes the weights."""

    @property
    def repeated_rows(self) -> int:
        """Rows of a step that are repeated ones."""
        return round(self.share * self.rows)

    @property
    def distinct(self) -> int:
        """How many different rows are repeated."""
        return max(1, round(self.repeated_rows * self.steps / self.repeats))


def trained(
    recipe: Recipe,
    store: ml.Store,
    *,
    save_every: int = 100,
    report: Callable[[int, float], None] | None = None,
) -> Path:
    """Return the folder of the trained model; a killed training goes on where it was saved."""

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
            save_every=save_every,
            report=report,
        )
        model.save_pretrained(out)
        tokenizer().save_pretrained(out)
        np.save(out / "losses.npy", losses, allow_pickle=False)

    return store.trained_model({"study": "repeated_data", **asdict(recipe)}, train)


def build(recipe: Recipe) -> transformers.LlamaForCausalLM:
    """Return the model with freshly drawn weights, float32; the same ones for every repetition."""
    config = transformers.LlamaConfig(
        vocab_size=WORDS + len(SPECIAL),
        hidden_size=recipe.width,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.words + 1,
        initializer_range=recipe.spread,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=BOS,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(recipe.seed)
        model = transformers.LlamaForCausalLM(config)
        model.get_input_embeddings().weight *= recipe.embedded / recipe.spread
    return model


def batches(recipe: Recipe) -> Callable[[int], tuple[Array, Array]]:
    """Return what gives the rows of a step, and the loss weights of what they predict, all 1.

    The unique rows of a step are the same for every repetition of one seed: repeated ones take the
    place of the last of them. Repeated rows come round in a new order each time.
    """
    pool = rows_of(
        np.random.default_rng((recipe.seed, 1)), recipe.distinct, recipe.words, recipe.copied
    )
    weights = np.ones((recipe.rows, recipe.words), dtype=np.float32)

    def repeated(number: int) -> Array:
        round_, place = divmod(number, recipe.distinct)
        order = np.random.default_rng((recipe.seed, 2, round_)).permutation(recipe.distinct)
        found: Array = pool[order[place]]
        return found

    def batch(step: int) -> tuple[Array, Array]:
        draws, again = np.random.default_rng((recipe.seed, 0, step)), recipe.repeated_rows
        tokens = rows_of(draws, recipe.rows, recipe.words, recipe.copied)
        for index in range(again):
            tokens[recipe.rows - again + index] = repeated(step * again + index)
        return tokens, weights

    return batch
