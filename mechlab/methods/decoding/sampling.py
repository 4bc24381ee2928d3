"""Choosing the next token from a distribution: the most probable, or a seeded draw."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor

from mechlab.errors import OptionError

__all__ = ["Sampling", "pick", "uniforms"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn at random; without it the most probable one is taken.

    A draw depends on the seed, the prompt and the step alone: neither on other prompts, nor on
    their order, nor on the size of a batch.
    """

    temperature: float = 1.0
    """Divides log-probabilities: below 1 sharpens, above 1 flattens."""
    top_k: int | None = None
    """Draw among so many most probable tokens."""
    top_p: float | None = None
    """Draw among the fewest most probable tokens that hold this probability together."""
    seed: int = 0
    """The same seed draws the same tokens."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            OptionError: naming all that is wrong.
        """
        if problems := list(_problems(self)):
            raise OptionError(
                f"Sampling cannot be set up so: {', '.join(problems)}.\n"
                "  Allowed: a temperature above 0, top_k a whole number from 1, top_p above 0 and "
                "up to 1, seed a whole number.\n"
                "  For the most probable token leave sampling out."
            )


def pick(scores: Tensor, sampling: Sampling | None, draws: Tensor) -> Tensor:
    """Return one token per row, `[row]`.

    Args:
        scores: log-probabilities, perhaps not normalised, `[row, vocab]`; -inf is never chosen.
        sampling: how to draw; `None` takes the largest, the first of equals.
        draws: `[row]`, between 0 and 1; each decides one draw.
    """
    if sampling is None:
        return scores.argmax(-1)
    p = _filtered(scores / sampling.temperature, sampling).softmax(-1)
    total = p.cumsum(-1)
    # The first token at which the sum exceeds the draw; one of probability 0 never does.
    chosen = (total > draws[:, None].to(p) * total[:, -1:]).int().argmax(-1)
    return chosen


def uniforms(sampling: Sampling | None, prompts: Sequence[str], step: int) -> list[float]:
    """Return numbers in [0, 1), one per prompt, for one step."""
    if sampling is None:
        return [0.0] * len(prompts)
    return [_uniform(f"{sampling.seed}\x1f{prompt}\x1f{step}") for prompt in prompts]


def _uniform(key: str) -> float:
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    return (number >> 11) * 2.0**-53


def _filtered(scores: Tensor, sampling: Sampling) -> Tensor:
    """Return scores with -inf for tokens outside top-k, and then outside top-p of what is left."""
    if sampling.top_k is not None and sampling.top_k < scores.shape[-1]:
        kept = scores.topk(sampling.top_k, -1).indices
        scores = torch.full_like(scores, -math.inf).scatter(-1, kept, scores.gather(-1, kept))
    if sampling.top_p is not None and sampling.top_p < 1:
        p, order = scores.softmax(-1).sort(dim=-1, descending=True, stable=True)
        before = p.cumsum(-1) - p  # probability of all tokens in front
        out = torch.zeros_like(before, dtype=torch.bool)
        out.scatter_(-1, order, before >= sampling.top_p)
        scores = scores.masked_fill(out, -math.inf)
    return scores


def _problems(sampling: Sampling) -> Iterator[str]:
    temperature, top_k, top_p = sampling.temperature, sampling.top_k, sampling.top_p
    if not (_is_number(temperature) and temperature > 0):
        yield f"temperature={temperature!r}"
    if top_k is not None and not (_is_whole(top_k) and top_k >= 1):
        yield f"top_k={top_k!r}"
    if top_p is not None and not (_is_number(top_p) and 0 < top_p <= 1):
        yield f"top_p={top_p!r}"
    if not _is_whole(sampling.seed):
        yield f"seed={sampling.seed!r}"


def _is_number(value: object) -> bool:
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
