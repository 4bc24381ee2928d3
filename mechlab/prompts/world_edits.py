"""Seeded requests to edit the project's own countries."""

from collections.abc import Sequence

from mechlab.errors import PromptError
from mechlab.prompts.countries import LANGUAGES, RELATIONS, TEMPLATES, Country, countries
from mechlab.prompts.drawing import check_count, check_seed, chosen, number, pick
from mechlab.prompts.edits import EditRequest

__all__ = ["world_edits"]


def world_edits(
    count: int | None = None,
    seed: int = 0,
    *,
    relations: Sequence[str] = ("capital",),
    languages: Sequence[str] = ("en",),
    template: int = 0,
) -> list[EditRequest]:
    """Return requests that give countries the capital, language, … of another country.

    No two requests have the same country, relation and language; the same arguments give the same
    requests, and a larger `count` with the same seed begins with the same ones. Old and new object
    begin with different letters, so that their first tokens differ.

    Args:
        count: how many, drawn without replacement; by default all countries, most frequent first.
        seed: decides which countries and which new objects.
        relations: of `capital`, `language`, `currency`, `continent`.
        languages: of `en`, `fr`, `es`, `de`.
        template: which sentence of each relation is edited, from 0.

    Raises:
        PromptError: an option outside its choices, or fewer facts than asked for.
    """
    check_seed(seed)
    known = [(r, c) for c in chosen("languages", languages, LANGUAGES)
             for r in chosen("relations", relations, RELATIONS)]  # fmt: skip
    least = min(len(TEMPLATES[language][relation]) for relation, language in known)
    if isinstance(template, bool) or template not in range(least):
        raise PromptError(
            f"template={template!r}.\n  Allowed: 0 to {least - 1}.\n  Choose one of these."
        )
    cells = [(country, *one) for country in countries() for one in known]
    if count is not None:
        check_count(count, f"edits of {len(cells)}", len(cells))
        order = ((number(seed, "edit", c.code, r, lang), (c, r, lang)) for c, r, lang in cells)
        cells = [cell for _, cell in sorted(order, key=lambda pair: pair[0])][:count]
    return [_request(*cell, template, seed) for cell in cells]


def _request(
    country: Country, relation: str, language: str, template: int, seed: int
) -> EditRequest:
    old = country.answer(relation, language)
    others = dict.fromkeys(one.answer(relation, language) for one in countries())
    free = [new for new in others if _told_apart(old, new)]
    new = pick(free, seed, "new object", country.code, relation, language)
    sentence = TEMPLATES[language][relation][template]
    return EditRequest(sentence, country.name_in(language), new, old)


def _told_apart(old: str, new: str) -> bool:
    """Return whether even the first byte differs, in upper and lower case."""
    starts = [{text[0].lower().encode()[0], text[0].upper().encode()[0]} for text in (old, new)]
    return not starts[0] & starts[1]
