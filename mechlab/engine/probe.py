"""Short texts that any model can read, for checking the model on them."""

import random
from typing import TYPE_CHECKING

from mechlab.errors import ModelError, PromptError

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["probe_texts"]

WORDS = 7
TRIES = 400


def probe_texts(model: "Model") -> tuple[str, str, str]:
    """Return two texts of equal token count that differ in every word, and a shorter one.

    The words are tokens of the model's own vocabulary, so that every tokenizer can read them.

    Raises:
        ModelError: when the tokenizer's tokens cannot be put together to texts it reads again.
    """
    words = _plain_words(model)
    pick = random.Random(0)
    by_length: dict[int, list[str]] = {}
    for _ in range(TRIES):
        chosen = pick.sample(words, min(WORDS, len(words)))
        text = " ".join(chosen)
        try:
            length = model.tokenize(text).lengths[0]
        except PromptError:
            continue
        earlier = by_length.setdefault(length, [])
        partner = next((e for e in earlier if not set(e.split()) & set(chosen)), None)
        if partner is not None:
            return partner, text, " ".join(chosen[: len(chosen) // 2])
        earlier.append(text)
    raise ModelError(
        f"cannot check {model.name}: its tokenizer offers {len(words)} plain words, and no two "
        "texts of equal length could be made of them. Check that tokenizer and model fit."
    )


def _plain_words(model: "Model") -> list[str]:
    """Return words that stand for single tokens, in a fixed order; letters where there are none."""
    special = set(model.tokenizer.all_special_ids)
    ids = sorted(i for i in model.tokenizer.get_vocab().values() if i not in special)
    decoded = (model.tokenizer.decode([i]).strip() for i in ids[:: max(1, len(ids) // 4000)])
    found = [*dict.fromkeys(word for word in decoded if word.isascii() and word.isalnum())]
    longer = [word for word in found if len(word) > 1]
    return longer if len(longer) >= 2 * WORDS else found
