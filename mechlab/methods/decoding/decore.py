"""`DeCoRe`: decoding by contrasting a model with itself, some of its heads masked.

Gema et al. 2024, "DeCoRe: Decoding by Contrasting Retrieval Heads to Mitigate Hallucinations",
section 3 (arXiv 2410.18860): log p = (1 + alpha) log p_base - alpha log p_masked.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from mechlab.axes import Head, heads
from mechlab.engine import HeadMask
from mechlab.engine.generation import MaskKind, MaskPhase
from mechlab.engine.readout import exact
from mechlab.errors import OptionError

__all__ = ["DeCoRe", "Mixed", "mix"]

_LEAST = math.log(torch.finfo(torch.float32).tiny)
"""Log-probability that the masked branch has at least: what it rules out would otherwise be
infinitely preferred. -87.3 is the smallest that float32 holds in full precision."""


@dataclass(frozen=True)
class DeCoRe:
    """Decoding by contrasting retrieval heads (Gema et al. 2024), as plain data.

    At every step two branches predict the next token, the model as it is and the model with heads
    masked; what the masked one favours is held against a token:
    `log p = (1 + alpha) log p_base - alpha log p_masked`.

    Differs from the paper's code: a token that the masked branch rules out altogether counts there
    as e^-87.3 rather than 0; `plausibility`, `scale` and `cap` are not in it, and off by default.
    """

    heads: Sequence[Head | str]
    """Query heads masked in the second branch, as values or as text such as `L9H6`."""
    alpha: Literal["entropy"] | float = "entropy"
    """How much the contrast counts: a number from 0 (0.5 is the published static one), or the
    entropy of `p_base` at every step, in nats."""
    mask: MaskKind = "uniform"
    """`uniform` sets queries to zero, so that heads attend evenly (the published code); `zero` sets
    the heads' outputs to zero (how the paper words it)."""
    phase: MaskPhase | None = None
    """`decode` masks from the query on that produces the first new token, `all` the prompt too.
    `None`, as published: `decode` in `generate`, `all` in `score_answers`."""
    plausibility: float | None = None
    """Keep only tokens with at least this share of the most probable token's `p_base`."""
    scale: Literal["nats", "log_vocab"] = "nats"
    """`log_vocab` divides the entropy by that of a uniform distribution, so alpha is 0 to 1."""
    cap: float | None = None
    """The largest alpha that entropy may give, after scaling."""

    def __post_init__(self) -> None:
        """Fix the heads in their order, and check everything.

        Raises:
            OptionError: naming all that is wrong.
        """
        members, problems = _members(self.heads)
        if problems := [*problems, *_problems(self)]:
            raise OptionError(
                f"DeCoRe cannot be set up so: {'; '.join(problems)}.\n"
                "  Allowed: at least one head; alpha 'entropy' or a number from 0; mask 'uniform' "
                "or 'zero'; phase 'decode', 'all' or None; plausibility above 0, up to 1; scale "
                "'nats' or 'log_vocab' and a cap above 0, for alpha='entropy'.\n"
                "  Correct what is named."
            )
        object.__setattr__(self, "heads", tuple(sorted(members)))

    def head_mask(self, phase: MaskPhase) -> HeadMask:
        """Return what masks the second branch; `phase` is used where none was chosen."""
        return HeadMask(cast(tuple[Head, ...], self.heads), self.mask, self.phase or phase)

    def alphas(self, entropy: Tensor, d_vocab: int) -> Tensor:
        """Return alpha for each entropy in nats, shaped like it."""
        if not isinstance(self.alpha, str):
            return torch.full_like(entropy, float(self.alpha))
        found = entropy / math.log(d_vocab) if self.scale == "log_vocab" else entropy
        return found if self.cap is None else found.clamp(max=self.cap)


@dataclass(frozen=True, eq=False)
class Mixed:
    """Two branches brought together.

    Attributes:
        scores: `[row, vocab]`, the mix as the formula gives it, not normalised; -inf for tokens
            that the base branch or the plausibility rule excludes.
        base: `[row, vocab]`, log-probabilities of the base branch.
        entropy: `[row]`, of the base branch, in nats.
        alpha: `[row]`.
    """

    scores: Tensor
    base: Tensor
    entropy: Tensor
    alpha: Tensor

    @property
    def log_probabilities(self) -> Tensor:
        """The mix, renormalised to sum to 1; `[row, vocab]`. The base itself where they agree."""
        same = (self.scores == self.base).all(-1, keepdim=True)
        return torch.where(same, self.base, self.scores.log_softmax(-1))


def mix(base: Tensor, masked: Tensor | None, rule: DeCoRe | None) -> Mixed:
    """Contrast two branches; without a second one, or a rule, the mix is the base.

    Args:
        base: logits of the model as it is, `[row, vocab]`.
        masked: logits with heads masked, `[row, vocab]`.
        rule: how they are contrasted.

    Returns:
        Everything in float64 where the device has it. Where alpha is 0, or the branches agree, the
        mix is the base to the last bit.
    """
    p = exact(base).log_softmax(-1)
    entropy = entropies(p)
    if masked is None or rule is None:
        return Mixed(p, p, entropy, torch.zeros_like(entropy))
    alpha = rule.alphas(entropy, p.shape[-1])
    against = exact(masked).log_softmax(-1)
    # As a difference, so that nothing is left of branches that agree; floors before it.
    scores = p + alpha[:, None] * (p.clamp(min=_LEAST) - against.clamp(min=_LEAST))
    if rule.plausibility is not None:
        limit = p.amax(-1, keepdim=True) + math.log(rule.plausibility)
        scores = scores.masked_fill(p < limit, -math.inf)
    return Mixed(scores, p, entropy, alpha)


def entropies(log_probabilities: Tensor) -> Tensor:
    """Return the entropy of each row in nats, between 0 and that of a uniform distribution."""
    p = log_probabilities.exp()
    terms = torch.where(p > 0, p * log_probabilities, torch.zeros_like(p))
    return (-terms.sum(-1)).clamp(min=0.0, max=math.log(p.shape[-1]))


def _members(given: Any) -> tuple[list[Head], list[str]]:
    """Return heads, and what is wrong with them."""
    if isinstance(given, str | Head) or not isinstance(given, Iterable):
        return [], [f"heads={given!r} is no list"]
    found: list[Head] = []
    wrong: list[str] = []
    for name in given:
        try:
            found.append(name if isinstance(name, Head) else heads(name)[0])
        except (OptionError, TypeError):
            wrong.append(f"{name!r} is no head (L<layer>H<head>)")
    twice = [str(head) for head in dict.fromkeys(found) if found.count(head) > 1]
    wrong += [f"{', '.join(twice)} named more than once"] if twice else []
    return found, wrong or ([] if found else ["no head is named"])


def _problems(rule: DeCoRe) -> Iterator[str]:
    by_entropy = isinstance(rule.alpha, str) and rule.alpha == "entropy"
    if not by_entropy and not _is_number(rule.alpha, 0):
        yield f"alpha={rule.alpha!r}"
    if rule.mask not in get_args(MaskKind):
        yield f"mask={rule.mask!r}"
    if rule.phase is not None and rule.phase not in get_args(MaskPhase):
        yield f"phase={rule.phase!r}"
    share = rule.plausibility
    if share is not None and not (_is_number(share, 0) and 0 < share <= 1):
        yield f"plausibility={share!r}"
    if rule.scale not in ("nats", "log_vocab"):
        yield f"scale={rule.scale!r}"
    if rule.cap is not None and not (_is_number(rule.cap, 0) and rule.cap > 0):
        yield f"cap={rule.cap!r}"
    if not by_entropy and (rule.scale != "nats" or rule.cap is not None):
        yield f"scale or cap of a fixed alpha={rule.alpha!r}, which is used as it is"


def _is_number(value: object, at_least: float) -> bool:
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= at_least  # type: ignore[arg-type, operator]
