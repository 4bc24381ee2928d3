"""World facts: the project's own countries and sentences as a `PromptSet`."""

import hashlib
from collections.abc import Iterator, Sequence
from numbers import Integral

from mechlab.errors import PromptError
from mechlab.prompts.countries import LANGUAGES, RELATIONS, TEMPLATES, countries
from mechlab.prompts.kinds import Fact
from mechlab.prompts.reading import fill_template
from mechlab.prompts.sets import PromptSet

__all__ = ["world_facts"]


def world_facts(
    count: int | None = None,
    seed: int = 0,
    *,
    relations: Sequence[str] = ("capital",),
    languages: Sequence[str] = ("en",),
    templates: Sequence[int] | None = (0,),
) -> PromptSet[Fact]:
    """Return facts about countries, in forms that the built-in model `atlas` was trained on.

    The same arguments give the same bytes. A larger `count` with the same seed begins with the
    same facts, so that a stored result is extended rather than repeated.

    Args:
        count: how many facts, drawn without replacement; by default all, most frequent country
            first.
        seed: which order they are drawn in; of no effect when `count` is `None`.
        relations: of `capital`, `language`, `currency`, `continent`.
        languages: of `en`, `fr`, `es`, `de`.
        templates: which of the sentences of each relation, from 0; `None` takes all of them.

    Raises:
        PromptError: when a relation or language is unknown, a template does not exist, or there are
            fewer facts than asked for.
    """
    _check_known("relations", relations, RELATIONS)
    _check_known("languages", languages, LANGUAGES)
    facts = list(_facts(relations, languages, templates))
    if count is None:
        return PromptSet(tuple(facts), "world_facts")
    if isinstance(count, bool) or not isinstance(count, Integral) or not 1 <= count <= len(facts):
        raise PromptError(
            f"count={count!r} facts of {len(facts)}.\n  Allowed: 1 to {len(facts)}.\n"
            "  Ask for fewer, or for more relations, languages or templates."
        )
    return PromptSet(
        tuple(sorted(facts, key=lambda fact: _draw(fact, seed))[:count]), "world_facts"
    )


def _facts(
    relations: Sequence[str], languages: Sequence[str], templates: Sequence[int] | None
) -> Iterator[Fact]:
    sentences = [
        (relation, language, text)
        for language in dict.fromkeys(languages)
        for relation in dict.fromkeys(relations)
        for text in _sentences(language, relation, templates)
    ]
    for country in countries():
        for relation, language, text in sentences:
            answer = country.answer(relation, language)
            yield fill_template(text, country.name_in(language), target=answer)


def _sentences(language: str, relation: str, chosen: Sequence[int] | None) -> list[str]:
    known = TEMPLATES[language][relation]
    if chosen is None:
        return list(known)
    if wrong := [number for number in chosen if number not in range(len(known))]:
        raise PromptError(
            f"templates {wrong} of {relation!r} in {language!r} do not exist.\n"
            f"  Allowed: 0 to {len(known) - 1}, or None for all.\n  Choose among these."
        )
    return [known[number] for number in dict.fromkeys(chosen)]


def _check_known(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(given, str) or not given or not set(given) <= set(known):
        raise PromptError(
            f"{option}={given!r} is not a selection of what the table has.\n"
            f"  Allowed: a list of {', '.join(map(repr, known))}.\n  Choose among these."
        )


def _draw(fact: Fact, seed: int) -> bytes:
    # a hash and not a generator: the order is the same under every version of every library
    return hashlib.sha256(f"{seed}\0{fact.prompt}".encode()).digest()
