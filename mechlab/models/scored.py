"""Prompts as they are scored: text, answer tokens, and what cannot be scored or compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechlab.errors import OptionError, PromptError
from mechlab.models.encoding import shorten
from mechlab.prompts import Fact, PromptPair, PromptSet

if TYPE_CHECKING:
    from mechlab.models.model import Model

__all__ = ["Scored", "ScoredPairs", "scored_pairs", "scored_prompts"]


@dataclass(frozen=True)
class Scored:
    """Prompts with the tokens that are scored after them.

    Attributes:
        texts: what the model reads (the clean prompt of a pair).
        lengths: tokens of each.
        answers: token ids per prompt: answer and, for pairs, wrong answer; `(0,)` where a fact has
            no target and none is needed.
    """

    texts: tuple[str, ...]
    lengths: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ScoredPairs(Scored):
    """Pairs with the tokens that are scored after either prompt.

    Attributes:
        corrupted: the corrupted texts.
        corrupted_lengths: tokens of each.
    """

    corrupted: tuple[str, ...]
    corrupted_lengths: tuple[int, ...]


def scored_prompts(
    model: "Model", prompts: PromptSet[Any], metric: str | Callable[..., Any]
) -> Scored:
    """Tokenise facts or pairs and find the tokens that a metric reads.

    Raises:
        OptionError: `logit_diff` of facts, which have one answer.
        PromptError: prompts or answers that cannot be tokenised, facts without a target that the
            metric needs, pairs whose answers begin with the same token; all offenders at once.
    """
    if prompts.kind == "pair":
        pairs = scored_pairs(model, prompts, same_length=False)
        return Scored(pairs.texts, pairs.lengths, pairs.answers)
    if metric == "logit_diff":
        raise OptionError(
            "metric='logit_diff' compares two answers, and a Fact has one. Allowed for facts: "
            "'probability', 'log_probability', 'rank', 'kl_divergence'. Use one of these, or pairs."
        )
    texts = tuple(fact.prompt for fact in prompts)
    lengths = model.tokenize(texts).lengths
    return Scored(texts, lengths, _targets(model, prompts, needed=metric != "kl_divergence"))


def scored_pairs(
    model: "Model",
    pairs: PromptSet[PromptPair],
    *,
    same_length: bool = True,
    way_out: str = "",
) -> ScoredPairs:
    """Tokenise pairs and refuse those that cannot be compared.

    Args:
        model: the model.
        pairs: the pairs.
        same_length: whether clean and corrupted prompt must have as many tokens.
        way_out: what the caller allows of other pairs, such as "with positions='last' any".

    Raises:
        PromptError: texts that cannot be tokenised, answers that begin with the same token,
            prompts that do not align; all offenders of one sort at once.
    """
    clean, corrupted = tuple(p.clean for p in pairs), tuple(p.corrupted for p in pairs)
    tokens = model.tokenize([*clean, *corrupted]).lengths
    lengths, others = tokens[: len(pairs)], tokens[len(pairs) :]
    if same_length:
        _refuse_unaligned(pairs, lengths, others, way_out)
    right = model.answer_tokens(clean, [pair.answer for pair in pairs])
    wrong = model.answer_tokens(clean, [pair.wrong_answer for pair in pairs])
    answers = tuple((a[0], b[0]) for a, b in zip(right, wrong, strict=True))
    _refuse_same_first_token(model, pairs, answers)
    return ScoredPairs(clean, lengths, answers, corrupted, others)


def _targets(
    model: "Model", facts: PromptSet[Fact], *, needed: bool
) -> tuple[tuple[int, ...], ...]:
    having = [index for index, fact in enumerate(facts) if fact.target]
    if needed and len(having) < len(facts):
        without = [shorten(fact.prompt) for fact in facts if not fact.target]
        raise PromptError(
            f"{len(without)} of {len(facts)} facts have no target to score: "
            f"{', '.join(without[:10])}.\n  Allowed: facts with a target, or "
            "metric='kl_divergence'.\n  Give each the word that is expected to follow."
        )
    found: Sequence[Sequence[int]] = []
    if having:
        found = model.answer_tokens(
            [facts[i].prompt for i in having], [facts[i].target for i in having]
        )
    targets: list[tuple[int, ...]] = [(0,)] * len(facts)
    for index, ids in zip(having, found, strict=True):
        targets[index] = (ids[0],)
    return tuple(targets)


def _refuse_unaligned(
    pairs: PromptSet[PromptPair], clean: Sequence[int], corrupted: Sequence[int], way_out: str
) -> None:
    lines = [
        f"  #{i} {shorten(pair.clean)} has {a} tokens, {shorten(pair.corrupted)} has {b}"
        for i, (pair, a, b) in enumerate(zip(pairs, clean, corrupted, strict=True))
        if a != b
    ]
    if lines:
        raise PromptError(
            f"{len(lines)} of {len(pairs)} pairs do not align token by token:\n"
            + "\n".join(lines)
            + "\n  Allowed: clean and corrupted prompts of the same number of tokens"
            + (f"; {way_out}" if way_out else "")
            + ".\n  Look at model.show_tokens(text) and exchange words of equal length in tokens."
        )


def _refuse_same_first_token(
    model: "Model", pairs: PromptSet[PromptPair], answers: Sequence[tuple[int, int]]
) -> None:
    lines = [
        f"  #{i} {pair.answer!r} and {pair.wrong_answer!r} both begin with "
        f"{model.token_string(a)!r}"
        for i, (pair, (a, b)) in enumerate(zip(pairs, answers, strict=True))
        if a == b
    ]
    if lines:
        raise PromptError(
            f"in {len(lines)} of {len(pairs)} pairs both answers share their first token:\n"
            + "\n".join(lines)
            + "\n  Allowed: answers that differ in the token that is scored.\n"
            "  Leave these pairs out, or choose other answers."
        )
