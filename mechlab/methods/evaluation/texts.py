"""Measures of generated text: entropy of its n-grams, likeness to reference texts.

Meng et al. 2022 (arXiv 2202.05262), section 3.3: GE (fluency) and RS (consistency).
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["InverseFrequencies", "ngram_entropy"]

_WORD = re.compile(r"\w+|[^\w\s]")
_TERM = re.compile(r"\b\w\w+\b")


def ngram_entropy(text: str) -> float:
    """Return the entropy of a text's word bigrams, a third of it, and two thirds of the trigrams'.

    A text that repeats itself has little: all-distinct words have `log2(n-1)/3 + 2*log2(n-2)/3`
    bits for n words, one word over and over 0. Punctuation marks are words.

    Returns:
        Bits; 0 for a text without trigrams.
    """
    words = _WORD.findall(text)
    return (
        _entropy(zip(words, words[1:], strict=False)) / 3
        + 2 * _entropy(zip(words, words[1:], words[2:], strict=False)) / 3
    )


def _entropy(items: Iterable[object]) -> float:
    counts = np.array(list(Counter(items).values()), dtype=float)
    shares = counts / counts.sum() if len(counts) else counts
    return float(abs((shares * np.log2(shares)).sum()))


@dataclass(frozen=True)
class InverseFrequencies:
    """How rare words are: smoothed inverse document frequencies, those of scikit-learn.

    `idf = ln((1 + n) / (1 + df)) + 1` for a word in `df` of `n` documents; a word in none has the
    largest.
    """

    documents: int
    counts: Counter[str]

    @classmethod
    def of(cls, documents: Iterable[str]) -> "InverseFrequencies":
        """Count the documents that each word is in; equal documents count once."""
        distinct = set(documents)
        return cls(len(distinct), Counter(word for text in distinct for word in set(_terms(text))))

    def similarity(self, one: str, other: str) -> float:
        """Return the cosine of both texts' TF-IDF vectors, 0 to 1; NaN when one has no words."""
        first, second = self._vector(one), self._vector(other)
        lengths = math.hypot(*first.values()) * math.hypot(*second.values())
        if not lengths:
            return math.nan
        return sum(weight * second.get(word, 0.0) for word, weight in first.items()) / lengths

    def _vector(self, text: str) -> dict[str, float]:
        rare = {word: math.log((1 + self.documents) / (1 + self.counts[word])) + 1
                for word in set(_terms(text))}  # fmt: skip
        return {word: count * rare[word] for word, count in Counter(_terms(text)).items()}


def _terms(text: str) -> Sequence[str]:
    return _TERM.findall(text.lower())
