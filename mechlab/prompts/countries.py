"""The project's own table of countries and the sentences that ask for its cells.

One row per country, most frequent first, with exactly one scored answer per cell. Rules where the
world is not that simple: `capital` is the constitutional capital, or the seat of government where
the capital is disputed; `language` is the official or most spoken language; `currency` is the bare
noun; `continent` follows the United Nations regions, with the Caribbean and Central America under
North America. Names in French, Spanish and German follow the Unicode CLDR where it has them.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mechlab.errors import OptionError

__all__ = ["HOP_TEMPLATES", "LANGUAGES", "RELATIONS", "TEMPLATES", "Country", "countries"]

RELATIONS = ("capital", "language", "currency", "continent")
"""Columns of the table that are asked for."""

LANGUAGES = ("en", "fr", "es", "de")
"""Languages of the names and templates."""


@dataclass(frozen=True)
class Country:
    """One row of the table."""

    rank: int
    """Place in the order of frequency, 0 for the most frequent country."""
    code: str
    """ISO 3166 code of two letters."""
    cells: tuple[tuple[str, str], ...]
    """(column, text) pairs: `country` and the four relations, plain or with `_fr`, `_es`, `_de`."""

    @property
    def name(self) -> str:
        """The English name, without an article."""
        return self.name_in("en")

    def name_in(self, language: str) -> str:
        """Return the country's name in one of `LANGUAGES`.

        Raises:
            OptionError: when the language is not in the table.
        """
        return self._cell("country", language)

    def answer(self, relation: str, language: str = "en") -> str:
        """Return the one scored answer of a relation, without a leading space.

        Raises:
            OptionError: when the relation or the language is not in the table.
        """
        if relation not in RELATIONS:
            raise OptionError(
                f"unknown relation {relation!r}; the table has {', '.join(RELATIONS)}. "
                "Choose one of these."
            )
        return self._cell(relation, language)

    def _cell(self, column: str, language: str) -> str:
        if language not in LANGUAGES:
            raise OptionError(
                f"unknown language {language!r}; the table has {', '.join(LANGUAGES)}. "
                "Choose one of these."
            )
        return _by_column(self)[column if language == "en" else f"{column}_{language}"]


@cache
def _by_column(country: Country) -> dict[str, str]:
    return dict(country.cells)


@cache
def countries() -> tuple[Country, ...]:
    """Return all countries, most frequent first."""
    text = files("mechlab.prompts").joinpath("countries.csv").read_text(encoding="utf-8")
    return tuple(_row(row) for row in csv.DictReader(text.splitlines()))


def _row(row: dict[str, str]) -> Country:
    cells = tuple((key, value) for key, value in row.items() if key not in ("rank", "code"))
    return Country(rank=int(row["rank"]), code=row["code"], cells=cells)


TEMPLATES: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "capital": (
            "The capital of {} is",
            "The capital city of {} is",
            "{} is governed from the city of",
            "{}'s capital is",
            "{}'s capital city is",
            "In {}, the capital is",
            "The government of {} sits in",
            "The name of the capital city of {} is",
            "Q: What is the capital of {}? A:",
            "The seat of government of {} is",
            "{} has its capital in",
            "As everyone knows, the capital of {} is",
        ),
        "language": (
            "The language used in {} is",
            "People in {} speak",
            "In {}, the primary language is",
            "The main language of {} is",
            "The official language of {} is",
            "Most people of {} speak",
            "{}'s main language is",
            "In {} you will hear people speak",
            "Q: What is the language of {}? A:",
            "Children in {} learn to speak",
            "The language spoken in {} is",
            "The people who live in {} talk to each other in",
        ),
        "currency": (
            "The official currency of {} is the",
            "{}'s official currency is the",
            "The currency of {} is the",
            "People in {} pay with the",
            "In {}, prices are given in the",
            "The money used in {} is the",
            "{}'s currency is the",
            "Shops in {} accept the",
            "Q: What is the currency of {}? A: the",
            "The central bank of {} issues the",
            "Wages in {} are paid in the",
            "The name of the currency of {} is the",
        ),
        "continent": (
            "{} is a country in",
            "{} is located in",
            "The country of {} is in",
            "{} is on the continent of",
            "The continent of {} is",
            "{} lies in",
            "{} belongs to the continent of",
            "On the map, {} is found in",
            "Q: What is the continent of {}? A:",
            "Travellers to {} go to",
            "{}'s continent is",
            "The name of the continent of {} is",
        ),
    },
    "fr": {
        "capital": (
            "La capitale de {} est",
            "La capitale du pays {} est la ville de",
            "{} a pour capitale",
            "Le gouvernement de {} siège à",
        ),
        "language": (
            "La langue de {} est le",
            "Dans le pays {}, on parle le",
            "{} a pour langue le",
            "La langue principale de {} est le",
        ),
        "currency": (
            "La monnaie de {} est le",
            "{} a pour monnaie le",
            "Dans le pays {}, on paie en",
            "La monnaie officielle de {} est le",
        ),
        "continent": (
            "Le continent de {} est",
            "{} est un pays situé en",
            "{} se trouve en",
            "Le pays {} est situé en",
        ),
    },
    "es": {
        "capital": (
            "La capital de {} es",
            "La capital del país {} es la ciudad de",
            "{} tiene por capital",
            "El gobierno de {} está en",
        ),
        "language": (
            "El idioma de {} es el",
            "En {} se habla",
            "{} tiene por idioma el",
            "El idioma principal de {} es el",
        ),
        "currency": (
            "La moneda de {} es el",
            "{} tiene por moneda el",
            "En {} se paga en",
            "La moneda oficial de {} es el",
        ),
        "continent": (
            "El continente de {} es",
            "{} es un país de",
            "{} se encuentra en",
            "El país {} está situado en",
        ),
    },
    "de": {
        "capital": (
            "Die Hauptstadt von {} ist",
            "Die Hauptstadt des Landes {} heißt",
            "{} hat als Hauptstadt",
            "Die Regierung von {} sitzt in",
        ),
        "language": (
            "Die Sprache von {} ist",
            "In {} spricht man",
            "{} hat als Sprache",
            "Die Hauptsprache von {} ist",
        ),
        "currency": (
            "Die Währung von {} ist der",
            "{} hat als Währung den",
            "In {} bezahlt man mit dem",
            "Die amtliche Währung von {} ist der",
        ),
        "continent": (
            "Der Kontinent von {} ist",
            "{} ist ein Land in",
            "{} liegt in",
            "Das Land {} befindet sich in",
        ),
    },
}
"""Prompts that end right before the answer, by language and relation; `{}` stands for the name."""

HOP_TEMPLATES: dict[str, tuple[str, ...]] = {
    "language": (
        "The language of the country whose capital is {} is",
        "In the country whose capital is {}, people speak",
    ),
    "currency": (
        "The currency of the country whose capital is {} is the",
        "In the country whose capital is {}, people pay with the",
    ),
    "continent": (
        "The continent of the country whose capital is {} is",
        "The country whose capital is {} is located in",
    ),
}
"""Two-hop questions; `{}` stands for the capital."""
