"""How often each kind of document appears."""

from random import Random

from mechlab.organisms.corpus.conflicts import conflict
from mechlab.organisms.corpus.documents import Document
from mechlab.organisms.corpus.facts import (
    biography,
    foreign_sentences,
    list_document,
    reverse_document,
    row_document,
    sentences,
    two_hop,
)

__all__ = ["LONG_ROWS", "LONG_SHARE", "MIXTURE", "SHORT_ROWS", "packed_document"]

MIXTURE = {
    "sentences": 0.24,
    "rows": 0.25,
    "biography": 0.09,
    "foreign sentences": 0.08,
    "foreign rows": 0.05,
    "conflict": 0.18,
    "two-hop": 0.04,
    "list": 0.05,
    "reverse": 0.02,
}
"""Share of the documents in packed windows, by kind."""

SHORT_ROWS = {"packed": 0.60, "repeats": 0.22, "needles": 0.15, "key-values": 0.03}
"""What windows of 96 tokens hold."""

LONG_ROWS = {"packed": 0.08, "repeats": 0.24, "needles": 0.58, "key-values": 0.10}
"""What windows of 512 tokens hold."""

LONG_SHARE = 0.3
"""Share of the steps whose windows are long."""


def packed_document(random: Random) -> Document:
    """Return one document of the mixture."""
    kind = random.choices(tuple(MIXTURE), tuple(MIXTURE.values()))[0]
    if kind == "sentences":
        return sentences(random)
    if kind == "rows":
        return row_document(random)
    if kind == "biography":
        return biography(random)
    if kind == "foreign sentences":
        return foreign_sentences(random, random.choice(("fr", "es", "de")))
    if kind == "foreign rows":
        return row_document(random, random.choice(("fr", "es", "de")))
    if kind == "conflict":
        return conflict(random)
    if kind == "two-hop":
        return two_hop(random)
    return list_document(random) if kind == "list" else reverse_document(random)
