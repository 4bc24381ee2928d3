"""The value step: which vector, added at the subject, makes the model give the new object?

Many requests are optimised side by side; each has its own vector, its own loss and its own stop, so
that none depends on the others.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mechlab.engine import check_number, check_whole
from mechlab.engine.one_pass import in_one_pass
from mechlab.errors import OptionError
from mechlab.methods.editing.continuing import Change, Started, unchanged

__all__ = ["CURVES", "Objective", "Optimised", "RowLosses", "optimise", "row_losses"]

CURVES = ("loss", "nll", "kl", "decay", "probability", "delta_norm")


@dataclass(frozen=True)
class Objective:
    """What is minimised, and how.

    Attributes:
        steps: times that the loss is looked at; the last one is not followed by a step.
        learning_rate: of Adam.
        kl_weight: of the divergence at the subject of the unrelated sentence.
        decay_weight: of ||delta|| / ||v0||^2.
        clamp: largest ||delta|| / ||v0||; `None` for no limit.
        stop_loss: a total loss below it ends the optimisation.
        stop_probability: a mean probability of the object above it ends the optimisation after
            more than 12 steps; `None` for never.
    """

    steps: int = 20
    learning_rate: float = 0.5
    kl_weight: float = 0.0625
    decay_weight: float = 0.5
    clamp: float | None = 4.0
    stop_loss: float = 0.05
    stop_probability: float | None = None

    def __post_init__(self) -> None:
        """Check all numbers.

        Raises:
            OptionError: listing every one that is out of range.
        """
        problems: list[str] = []
        for name, value in asdict(self).items():
            if value is None and name in ("clamp", "stop_probability"):
                continue
            try:
                if name == "steps":
                    check_whole(name, value, at_least=1)
                else:
                    check_number(name, value, at_least=0)
                    if value == 0 and name in ("learning_rate", "clamp"):
                        raise OptionError(f"{name}=0. Allowed: numbers above 0. Give one of these.")
            except OptionError as err:
                problems.append(str(err))
        if problems:
            raise OptionError("\n".join(problems))


@dataclass(frozen=True)
class Optimised:
    """Vectors found.

    Attributes:
        delta: `[edit, d_out]`, in the precision of the optimisation.
        curves: name -> `[edit, step]`, NaN after the stop.
        steps: how often each loss was looked at.
        stopped: why each ended: `loss`, `probability` or `steps`.
    """

    delta: Tensor
    curves: dict[str, np.ndarray[Any, Any]]
    steps: np.ndarray[Any, Any]
    stopped: tuple[str, ...]


@dataclass(frozen=True)
class RowLosses:
    """Losses of the rows of one batch, each `[row]`, 0 where the row has none of the kind.

    Attributes:
        nll: mean over the object's tokens of their negative log-probability, in nats.
        kl: divergence from the first run at the lookup, in nats.
    """

    nll: Tensor
    kl: Tensor


def row_losses(batch: Started, logits: Tensor, reference: Tensor | None = None) -> RowLosses:
    """Return the losses of a batch's rows from the logits at its reads.

    Args:
        batch: the rows.
        logits: `[read, vocab]`.
        reference: log-probabilities of the first run at the reads.
    """
    chances = torch.log_softmax(logits.to(_wide(batch.model.dtype)), -1)
    of, _ = batch.reads
    ids = [i for row in batch.rows for i in (row.targets or (-1,))]
    targets = torch.tensor(ids, device=logits.device)
    shares = [1 / max(1, len(row.targets)) for row in batch.rows for _ in row.reads]
    share = chances.new_tensor(shares)
    scored = targets >= 0
    chosen = chances.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    empty = chances.new_zeros(len(batch.rows))
    nll = empty.index_add(0, of, torch.where(scored, -chosen * share, chosen.new_zeros(())))
    if reference is None or bool(scored.all()):
        return RowLosses(nll, empty)
    still = ~scored
    divergence = (chances[still].exp() * (chances[still] - reference[still])).sum(-1)
    return RowLosses(nll, empty.index_add(0, of[still], divergence))


def optimise(
    batches: Sequence[Started],
    make: Callable[[Tensor], Change],
    start_values: Tensor,
    objective: Objective,
) -> Optimised:
    """Find one vector per request.

    Args:
        batches: rows of all requests: those with objects, and those that shall stay as they were.
        make: the change that adds vectors `[edit, d_out]` to the rows of each request.
        start_values: v0 per request, `[edit, d_out]`.
        objective: what is minimised.
    """
    with _as_fast(batches):
        return _descended(batches, make, start_values, objective)


def _descended(
    batches: Sequence[Started],
    make: Callable[[Tensor], Change],
    start_values: Tensor,
    objective: Objective,
) -> Optimised:
    n = len(start_values)
    wide = _wide(batches[0].model.dtype)
    v0 = start_values.to(wide).norm(dim=-1)
    delta = torch.zeros(start_values.shape, dtype=wide, device=start_values.device)
    adam = torch.optim.Adam([delta.requires_grad_()], lr=objective.learning_rate)
    counts = _rows_per_owner(batches, n).to(delta.device)
    reference = [_first_log_probabilities(batch) for batch in batches]
    curves = {name: np.full((n, objective.steps), np.nan) for name in CURVES}
    running = torch.ones(n, dtype=torch.bool, device=delta.device)
    stopped, steps = ["steps"] * n, np.zeros(n, dtype=int)
    for step in range(objective.steps):
        adam.zero_grad()
        terms = _backward(batches, reference, make, delta, v0, counts, objective)
        alive = running.cpu().numpy()
        for name in CURVES:
            curves[name][alive, step] = terms[name].detach().cpu().double().numpy()[alive]
        steps[alive] = step + 1
        for owner, reason in _finished(terms, running, step, objective):
            stopped[owner], running[owner] = reason, False
        if step == objective.steps - 1 or not bool(running.any()):
            break
        before = delta.detach().clone()
        adam.step()
        with torch.no_grad():
            delta.copy_(torch.where(running[:, None], _clamped(delta, v0, objective), before))
    return Optimised(delta.detach(), curves, steps, tuple(stopped))


def _as_fast(batches: Sequence[Started]) -> AbstractContextManager[None]:
    """Return a context in which norms and activations are one kernel; plain runs stay plain."""
    first = batches[0]
    return nullcontext() if first.plain else in_one_pass(first.model)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _rows_per_owner(batches: Sequence[Started], n: int) -> Tensor:
    counts = torch.zeros(n)
    for batch in batches:
        for row in batch.rows:
            counts[row.owner] += bool(row.targets)
    return counts


def _first_log_probabilities(batch: Started) -> Tensor | None:
    """Return what the unchanged model says at the reads; `None` where no row needs it."""
    if all(row.targets for row in batch.rows):
        return None
    with torch.no_grad(), batch.model.lock:
        logits = batch.continued(unchanged)
        return torch.log_softmax(logits.to(_wide(batch.model.dtype)), -1)


def _backward(
    batches: Sequence[Started],
    reference: Sequence[Tensor | None],
    make: Callable[[Tensor], Change],
    delta: Tensor,
    v0: Tensor,
    counts: Tensor,
    objective: Objective,
) -> dict[str, Tensor]:
    """Add the gradient of all losses to `delta.grad` and return the terms, each `[edit]`."""
    sums = {name: torch.zeros_like(v0) for name in ("nll", "kl", "probability")}
    for batch, known in zip(batches, reference, strict=True):
        with batch.model.lock, torch.enable_grad():
            losses = row_losses(batch, batch.continued(make(delta)), known)
            weight = losses.nll.new_tensor([bool(row.targets) for row in batch.rows])
            share = weight / counts[batch.owners]
            total = (losses.nll * share).sum() + objective.kl_weight * losses.kl.sum()
            if total.requires_grad:  # a vector in the last block reaches no later token
                total.backward()
        sums["nll"].index_add_(0, batch.owners, (losses.nll * share).detach())
        sums["kl"].index_add_(0, batch.owners, losses.kl.detach() * objective.kl_weight)
        sums["probability"].index_add_(0, batch.owners, (torch.exp(-losses.nll) * share).detach())
    with torch.enable_grad():
        # The norm has no slope at 0: where delta is 0 the decay pulls nowhere.
        decay = objective.decay_weight * torch.linalg.vector_norm(delta, dim=-1) / v0**2
        decay.sum().backward()
    if delta.grad is not None:
        delta.grad.nan_to_num_(nan=0.0)
    sums["decay"] = decay.detach()
    sums["loss"] = sums["nll"] + sums["kl"] + sums["decay"]
    sums["delta_norm"] = delta.detach().norm(dim=-1)
    return sums


def _finished(
    terms: dict[str, Tensor], running: Tensor, step: int, objective: Objective
) -> list[tuple[int, str]]:
    found = []
    for owner in torch.nonzero(running).flatten().tolist():
        sure = float(terms["probability"][owner])
        if float(terms["loss"][owner]) < objective.stop_loss:
            found.append((owner, "loss"))
        elif objective.stop_probability is not None and step >= 12:
            if sure > objective.stop_probability:
                found.append((owner, "probability"))
    return found


def _clamped(delta: Tensor, v0: Tensor, objective: Objective) -> Tensor:
    """Project each vector onto the ball of radius clamp * ||v0||."""
    if objective.clamp is None:
        return delta
    norm = delta.norm(dim=-1)
    limit = objective.clamp * v0
    factor = torch.where(norm > limit, limit / norm.clamp(min=torch.finfo(norm.dtype).tiny), 1.0)
    return delta * factor[:, None]
