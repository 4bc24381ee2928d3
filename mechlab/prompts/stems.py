"""Whether two names share a stem, so that copying the one gives the other away."""

import re
import unicodedata
from functools import cache

__all__ = ["share_a_stem", "stem_words"]

LETTERS = 3
"""So many letters in common at the beginning of two words are a stem: Algeria and Algiers."""
INSIDE = 4
"""A word of so many letters is found inside another one: Leone, Bissau, Arab."""
SMALL = frozenset(("and", "the"))


@cache
def stem_words(text: str) -> frozenset[str]:
    """Return the words of a text in plain small letters, those of one or two letters left out."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().casefold()
    return frozenset(word for word in re.findall("[a-z]{3,}", plain) if word not in SMALL)


@cache
def share_a_stem(a: str, b: str) -> bool:
    """Return whether a word of one begins like a word of the other, or occurs in it."""
    return any(
        x[:LETTERS] == y[:LETTERS] or _inside(x, y) or _inside(y, x)
        for x in stem_words(a)
        for y in stem_words(b)
    )


def _inside(part: str, whole: str) -> bool:
    return len(part) >= INSIDE and part in whole
