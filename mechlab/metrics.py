"""What is read off the logits of a run: one number per row.

Every metric maps logits at the read position, `[row, vocab]`, and token ids to `[row]`. Softmaxes
are taken in float32 whatever the model's dtype. Log-probabilities and logit differences do not
change under weight processing; raw logits do.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mechlab.errors import OptionError

__all__ = [
    "METRICS",
    "Metric",
    "kl_divergence",
    "log_probability",
    "logit_diff",
    "named_metric",
    "probability",
    "rank",
    "units_of",
]

Metric = Callable[[Tensor, Tensor], Tensor]
"""`(logits [row, vocab], answers [row, answer] or reference logits [row, vocab]) -> [row]`.

A callable with an attribute `outputs` returns that many numbers per row, `[row, output]`."""


ROWS_AT_ONCE = 16
"""Rows of logits worked on together: memory of that size is used again instead of asked for."""


def probability(logits: Tensor, answers: Tensor) -> Tensor:
    """Return the probability of the first answer token.

    Args:
        logits: `[row, vocab]`.
        answers: token ids `[row, answer]`; only the first column is read.

    Returns:
        `[row]`, float32, between 0 and 1.
    """
    return torch.exp(log_probability(logits, answers))


def log_probability(logits: Tensor, answers: Tensor) -> Tensor:
    """Return the log-probability of the first answer token, in nats (`[row]`, float32)."""
    parts = zip(logits.split(ROWS_AT_ONCE), answers.split(ROWS_AT_ONCE), strict=True)
    return torch.cat([_log_probability(some, chosen[:, :1]) for some, chosen in parts])


def _log_probability(logits: Tensor, answers: Tensor) -> Tensor:
    """Return what `log_softmax` has at the answers, `[row]`, without writing all of it out."""
    logits = logits.float()
    best = logits.detach().amax(dim=-1, keepdim=True)
    # e^-80 of the best token's share is nothing in float32; far less is a denormal number, and
    # those are twenty times slower.
    total = (logits - best).clamp_(min=-80).exp_().sum(dim=-1)
    return (logits.gather(1, answers) - best).squeeze(1) - total.log()


def logit_diff(logits: Tensor, answers: Tensor) -> Tensor:
    """Return logit(answer) minus logit(wrong answer).

    Args:
        logits: `[row, vocab]`.
        answers: token ids `[row, 2]`: answer, wrong answer.

    Returns:
        `[row]`, float32, in logits.

    Raises:
        OptionError: when there is no wrong answer to compare with.
    """
    if answers.shape[1] < 2:
        raise OptionError(
            "logit_diff needs an answer and a wrong answer per prompt; received one token."
        )
    picked = logits.float().gather(1, answers[:, :2])
    return picked[:, 0] - picked[:, 1]


def rank(logits: Tensor, answers: Tensor) -> Tensor:
    """Return how many tokens score higher than the answer (`[row]`; 0 is the top)."""
    score = logits.gather(1, answers[:, :1])
    return (logits > score).sum(dim=1).float()


def kl_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """Return KL(reference ‖ row) of the next-token distributions.

    Args:
        logits: `[row, vocab]`.
        reference: logits of the base run of each row, `[row, vocab]`.

    Returns:
        `[row]`, float32, in nats.
    """
    log_p = torch.log_softmax(reference.float(), dim=-1)
    log_q = torch.log_softmax(logits.float(), dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


METRICS: dict[str, Metric] = {
    "kl_divergence": kl_divergence,
    "log_probability": log_probability,
    "logit_diff": logit_diff,
    "probability": probability,
    "rank": rank,
}
"""Metrics by name."""


def named_metric(metric: str | Metric) -> Metric:
    """Return a metric by name, or the function itself.

    Raises:
        OptionError: when no metric has that name.
    """
    if callable(metric):
        return metric
    if metric not in METRICS:
        raise OptionError(f"unknown metric {metric!r}. Metrics: {', '.join(METRICS)}.")
    return METRICS[metric]


_UNITS = {
    "kl_divergence": "nats",
    "log_probability": "nats",
    "logit_diff": "logits",
    "probability": "probability",
    "rank": "ranks",
}


def units_of(metric: str | Metric) -> str:
    """Return the units of a metric, for the attributes of a result; of a function, its name."""
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)
    return _UNITS.get(name, name)
