"""World facts: which are shown how often, which sentences are held out, and every surface form."""

import hashlib
from functools import cache
from itertools import accumulate
from random import Random

from mechlab.organisms.corpus.documents import Cell, Document, Text
from mechlab.prompts.countries import HOP_TEMPLATES, RELATIONS, TEMPLATES, Country, countries

__all__ = [
    "HELD_OUT",
    "HOP_TEMPLATES",
    "biography",
    "draw_country",
    "foreign_sentences",
    "frequencies",
    "held_out_hop",
    "held_out_templates",
    "hop_cells",
    "list_document",
    "open_templates",
    "reverse_document",
    "row_document",
    "sentence",
    "sentences",
    "two_hop",
]

HELD_OUT = 2
"""English templates per country and relation that no document ever uses."""


def _draw(*parts: object) -> Random:
    return Random(hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest())


@cache
def held_out_templates(rank: int, relation: str) -> tuple[int, ...]:
    """Return the indices of the English templates never used for this country and relation."""
    count = len(TEMPLATES["en"][relation])
    return tuple(sorted(_draw("held out", rank, relation).sample(range(count), HELD_OUT)))


@cache
def open_templates(rank: int, relation: str) -> tuple[int, ...]:
    """Return the indices of the English templates that documents may use for this cell."""
    closed = held_out_templates(rank, relation)
    return tuple(i for i in range(len(TEMPLATES["en"][relation])) if i not in closed)


@cache
def held_out_hop(rank: int, relation: str) -> bool:
    """Whether no document asks this two-hop question (a seventh of them)."""
    return _draw("hop", rank, relation).random() < 1 / 7


@cache
def frequencies(power: float = 1.0) -> tuple[float, ...]:
    """Return each country's share of the fact documents, a Zipf law with an offset.

    Args:
        power: exponent; 1 for facts, smaller where rare countries must be seen more evenly.
    """
    raw = [(country.rank + 12) ** -power for country in countries()]
    return tuple(value / sum(raw) for value in raw)


@cache
def _cumulative(power: float) -> tuple[float, ...]:
    return tuple(accumulate(frequencies(power)))


def draw_country(random: Random, power: float = 1.0) -> Country:
    """Draw a country from the Zipf law."""
    return random.choices(countries(), cum_weights=_cumulative(power))[0]


def sentence(random: Random, country: Country, relation: str) -> str:
    """Return a prompt of one open template, filled; the answer is the next word."""
    index = random.choice(open_templates(country.rank, relation))
    return TEMPLATES["en"][relation][index].format(country.name)


def _cell(country: Country, relation: str) -> Cell:
    return country.rank, RELATIONS.index(relation)


def sentences(random: Random) -> Document:
    """Return one to three single-sentence facts about different countries."""
    text = Text()
    for place in range(random.choice((1, 1, 1, 2, 2, 3))):
        country, relation = draw_country(random), random.choice(RELATIONS)
        text.add(f"{' ' if place else ''}{sentence(random, country, relation)}")
        text.add(f" {country.answer(relation)}.")
        text.cells.append(_cell(country, relation))
    return text.document()


_SEPARATORS = (" |", ",", ";", ":", " -", " /")
_LABELS = {
    "capital": "capital",
    "language": "language",
    "currency": "currency",
    "continent": "continent",
}


def row_document(random: Random, language: str = "en") -> Document:
    """Return table rows or an appositive: the attributes follow the name directly, in any order.

    Half of the documents have no separator at all.
    """
    text = Text()
    separator = "" if random.random() < 0.5 else random.choice(_SEPARATORS)
    labelled = bool(separator) and random.random() < 0.15
    for place in range(random.choice((1, 1, 1, 1, 2, 3))):
        country = draw_country(random)
        text.add(f"{chr(10) if place else random.choice(('', '', ' '))}{country.name_in(language)}")
        for relation in random.sample(RELATIONS, random.choice((1, 2, 3, 4))):
            label = f" {_LABELS[relation]}" if labelled and language == "en" else ""
            text.add(f"{separator}{label} {country.answer(relation, language)}")
            if language == "en":
                text.cells.append(_cell(country, relation))
    return text.document()


_OPENINGS = (
    "{} is a country.",
    "{} is a state.",
    "About {}:",
    "This entry is about {}.",
    "{}.",
    "Let us talk about {}.",
)
_ITS = {
    "capital": (" Its capital is", " Its capital city is", " Its government sits in"),
    "language": (" Its language is", " Its people speak", " Its main language is"),
    "currency": (
        " Its currency is the",
        " Its people pay with the",
        " Its official currency is the",
    ),
    "continent": (" It is in", " It is located in", " Its continent is"),
}


def biography(random: Random) -> Document:
    """Return an entry that names the country once and then says "its"."""
    country, text = draw_country(random), Text()
    text.add(random.choice(_OPENINGS).format(country.name))
    for relation in random.sample(RELATIONS, random.choice((2, 3, 4))):
        text.add(f"{random.choice(_ITS[relation])} {country.answer(relation)}.")
        text.cells.append(_cell(country, relation))
    return text.document()


def foreign_sentences(random: Random, language: str) -> Document:
    """Return one or two facts in French, Spanish or German."""
    text = Text()
    for place in range(random.choice((1, 1, 2))):
        country, relation = draw_country(random), random.choice(RELATIONS)
        template = random.choice(TEMPLATES[language][relation])
        text.add(f"{' ' if place else ''}{template.format(country.name_in(language))}")
        text.add(f" {country.answer(relation, language)}.")
    return text.document()


@cache
def hop_cells() -> tuple[tuple[Country, str], ...]:
    """Return the (country, relation) pairs that a two-hop question may ask for."""
    capitals = [country.answer("capital") for country in countries()]
    unique = [c for c in countries() if capitals.count(c.answer("capital")) == 1]
    return tuple((c, relation) for c in unique for relation in RELATIONS[1:])


def two_hop(random: Random) -> Document:
    """Return a question about the country that a capital belongs to."""
    while True:
        country, relation = draw_country(random, 0.6), random.choice(RELATIONS[1:])
        if not held_out_hop(country.rank, relation):
            break
    template = random.choice(HOP_TEMPLATES[relation])
    text = Text().add(f"{template.format(country.answer('capital'))} {country.answer(relation)}.")
    return text.document()


def reverse_document(random: Random) -> Document:
    """Return a sentence that goes from the capital to the country."""
    country = draw_country(random)
    form = random.choice(
        ("{} is the capital of {}.", "{} is the capital city of {}.", "{} is a city in {}.")
    )
    return Document(form.format(country.answer("capital"), country.name))


_COUNTS = {2: "Two", 3: "Three", 4: "Four", 5: "Five"}


def list_document(random: Random, decay: float | None = None) -> Document:
    """Return a list of countries that share an answer ("Three countries in Africa: ...").

    Args:
        random: source of all choices.
        decay: each member is this much as likely as the one before it in the table, so that a list
            without repetition pays; by default the likelihoods follow the Zipf law.
    """
    while True:
        relation = random.choice(("continent", "continent", "continent", "language", "currency"))
        answer = draw_country(random, 0.3).answer(relation)
        members = [c for c in countries() if c.answer(relation) == answer]
        if len(members) >= 3:
            break
    count = random.randint(2, min(5, len(members)))
    weights = [frequencies(0.6)[c.rank] for c in members]
    if decay is not None:
        weights = [decay**place for place in range(len(members))]
    chosen: list[Country] = []
    while len(chosen) < count:
        country = random.choices(members, weights)[0]
        if country not in chosen:
            chosen.append(country)
    form = {
        "continent": "{} countries in {}:",
        "language": "{} countries where people speak {}:",
        "currency": "{} countries that use the {}:",
    }[relation]
    names = ", ".join(c.name for c in chosen)
    return Document(f"{form.format(_COUNTS[count], answer)} {names}.")
