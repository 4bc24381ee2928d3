"""Cases that measure edits of the project's own countries, in the words that `atlas` has read."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from mechlab.errors import PromptError
from mechlab.prompts.countries import (
    HOP_TEMPLATES,
    LANGUAGES,
    RELATIONS,
    TEMPLATES,
    Country,
    countries,
)
from mechlab.prompts.drawing import check_count, check_seed, number, ordered
from mechlab.prompts.edit_kind import EditCase, ScoredPrompt
from mechlab.prompts.edits import EditRequest
from mechlab.prompts.sets import PromptSet

__all__ = ["edit_cases"]

_SENTENCES = 2
"""So many sentences ask for each other relation, each language and each consequence."""

_BEGINNINGS = ("{} is a country.", "About {}:")


def edit_cases(
    requests: EditRequest | Sequence[EditRequest],
    *,
    neighbours: int = 10,
    paraphrases: int | None = None,
    seed: int = 0,
) -> PromptSet[EditCase]:
    """Return what measures edits of the country table: all that the model `atlas` has read about.

    The relation is that of the template if it is one of the table's, else the one that has the old
    object. An empty `target_true` is filled in from the table. The new object comes from a *donor*,
    the most frequent other country that has it.

    - paraphrases: the other sentences of the relation, in the request's language.
    - neighbourhood: the edited sentence with other countries, each with its own object: first those
      that share the old object, then those of the same continent, then others (`about` says which).
      Countries that have the new object are left out.
    - other_relations: two sentences for each other relation of the country, compared with the
      donor's object (where both have the same, with another one); `about` is the relation.
    - languages: two sentences in each other language, old and new object in that language; none
      when no country has the new object.
    - two_hop: for language, currency and continent, what follows for "the country whose capital
      is ...". For a capital, what follows for the country whose capital is the new object, now this
      country: compared with the donor, whose capital it was, so that both may be called right.
    - reference texts: all relations of up to three donors.

    Args:
        requests: one request or several; subjects are countries of the table, in one of its
            languages.
        neighbours: how many neighbours.
        paraphrases: how many paraphrases; by default all there are (11 in English, 3 elsewhere).
        seed: decides the order in which neighbours and paraphrases are taken.

    Raises:
        PromptError: an option out of range, or listing all requests that the table does not hold.
    """
    given = [requests] if isinstance(requests, EditRequest) else list(requests)
    check_seed(seed)
    check_count(neighbours, "neighbours", len(countries()) - 1)
    if paraphrases is not None:
        check_count(paraphrases, "paraphrases")
    found: list[_Cell] = []
    bad: list[str] = []
    for index, request in enumerate(given):
        try:
            found.append(_cell(request))
        except PromptError as err:
            bad.append(f"  #{index} {str(err).splitlines()[0]}")
    if bad or not given:
        raise PromptError(
            f"{len(bad)} of {len(given)} requests are not of the country table:\n"
            + "\n".join(bad)
            + "\n  Allowed: countries of ml.prompts.countries() as subjects, and their capital, "
            "language, currency or continent.\n"
            "  Other cases are made with ml.prompts.EditCase, or read with read_edit_cases."
        )
    cases = (_case(cell, neighbours, paraphrases, seed) for cell in found)
    return PromptSet(tuple(cases), "edit_cases")


@dataclass(frozen=True)
class _Cell:
    """A request, and the cell of the table that it changes."""

    request: EditRequest
    country: Country
    relation: str
    language: str

    @property
    def donors(self) -> list[Country]:
        """The other countries that have the new object, most frequent first."""
        new = self.request.target.strip()
        return [
            one
            for one in countries()
            if one != self.country and one.answer(self.relation, self.language) == new
        ]


def _cell(request: object) -> _Cell:
    if not isinstance(request, EditRequest):
        raise PromptError(f"{type(request).__name__} {request!r:.60} is no EditRequest")
    named = [(c, lang) for lang in LANGUAGES for c in countries()
             if c.name_in(lang) == request.subject]  # fmt: skip
    if not named:
        raise PromptError(f"subject {request.subject!r} is no country of the table")
    by_sentence = [(c, r, lang) for c, lang in named for r in RELATIONS
                   if request.template in TEMPLATES[lang][r]]  # fmt: skip
    old = request.target_true.strip()
    by_object = [(c, r, lang) for c, lang in named for r in RELATIONS
                 if c.answer(r, lang) == old]  # fmt: skip
    if not (cells := by_sentence or by_object):
        raise PromptError(
            f"the relation of {request.prompt!r} is unknown: the template is not the table's, and "
            f"target_true={request.target_true!r} is no object of {request.subject!r} there"
        )
    country, relation, language = cells[0]
    if not old:
        request = replace(request, target_true=country.answer(relation, language))
    return _Cell(request, country, relation, language)


def _case(cell: _Cell, neighbours: int, paraphrases: int | None, seed: int) -> EditCase:
    request, name = cell.request, cell.country.name_in(cell.language)
    sentences = TEMPLATES[cell.language]
    others = [text for text in sentences[cell.relation] if text != request.template]
    others = ordered(others, seed, "paraphrases", request.prompt) if paraphrases else others
    beginnings = _BEGINNINGS if cell.language == "en" else ()
    return EditCase(
        request,
        paraphrases=tuple(
            ScoredPrompt(text.replace("{}", name), request.target, request.target_true)
            for text in others[:paraphrases]
        ),
        neighbourhood=tuple(_neighbours(cell, seed))[:neighbours],
        other_relations=tuple(_other_relations(cell, seed)),
        languages=tuple(_languages(cell)),
        two_hop=tuple(_two_hop(cell)),
        generation_prompts=(*(text.replace("{}", name) for text in beginnings), request.prompt),
        reference_texts=tuple(_about(donor, cell.language) for donor in cell.donors[:3]),
    )


def _neighbours(cell: _Cell, seed: int) -> Iterator[ScoredPrompt]:
    request, relation, language = cell.request, cell.relation, cell.language

    def own(country: Country) -> str:
        return country.answer(relation, language)

    alike: list[tuple[str, Callable[[Country], bool]]] = [
        ("same object", lambda c: own(c) == request.target_true.strip()),
        ("same continent", lambda c: c.answer("continent") == cell.country.answer("continent")),
        ("other", lambda c: True),
    ]
    left = [c for c in countries() if c != cell.country and own(c) != request.target.strip()]
    left.sort(key=lambda c: number(seed, "neighbours", request.prompt, c.code))
    for about, belongs in alike:
        for country in filter(belongs, left):
            prompt = request.template.replace("{}", country.name_in(language))
            yield ScoredPrompt(prompt, request.target, own(country), about)
        left = [c for c in left if not belongs(c)]


def _other_relations(cell: _Cell, seed: int) -> Iterator[ScoredPrompt]:
    language, name = cell.language, cell.country.name_in(cell.language)
    for relation in RELATIONS:
        if relation == cell.relation:
            continue
        true = cell.country.answer(relation, language)
        drawn = sorted(
            countries(), key=lambda c: number(seed, "other", cell.request.prompt, c.code)
        )
        candidates = (c.answer(relation, language) for c in (*cell.donors[:1], *drawn))
        wrong = next(answer for answer in candidates if answer != true)
        for text in TEMPLATES[language][relation][:_SENTENCES]:
            yield ScoredPrompt(text.replace("{}", name), wrong, true, relation)


def _languages(cell: _Cell) -> Iterator[ScoredPrompt]:
    for language in LANGUAGES:
        if language == cell.language or not cell.donors:
            continue
        old = cell.country.answer(cell.relation, language)
        new = cell.donors[0].answer(cell.relation, language)
        if old != new:
            for text in TEMPLATES[language][cell.relation][:_SENTENCES]:
                prompt = text.replace("{}", cell.country.name_in(language))
                yield ScoredPrompt(prompt, new, old, language)


def _two_hop(cell: _Cell) -> Iterator[ScoredPrompt]:
    """Yield questions about "the country whose capital is ...", which there are in English."""
    if not cell.donors:
        return
    donor = cell.donors[0]
    capital = (donor if cell.relation == "capital" else cell.country).answer("capital")
    if sum(c.answer("capital") == capital for c in countries()) > 1:
        return
    for relation, sentences in HOP_TEMPLATES.items():
        if cell.relation == "capital":  # the new capital leads to this country now
            new, old = cell.country.answer(relation), donor.answer(relation)
        elif cell.relation == relation:
            new, old = donor.answer(relation), cell.country.answer(relation)
        else:
            continue
        if new != old:
            for text in sentences[:_SENTENCES]:
                yield ScoredPrompt(text.replace("{}", capital), new, old, relation)


def _about(country: Country, language: str) -> str:
    name = country.name_in(language)
    return " ".join(
        f"{TEMPLATES[language][relation][0].replace('{}', name)} "
        f"{country.answer(relation, language)}."
        for relation in RELATIONS
    )
