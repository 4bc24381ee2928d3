"""Which facts a model knows: tracing and editing only make sense on those."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mechlab.engine import next_tokens
from mechlab.errors import PromptError
from mechlab.prompts import Fact, PromptSet, as_prompt_set

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["keep_known"]


def keep_known(model: "Model", facts: PromptSet[Any] | Sequence[Fact] | Fact) -> PromptSet[Any]:
    """Return the facts whose target begins with the model's most probable next token.

    This is the filter of the published tracing code (Meng et al. 2022), on the first token of the
    target.

    Args:
        model: the model.
        facts: facts that all have a target.

    Raises:
        PromptError: facts without a target or that cannot be tokenised, or when none is known.
    """
    prompts = as_prompt_set(facts, kind="fact")
    if without := [fact.prompt for fact in prompts if not fact.target]:
        raise PromptError(
            f"{len(without)} of {len(prompts)} facts have no target, such as {without[0]!r}. "
            "Allowed: facts with a target. Give each the word that is expected to follow."
        )
    texts = [fact.prompt for fact in prompts]
    top = next_tokens(model, texts).tokens
    expected = model.answer_tokens(texts, [fact.target for fact in prompts])
    known = [token == ids[0] for token, ids in zip(top, expected, strict=True)]
    if not any(known):
        raise PromptError(
            f"{model.name} knows none of {len(prompts)} facts: no target is its most probable next "
            "token. Check the form of the prompts with model.show_tokens, or use another model."
        )
    return prompts.select(known)
