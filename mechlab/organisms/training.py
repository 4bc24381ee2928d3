"""The training loop of `atlas`: batches by step number, saved states, exact resume."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.organisms.acquiring import Record, log_spaced
from mechlab.organisms.corpus.batches import batch
from mechlab.organisms.corpus.tokenizer import train_tokenizer
from mechlab.organisms.language_training import adamw, cosine_rate, descend
from mechlab.organisms.runner import Runner
from mechlab.organisms.skills import measure
from mechlab.organisms.states import restore_state, save_state
from mechlab.organisms.tokenizing import save_tokenizer

if TYPE_CHECKING:
    import torch

__all__ = ["Recipe", "train_atlas"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out of training."""

    seed: int = 0
    steps: int = 4400
    """Length of the cosine."""
    tail: int = 600
    """Steps after it, in which the learning rate starts anew from `tail_rate` and falls evenly."""
    tail_rate: float = 5e-4
    layers: int = 8
    width: int = 192
    heads: int = 6
    inner: int = 512
    vocabulary: int = 3072
    context: int = 512
    learning_rate: float = 2e-3
    warmup: int = 200
    final_share: float = 0.05
    """The learning rate's share of its peak at the end of the cosine."""
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.steps + self.tail

    @property
    def marks(self) -> tuple[int, ...]:
        """The steps at which facts and skills are recorded."""
        return tuple(sorted({*log_spaced(self.steps), self.total}))

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step >= self.steps:
            return self.tail_rate * (1 - (1 - self.final_share) * (step - self.steps) / self.tail)
        return cosine_rate(step, self.learning_rate, self.steps, self.warmup, self.final_share)


def build_model(recipe: Recipe) -> "torch.nn.Module":
    """Return the untrained model of a recipe, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        attn_implementation="sdpa",
    )
    torch.manual_seed(recipe.seed)
    model: torch.nn.Module = LlamaForCausalLM(config)
    return model


class Trainer:
    """Model, optimiser and counters of one run, saved and restored exactly."""

    def __init__(self, recipe: Recipe, out: Path, compiled: bool) -> None:
        """Build the run's parts; the tokenizer is trained on the way when the folder has none."""
        import torch
        from tokenizers import Tokenizer

        self.recipe, self.out = recipe, out
        out.mkdir(parents=True, exist_ok=True)
        if not (out / "tokenizer.json").exists():
            save_tokenizer(train_tokenizer(recipe.seed, recipe.vocabulary), out, recipe.context)
        self.tokenizer: Tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
        self.model = build_model(recipe)
        self.optimiser = adamw(
            self.model, recipe.learning_rate, (recipe.beta1, recipe.beta2), recipe.weight_decay
        )
        self.loss: Callable[..., torch.Tensor] = _loss_function(self.model, compiled)
        self.exposures: np.ndarray = np.zeros(0)
        self.step = 0
        self.record = Record(out / "acquisition.npz")

    def advance(self) -> float:
        """Make one step; return its loss."""
        import torch

        data = batch(self.recipe.seed, self.step, self.tokenizer)
        loss = self.loss(torch.from_numpy(data.tokens), torch.from_numpy(data.weights))
        rate = self.recipe.rate(self.step)
        found = descend(self.model, self.optimiser, loss, rate, self.recipe.clip)
        self.exposures = data.exposures + (self.exposures if self.exposures.size else 0)
        self.step += 1
        return found

    def save(self) -> None:
        """Write the present state."""
        save_state(
            self.out, self.step, self.model, self.optimiser, self.exposures, asdict(self.recipe)
        )

    def restore(self) -> bool:
        """Take up the newest saved state; return whether there was one."""
        if (found := restore_state(self.out, self.model, self.optimiser)) is None:
            return False
        self.step, self.exposures = found
        self.record.forget_after(self.step)
        return True

    def runner(self) -> Runner:
        """Return the model ready for measuring."""
        return Runner(self.model, self.tokenizer)


def _loss_function(model: "torch.nn.Module", compiled: bool) -> "Callable[..., torch.Tensor]":
    import torch

    config: Any = model.config

    def loss(tokens: "torch.Tensor", weights: "torch.Tensor") -> "torch.Tensor":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        each = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
        )
        return (each * weights.flatten()).sum() / weights.sum()

    function: Callable[..., torch.Tensor] = torch.compile(loss, dynamic=False) if compiled else loss

    def by_length(tokens: "torch.Tensor", weights: "torch.Tensor") -> "torch.Tensor":
        # On short windows the fused attention spends half of a step in its backward pass.
        config._attn_implementation = "eager" if tokens.shape[1] < 200 else "sdpa"
        return function(tokens, weights)

    return by_length


def train_atlas(
    out: Path,
    recipe: Recipe,
    *,
    resume: bool = False,
    stop: int | None = None,
    compiled: bool = True,
    save_every: int = 250,
    measured: bool = True,
) -> Trainer:
    """Train `atlas`, writing tokenizer, checkpoints, log and acquisition record to `out`.

    Args:
        out: folder of the run.
        recipe: what to train.
        resume: go on from the newest checkpoint in `out`; the result is bitwise that of one run.
        stop: end after this many steps in all, keeping the recipe's schedule.
        compiled: whether to compile the step (twice as fast; the first two steps take a minute).
        save_every: steps between checkpoints.
        measured: whether to record facts and skills at log-spaced steps.
    """
    trainer = Trainer(recipe, out, compiled)
    if resume and trainer.restore():
        _LOG.info("resumed at step %d", trainer.step)
    else:
        trainer.record.forget_after(-1)
    end, marks = min(stop or recipe.total, recipe.total), recipe.marks
    began, losses = time.monotonic(), []
    if measured and trainer.step == 0:
        trainer.record.add(
            0, batch(recipe.seed, 0, trainer.tokenizer).exposures * 0, trainer.runner()
        )
    while trainer.step < end:
        losses.append(trainer.advance())
        if trainer.step % 50 == 0:
            pace = (time.monotonic() - began) / len(losses)
            _LOG.info("step %d loss %.4f, %.3f s/step", trainer.step, np.mean(losses[-50:]), pace)
        if trainer.step % save_every == 0 or trainer.step == end:
            trainer.save()
        if measured and trainer.step in marks:
            trainer.record.add(trainer.step, trainer.exposures, trainer.runner())
            if trainer.step >= 200:
                skills = json.dumps(measure(trainer.runner(), quick=True))
                _LOG.info("step %d skills %s", trainer.step, skills)
    return trainer
