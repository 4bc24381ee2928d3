"""The language of this study: a Markov chain over 64 words, and rows that repeat their own words.

Which word follows which can be learned into weights; in a row that begins anew after so many words,
what follows is found in the row itself, by induction.
"""

from functools import cache
from typing import Any

import numpy as np
import tokenizers
import transformers

__all__ = ["BOS", "SPECIAL", "WORDS", "rows_of", "text_of", "tokenizer"]

Array = np.ndarray[Any, Any]

WORDS = 64
"""Words of the language; their ids follow those of the two special tokens."""
SPECIAL = ("<bos>", "<unk>")
BOS = 0
FOLLOWERS = 32
"""Words that may follow a word; their frequencies fall as 1 / rank."""
PERIOD = (6, 20)
"""A row that repeats itself does so after as many words, both ends included."""


@cache
def _chain() -> tuple[Array, Array]:
    """Return which words follow each word, and how likely the first so many of them are (Zipf)."""
    draws = np.random.default_rng(20220520)
    follow = np.stack([draws.choice(WORDS, FOLLOWERS, replace=False) for _ in range(WORDS)])
    share = 1 / np.arange(1, FOLLOWERS + 1)
    return follow, np.cumsum(share / share.sum())


def rows_of(draws: np.random.Generator, count: int, words: int, copied: float) -> Array:
    """Return rows `[row, pos]` of token ids, BOS and `words` words each.

    Args:
        draws: where they come from.
        count: how many rows.
        words: words of a row.
        copied: how likely a row repeats its first words, 6 to 20 of them, up to its end.
    """
    follow, levels = _chain()
    ranks = np.searchsorted(levels[:-1], draws.random((count, words)))
    chain = np.empty((count, words), dtype=np.int64)
    chain[:, 0] = draws.integers(WORDS, size=count)
    for at in range(1, words):
        chain[:, at] = follow[chain[:, at - 1], ranks[:, at]]
    period = draws.integers(PERIOD[0], PERIOD[1] + 1, size=(count, 1))
    period = np.where(draws.random((count, 1)) < copied, period, words)
    found = np.take_along_axis(chain, np.arange(words) % period, axis=1) + len(SPECIAL)
    return np.concatenate([np.full((count, 1), BOS), found], axis=1)


def text_of(row: Array) -> str:
    """Return a row as text, without BOS."""
    return " ".join(f"w{token - len(SPECIAL):02d}" for token in row if token >= len(SPECIAL))


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Return the tokenizer: one token per word."""
    names = [*SPECIAL, *(f"w{word:02d}" for word in range(WORDS))]
    model = tokenizers.models.WordLevel({name: i for i, name in enumerate(names)}, "<unk>")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<bos>", eos_token="<bos>", unk_token="<unk>"
    )
