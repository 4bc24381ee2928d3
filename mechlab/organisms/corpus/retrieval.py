"""Needles, key-value lists and repeated random tokens: what only looking back can answer."""

from random import Random

from mechlab.organisms.corpus.documents import Document, Text
from mechlab.organisms.corpus.words import NAMES, NOUNS, filler
from mechlab.prompts.words import STEMS as NEEDLES

__all__ = ["NEEDLES", "haystack", "key_values", "repeated_tokens"]

QUIET = 0.25
"""Loss weight of text that cannot be predicted."""

LOUD = 3.0
"""Loss weight of an answer that the context gives."""


def haystack(random: Random, characters: int) -> Document:
    """Return filler with one to four needles in it, asked for at the end by their own words.

    Args:
        random: source of all choices.
        characters: approximate length of the filler, in characters (about four per token).
    """
    needles = _needles(random, random.choice((1, 1, 2, 3, 4)))
    sentences = [(filler(random), QUIET)]
    while sum(len(s) + 1 for s, _ in sentences) < characters:
        sentences.append((filler(random), QUIET))
    for stem, noun in needles:
        sentences.insert(random.randint(0, len(sentences)), (f"{stem} {noun}.", QUIET))
    text = Text()
    for place, (piece, weight) in enumerate(sentences):
        text.add(f"{' ' if place else ''}{piece}", weight)
    for stem, noun in random.sample(needles, random.randint(1, len(needles))):
        text.add(f" {stem}", QUIET).add(f" {noun}", LOUD).add(".", QUIET)
    return text.document()


def _needles(random: Random, count: int) -> list[tuple[str, str]]:
    """Return (stem, noun) pairs with different stems, of one wording in half of the cases."""
    names = random.sample(NAMES, count)
    forms = (
        [random.choice(NEEDLES)] * count if random.random() < 0.5 else random.sample(NEEDLES, count)
    )
    return [
        (form.format(name), random.choice(NOUNS)) for form, name in zip(forms, names, strict=True)
    ]


def key_values(random: Random, count: int) -> Document:
    """Return a list of `count` key-value pairs; some of them are then asked for again."""
    link = random.choice((":", " =", " ->", " is"))
    end = random.choice(("; ", ", ", "\n", ". "))
    keys = random.sample(NOUNS, count)
    pairs = [(key, random.choice(NOUNS)) for key in keys]
    text = Text(QUIET)
    for key, value in pairs:
        text.add(f"{key}{link} {value}{end}")
    for key, value in random.sample(pairs, min(count, random.randint(1, 6))):
        text.add(f"{key}{link}").add(f" {value}", LOUD).add(end)
    return text.document()


def repeated_tokens(random: Random, vocabulary: range, length: int, copies: int) -> Document:
    """Return `length` distinct random tokens, `copies` times; the first copy carries no loss."""
    ids = random.sample(vocabulary, length)
    return Document("", ids=tuple(ids * copies), unscored=length)
