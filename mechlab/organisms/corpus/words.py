"""Names, nouns and a small grammar, as `mechlab.prompts` has them."""

from mechlab.prompts.words import NAMES, NOUNS, filler

__all__ = ["NAMES", "NOUNS", "filler"]
