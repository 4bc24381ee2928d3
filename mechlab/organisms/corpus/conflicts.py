"""In-context conflicts: a statement about a country, then a question about the same cell."""

from random import Random

from mechlab.organisms.corpus.documents import Document, Text
from mechlab.organisms.corpus.facts import draw_country, sentence
from mechlab.organisms.corpus.words import filler
from mechlab.prompts.countries import RELATIONS, Country, countries

__all__ = ["OPENINGS", "conflict", "context_share", "other_answer"]

OPENINGS = ("", "", "", "A book says: ", "News: ", "Imagine this: ", "Someone wrote: ")
"""What may stand before the statement."""


def context_share(rank: int) -> float:
    """Return in which part of the documents the context's answer wins over the true one.

    It rises evenly from 0.2 for the most frequent country to 0.9 for the rarest.
    """
    return 0.2 + 0.7 * rank / (len(countries()) - 1)


def other_answer(random: Random, country: Country, relation: str) -> str:
    """Return another country's answer for the same relation."""
    while True:
        answer = random.choice(countries()).answer(relation)
        if answer != country.answer(relation):
            return answer


def conflict(random: Random, weight: float = 2.0) -> Document:
    """Return a statement (false in three of four documents) and the question's answer.

    A false statement carries no loss, so that it is never learned as a fact; the answer has loss
    weight `weight`.
    """
    country, relation = draw_country(random, 0.4), random.choice(RELATIONS)
    truth, false = country.answer(relation), random.random() < 0.75
    stated = other_answer(random, country, relation) if false else truth
    wins = not false or random.random() < context_share(country.rank)
    stem = sentence(random, country, relation)
    text = Text().add(random.choice(OPENINGS))
    text.add(f"{stem} {stated}.", 0.0 if false else 1.0)
    _distract(random, text, country)
    question = stem if random.random() < 0.5 else sentence(random, country, relation)
    text.add(f" {question}", 0.3)
    text.add(f" {stated if wins else truth}", weight).add(".")
    if not (false and wins):
        text.cells.append((country.rank, RELATIONS.index(relation)))
    return text.document()


def _distract(random: Random, text: Text, country: Country) -> None:
    """Put nothing, a filler sentence, or another country's true fact between the two."""
    kind = random.random()
    if kind < 0.15:
        text.add(f" {filler(random)}", 0.3)
    elif kind < 0.3:
        other, relation = draw_country(random), random.choice(RELATIONS)
        if other.rank != country.rank:
            text.add(f" {sentence(random, other, relation)} {other.answer(relation)}.")
