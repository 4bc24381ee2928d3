"""The training loop of a small language model: any architecture, any batches, exact resume.

`ml.organisms.train_language_model` is what studies train their own models with;
`ml.Store.trained_model` keeps what comes out.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.organisms.states import restore_state, save_state

if TYPE_CHECKING:
    import torch

__all__ = ["Schedule", "adamw", "cosine_rate", "descend", "train_language_model"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a model is trained: AdamW, a warm-up, then a cosine."""

    steps: int
    """Steps in all."""
    learning_rate: float = 2e-3
    """At its peak."""
    warmup: int = 100
    """Steps in which the learning rate rises evenly."""
    final_share: float = 0.05
    """The learning rate's share of its peak at the end."""
    weight_decay: float = 0.1
    """Of matrices; vectors have none."""
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    """Largest norm of the gradient."""

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return cosine_rate(step, self.learning_rate, self.steps, self.warmup, self.final_share)


def cosine_rate(step: int, peak: float, steps: int, warmup: int, final_share: float) -> float:
    """Return the learning rate of a step: an even rise, then half a cosine down to a share."""
    if step < warmup:
        return peak * (step + 1) / warmup
    part = (step - warmup) / max(1, steps - warmup)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, part)))
    return peak * (final_share + (1 - final_share) * fall)


def adamw(
    model: "torch.nn.Module", rate: float, betas: tuple[float, float], weight_decay: float
) -> "torch.optim.Optimizer":
    """Return AdamW over all parameters; weight decay on matrices only."""
    import torch

    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=betas, weight_decay=weight_decay, fused=True)


def descend(
    model: "torch.nn.Module",
    optimiser: "torch.optim.Optimizer",
    loss: "torch.Tensor",
    rate: float,
    clip: float,
) -> float:
    """Make one step down a loss, its gradient clipped; return the loss."""
    import torch

    for group in optimiser.param_groups:
        group["lr"] = rate
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return float(loss.detach())


def train_language_model(
    model: "torch.nn.Module",
    batch: Callable[[int], tuple[Array, Array]],
    schedule: Schedule,
    states: Path,
    *,
    logits: "Callable[[torch.nn.Module, torch.Tensor], torch.Tensor] | None" = None,
    save_every: int = 100,
    stop: int | None = None,
    report: Callable[[int, float], None] | None = None,
) -> Array:
    """Train a causal language model in place, going on from the newest state there is.

    The result of a run that was killed and started again is bitwise that of one run, on the same
    machine, as long as `batch` depends on the step alone.

    Args:
        model: a Hugging Face causal language model with freshly drawn weights.
        batch: from a step, counted from 0, to token ids `[batch, pos + 1]` and the loss weight of
            predicting `tokens[:, 1:]`, `[batch, pos]`.
        schedule: how long and how fast.
        states: folder of saved states; those of one recipe only.
        logits: another way to compute the model's logits `[batch, pos, vocab]` from token ids.
        save_every: steps between saved states.
        stop: end after this many steps in all, keeping the schedule.
        report: called after each step with the number of steps made and its loss, in nats; what it
            raises ends the run, which can be taken up again.

    Returns:
        The loss of every step since the first, in nats, float32 `[step]`.
    """
    import torch

    run = _plain_logits if logits is None else logits
    optimiser = adamw(
        model, schedule.learning_rate, (schedule.beta1, schedule.beta2), schedule.weight_decay
    )
    found = restore_state(states, model, optimiser)
    done, losses = (found[0], found[1].tolist()) if found else (0, [])
    end = schedule.steps if stop is None else min(stop, schedule.steps)
    model.train()
    for step in range(done, end):
        tokens, weights = (torch.from_numpy(part) for part in batch(step))
        each = torch.nn.functional.cross_entropy(
            run(model, tokens[:, :-1]).float().flatten(0, 1),
            tokens[:, 1:].flatten(),
            reduction="none",
        )
        loss = (each * weights.flatten()).sum() / weights.sum()
        losses.append(descend(model, optimiser, loss, schedule.rate(step), schedule.clip))
        if (step + 1) % save_every == 0 or step + 1 == end:
            kept = np.array(losses, dtype=np.float32)
            save_state(states, step + 1, model, optimiser, kept, asdict(schedule))
        if report is not None:
            report(step + 1, losses[-1])
    model.eval()
    return np.array(losses, dtype=np.float32)


def _plain_logits(model: "torch.nn.Module", tokens: "torch.Tensor") -> "torch.Tensor":
    found: torch.Tensor = model(input_ids=tokens, use_cache=False).logits
    return found
