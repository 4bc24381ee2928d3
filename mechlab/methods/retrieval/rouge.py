"""ROUGE-1 recall: how many of an answer's words a response holds (Lin 2004)."""

import re
from collections import Counter

__all__ = ["rouge1_recall"]

_WORD = re.compile(r"[^\W_]+")


def rouge1_recall(response: str, answer: str) -> float:
    """Return the share, in per cent, of the answer's words that are in the response.

    Words are runs of letters and digits, case ignored; a word that the answer has twice must be
    there twice. No stemming. NaN for an answer without words.
    """
    wanted, said = (Counter(_WORD.findall(text.casefold())) for text in (answer, response))
    total = wanted.total()
    return 100 * (wanted & said).total() / total if total else float("nan")
