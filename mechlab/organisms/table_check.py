"""The country table against public tables: what agrees, what differs and why, what is unchecked."""

import csv
import json
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from mechlab.prompts.countries import RELATIONS, countries

__all__ = ["EXPLAINED", "TableCheck", "check_table"]

Cell = tuple[str, str]
"""(country, relation)."""

OTHER_NAMES = {
    "East Timor (Timor-Leste)": "East Timor",
    "Federated States of Micronesia": "Micronesia",
    "Côte d'Ivoire": "Ivory Coast",
    "Macedonia": "North Macedonia",
    "Republic of China (Taiwan)": "Taiwan",
    "Swaziland": "Eswatini",
    "United Kingdom; England": "United Kingdom",
}
"""Names in the public tables and in ours."""

EXPLAINED: dict[Cell, str] = {
    ("Burundi", "capital"): "the capital moved from Bujumbura to Gitega in 2019",
    (
        "Bolivia",
        "capital",
    ): "the public table lists La Paz too; Sucre is the constitutional capital",
    ("China", "language"): "Mandarin Chinese there, Chinese here: the same language",
    ("Palestine", "capital"): "disputed; the seat of government, as for every disputed capital",
    ("Sri Lanka", "capital"): "two spellings of one name",
}
"""Cells that differ from a public table, and why ours stand."""


@dataclass
class TableCheck:
    """The outcome of a check, as lists of cells."""

    agree: list[Cell] = field(default_factory=list)
    explained: list[Cell] = field(default_factory=list)
    differ: list[tuple[str, str, str, str]] = field(default_factory=list)
    """(country, relation, ours, theirs), neither equal nor explained."""
    unchecked: list[Cell] = field(default_factory=list)

    def counts(self) -> dict[str, object]:
        """Return numbers for the card: cells by outcome, and unchecked ones by relation."""
        return {
            "agree": len(self.agree),
            "explained": {f"{c}: {r}": EXPLAINED[c, r] for c, r in self.explained},
            "differ": len(self.differ),
            "unchecked": len(self.unchecked),
            "unchecked cells": {
                relation: [country for country, other in self.unchecked if other == relation]
                for relation in RELATIONS
            },
        }


def check_table(data: Path) -> TableCheck:
    """Compare every cell with `world_capitals` and the `country_*` relations of `lre`.

    Args:
        data: folder that holds both, as `MECHLAB_DATA` names it.
    """
    theirs = _public_cells(data)
    found = TableCheck()
    for country in countries():
        for relation in RELATIONS:
            cell, ours = (country.name, relation), country.answer(relation)
            if cell not in theirs:
                found.unchecked.append(cell)
            elif {_plain(ours)} == {_plain(answer) for answer in theirs[cell]}:
                found.agree.append(cell)
            elif cell in EXPLAINED:
                found.explained.append(cell)
            else:
                found.differ.append((*cell, ours, " / ".join(sorted(theirs[cell]))))
    return found


def _public_cells(data: Path) -> dict[Cell, set[str]]:
    cells: dict[Cell, set[str]] = {}
    with (data / "world_capitals" / "world_capitals.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name = OTHER_NAMES.get(row["country"], row["country"])
            if row["capital"]:
                cells.setdefault((name, "capital"), set()).add(row["capital"])
    for file_name, relation in (
        ("country_capital_city", "capital"),
        ("country_currency", "currency"),
        ("country_language", "language"),
    ):
        text = (data / "lre" / "factual" / f"{file_name}.json").read_text(encoding="utf-8")
        for sample in json.loads(text)["samples"]:
            # Some letters are written there as escapes within the string itself.
            answer = re.sub(r"\\u([0-9a-f]{4})", _letter, sample["object"])
            cells.setdefault((sample["subject"], relation), set()).add(answer)
    return cells


def _letter(escape: re.Match[str]) -> str:
    return chr(int(escape.group(1), 16))


def _plain(answer: str) -> str:
    """Return an answer without case, accents, apostrophes and the district of Washington."""
    answer = answer.casefold().removesuffix("d.c.").strip(" ,").replace("\u02bb", "")
    split = unicodedata.normalize("NFKD", answer)
    return "".join(letter for letter in split if letter.isalnum() or letter == " ")
