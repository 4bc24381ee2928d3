"""The recipe of `echo`: two layers of attention alone, trained on repeated random bytes.

A GPT-2 configuration whose MLPs are frozen at zero, so that every block adds the output of its
heads only. Checkpoints at log-spaced steps cover the phase change in which it learns induction.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mechlab.organisms.acquiring import log_spaced
from mechlab.organisms.states import restore_state, save_state

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

__all__ = ["EchoRecipe", "echo_batch", "echo_tokenizer", "second_copy_loss", "train_echo"]

_LOG = logging.getLogger(__name__)
SPECIAL = 3
"""Ids 0 to 2 are <bos>, <eos> and <pad>; the 256 bytes follow."""


@dataclass(frozen=True)
class EchoRecipe:
    """Everything that decides what comes out of training."""

    seed: int = 0
    steps: int = 4000
    layers: int = 2
    width: int = 64
    heads: int = 4
    context: int = 256
    rows: int = 16
    shortest: int = 8
    """Fewest tokens in one copy."""
    longest: int = 127
    """Most tokens in one copy; a copy always fits twice."""
    learning_rate: float = 2e-3
    warmup: int = 50
    weight_decay: float = 0.01
    checkpoints: int = 24
    first_checkpoint: int = 40

    @property
    def marks(self) -> tuple[int, ...]:
        """The steps whose weights are kept."""
        return log_spaced(self.steps, self.checkpoints, self.first_checkpoint)


def echo_batch(recipe: EchoRecipe, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a step's tokens [batch, pos] and which of `tokens[:, 1:]` repeat an earlier copy.

    Each row is BOS and a sequence of distinct random tokens, repeated until the row is full.
    """
    draws = np.random.default_rng((recipe.seed, step))
    tokens = np.zeros((recipe.rows, recipe.context), dtype=np.int64)
    repeated = np.zeros((recipe.rows, recipe.context - 1), dtype=np.float32)
    for row in range(recipe.rows):
        length = int(draws.integers(recipe.shortest, recipe.longest + 1))
        once = draws.choice(256, length, replace=False) + SPECIAL
        tokens[row, 1:] = np.resize(once, recipe.context - 1)
        repeated[row, length:] = 1
    return tokens, repeated


def echo_tokenizer() -> "Tokenizer":
    """Return a tokenizer whose tokens are the 256 bytes, with <bos> prepended."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    names = ["<bos>", "<eos>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    raw = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    raw.add_special_tokens(names[:SPECIAL])
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 0)]
    )
    return raw


def build_echo(recipe: EchoRecipe) -> "torch.nn.Module":
    """Return the untrained model, its MLPs zero and frozen."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=256 + SPECIAL,
        n_positions=recipe.context,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        n_inner=1,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    torch.manual_seed(recipe.seed)
    model: torch.nn.Module = GPT2LMHeadModel(config)
    for name, parameter in model.named_parameters():
        if ".mlp." in name:
            parameter.requires_grad_(False).zero_()
    return model


def second_copy_loss(model: "torch.nn.Module", length: int = 60, sequences: int = 32) -> float:
    """Return the mean loss in nats on the second copy of `length` distinct random tokens."""
    import torch

    draws = np.random.default_rng(12345)
    once = np.stack([draws.choice(256, length, replace=False) + SPECIAL for _ in range(sequences)])
    start = np.zeros((sequences, 1), dtype=np.int64)
    tokens = torch.from_numpy(np.concatenate([start, once, once], 1))
    with torch.inference_mode():
        logits = model(input_ids=tokens, use_cache=False).logits[:, length:-1].float()
    return float(
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, length + 1 :].flatten())
    )


def train_echo(
    out: Path, recipe: EchoRecipe, *, resume: bool = False, stop: int | None = None
) -> "torch.nn.Module":
    """Train `echo`, writing weights at every mark to `out/checkpoints` and states for resuming.

    Args:
        out: folder of the run.
        recipe: what to train.
        resume: go on from the newest state in `out`; the result is bitwise that of one run.
        stop: end after this many steps in all, keeping the recipe's schedule.
    """
    import torch
    from safetensors.torch import save_file

    model = build_echo(recipe)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        trained, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    found = restore_state(out, model, optimiser) if resume else None
    step = found[0] if found else 0
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    while True:
        if step in recipe.marks:
            weights = {n: p.detach().half().contiguous() for n, p in model.named_parameters()}
            path = out / "checkpoints" / f"step-{step:06d}.safetensors"
            save_file(weights, str(path), metadata={"format": "pt"})
            _LOG.info("step %d second copy %.4f nats", step, second_copy_loss(model))
            save_state(out, step, model, optimiser, np.zeros(0), asdict(recipe))
        if step >= min(recipe.steps, stop or recipe.steps):
            break
        _advance(model, optimiser, recipe, step)
        step += 1
    save_state(out, step, model, optimiser, np.zeros(0), asdict(recipe))
    return model


def _advance(
    model: "torch.nn.Module", optimiser: "torch.optim.Optimizer", recipe: EchoRecipe, step: int
) -> None:
    import torch

    tokens, repeated = (torch.from_numpy(part) for part in echo_batch(recipe, step))
    for group in optimiser.param_groups:
        group["lr"] = recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup)
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    each = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    loss = (each * repeated.flatten()).sum() / repeated.sum()
    loss.backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
