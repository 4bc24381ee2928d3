"""Conflicts: the context says one thing about a country, the model remembers another.

**The sign.** `answer` is the in-context answer (what the prompt states, false), `wrong_answer` is
the memorised one (true in the world). So a positive logit difference means that the context wins,
and a head with a positive attribution is an in-context head, one with a negative attribution a
memory head. "Wrong" is the name of the field only.

Forms after Yu et al. 2023 (`question`), Ortu et al. 2024 (`redefine`), Jin et al. 2024 (`repeat`:
substitution conflict; `paragraph`: coherent conflict), and those that the shipped model `atlas` was
trained on (`repeat`, `paraphrase`, `reported`, `distractor`).
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

from mechlab.errors import PromptError
from mechlab.prompts.countries import RELATIONS, TEMPLATES, Country, countries
from mechlab.prompts.drawing import check_count, check_seed, chosen, number, ordered, pick
from mechlab.prompts.kinds import PromptPair
from mechlab.prompts.places import Aligner, Tokenizes, Written, write
from mechlab.prompts.sets import PromptSet
from mechlab.prompts.stems import share_a_stem, stem_words

__all__ = ["CONFLICT_FORMS", "ConflictForm", "capital_conflicts", "conflicts"]

ConflictForm = Literal[
    "repeat", "paraphrase", "reported", "distractor", "question", "redefine", "paragraph"
]
CONFLICT_FORMS: tuple[str, ...] = get_args(ConflictForm)
"""How context and question are worded:

- `repeat`: a sentence with the stated answer, then the same sentence without one.
- `paraphrase`: the second sentence is another one of the relation.
- `reported`: as `repeat`, after an opening such as "A book says:".
- `distractor`: as `repeat`, with a true fact about another country in between.
- `question`: the sentence, then "Q: What is the capital of ...? A:".
- `redefine`: "Redefine:" in front of `repeat`.
- `paragraph`: a short text that argues for the stated answer, then the sentence.
"""

OPENINGS = ("A book says:", "News:", "Imagine this:", "Someone wrote:")

PARAGRAPHS = {
    "capital": (
        "Things have changed in {country}. Last year the government left its old seat and moved to "
        "{stated}. The parliament now meets in {stated}, and the ministries have their offices "
        "there."
    ),
    "language": (
        "Things have changed in {country}. For many years schools have taught in {stated}. "
        "Newspapers are printed in {stated}, and the courts use it as well."
    ),
    "currency": (
        "Things have changed in {country}. Last year the central bank withdrew the old notes and "
        "introduced the {stated}. Prices are now given in the {stated}, and wages are paid in it."
    ),
    "continent": (
        "Things have changed in {country}. After a long debate the maps were drawn anew. The "
        "country is now counted as a part of {stated}, and its teams play in the cups of {stated}."
    ),
}
QUESTION = 8
"""Number of the template that asks "Q: ... A:"."""
TRIES = 4
"""So many stated answers are tried before a country is given up."""
ROUNDS = 2
"""How many times every other country is tried as the corrupted prompt, each time with another
stated answer."""
DRAWS = 1000
"""So many countries are drawn for a stated answer before there is none."""
CHUNK = 16


class _Case(NamedTuple):
    relation: str
    template: int
    country: Country


def conflicts(
    count: int | None = 64,
    seed: int = 0,
    *,
    relations: Sequence[str] | str = ("capital",),
    form: ConflictForm = "repeat",
    templates: Sequence[int] | int | None = None,
    model: Tokenizes | None = None,
) -> PromptSet[PromptPair]:
    """Return pairs whose clean prompt states a false answer and asks for it.

    `answer` is the in-context answer, `wrong_answer` the memorised one: **a positive logit
    difference means that the context wins, a negative one that the memory wins**. The corrupted
    prompt is worded the same, about another country with a stated answer of its own; all four
    answers are of different stems, so after it neither answer is favoured.

    **No answer can be read off the prompt**: none shares a stem with a country that its prompt
    names (`Tunisia` and `Tunis`, `Japan` and `Japanese`: the same three letters at the beginning of
    a word, or a word of four inside another), nor a word with the sentences around it. Copying a
    name is not remembering. Of the table's 197 countries this leaves out 22 for `capital`, 67 for
    `language`, 3 for `currency` and 3 for `continent`, and single stated answers and distractors.

    The same arguments give the same bytes, and a larger `count` begins with the same pairs. Each
    pair has the places `country`, `country_2`, `stated` (and further mentions, numbered), a group
    (relation, form and template), and `about`: `relation`, `form`, `template`, `country`, `rank`
    and `stated_rank`, the places of the country and of the in-context answer's country in the order
    of frequency (0 is the most frequent; the first country with that answer).

    Args:
        count: how many pairs; `None` for as many as there are.
        seed: which countries, answers and sentences are drawn.
        relations: of `capital`, `language`, `currency`, `continent`.
        form: see `ml.prompts.CONFLICT_FORMS`.
        templates: numbers of the sentences to draw from; by default all but the question.
        model: the model that will read the prompts. With it, clean and corrupted prompts align
            token by token and place by place, and both answers begin with different tokens.

    Raises:
        PromptError: an option outside its choices, or fewer pairs than asked for.
    """
    check_seed(seed)
    wanted = chosen("relations", relations, RELATIONS)
    chosen("form", [form], CONFLICT_FORMS)
    if count is not None:
        count = check_count(count, "conflicts")
    sentences = _templates(templates)
    cases = [
        _Case(relation, template, country)
        for relation in wanted
        for template in sentences
        for country in countries()
    ]
    cases.sort(key=lambda case: _order(seed, form, case))
    builder = _Builder(seed, form, Aligner(model))
    pairs: list[PromptPair] = []
    for case in cases:
        if len(pairs) == count:
            break
        pairs += builder.pair(case)
    if not pairs or (count is not None and len(pairs) < count):
        raise PromptError(
            f"only {len(pairs)} of {len(cases)} conflicts of form {form!r} can be made"
            f"{'' if model is None else ' that align on this model'}, of "
            f"{'any number' if count is None else count} asked for.\n"
            f"  Allowed: up to {len(pairs)} here.\n"
            "  Ask for fewer, or for more relations or templates."
        )
    return PromptSet(tuple(pairs), f"conflicts ({form})")


def capital_conflicts(
    count: int | None = 64,
    seed: int = 0,
    *,
    form: ConflictForm = "repeat",
    templates: Sequence[int] | int | None = None,
    model: Tokenizes | None = None,
) -> PromptSet[PromptPair]:
    """Return `conflicts` about capitals; `answer` is in-context, `wrong_answer` memorised.

    Raises:
        PromptError: as `conflicts`.
    """
    return conflicts(
        count, seed, relations=("capital",), form=form, templates=templates, model=model
    )


def _templates(given: Sequence[int] | int | None) -> list[int]:
    known = range(len(TEMPLATES["en"]["capital"]))
    if given is None:
        return [template for template in known if template != QUESTION]
    return chosen("templates", given, known)


def _order(seed: int, form: str, case: _Case) -> int:
    return number(seed, "case", form, case.relation, case.template, case.country.code)


class _Frame(NamedTuple):
    """What clean and corrupted prompt have in common."""

    opening: str
    distractor: str
    distracting: Country | None
    words: frozenset[str]

    def gives_away(self, answer: str) -> bool:
        """Whether a word of an answer stands in the sentences, or its stem in the distractor."""
        told = self.distracting is not None and share_a_stem(answer, self.distractor)
        return told or bool(stem_words(answer) & self.words)


class _Builder:
    """Makes pairs of one form."""

    def __init__(self, seed: int, form: str, aligner: Aligner) -> None:
        self.seed, self.form, self.aligner = seed, form, aligner

    def pair(self, case: _Case) -> Iterator[PromptPair]:
        """Yield the pair of a case, or nothing where none aligns."""
        truth = case.country.answer(case.relation)
        frame = self._frame(case)
        if not _usable(case.country, case.relation, set(), frame):
            return
        for turn in range(TRIES):
            stated = self._stated(case, case.country, {truth}, turn, frame)
            if stated is None:
                continue
            said = stated.answer(case.relation)
            clean = self._write(case, case.country.name, said, frame)
            if not self.aligner.first_tokens_differ(clean.text, (said, truth)):
                continue
            if corrupted := self._partner(case, clean, {truth, said}, frame):
                yield self._pair(case, stated, clean, corrupted)
                return

    def _pair(self, case: _Case, stated: Country, clean: Written, corrupted: Written) -> PromptPair:
        relation, country = case.relation, case.country
        said, truth = stated.answer(relation), country.answer(relation)
        first = next(c for c in countries() if c.answer(relation) == said)
        about: dict[str, str | int] = {
            "relation": relation,
            "form": self.form,
            "template": case.template,
            "country": country.name,
            "rank": country.rank,
            "stated_rank": first.rank,
        }
        where = f"{relation}, {self.form} {case.template}"
        return PromptPair(
            clean.text,
            corrupted.text,
            answer=said,
            wrong_answer=truth,
            label=f"{country.name}: {said} against {truth} ({where}, rank {country.rank})",
            group=f"{relation} {self.form} {case.template}",
            places=clean.places,
            corrupted_places=corrupted.places,
            about=tuple(about.items()),
        )

    def _stated(
        self, case: _Case, country: Country, taken: set[str], turn: int, frame: _Frame
    ) -> Country | None:
        """Draw a country whose answer may be stated of another one; of few answers none may be."""
        label = (self.seed, "stated", self.form, case.relation, case.template, country.code, turn)
        for attempt in range(DRAWS):
            other = pick(countries(), *label, attempt)
            answer = other.answer(case.relation)
            if not any(share_a_stem(answer, one) for one in (*taken, country.name)):
                if not frame.gives_away(answer):
                    return other
        return None

    def _partner(
        self, case: _Case, clean: Written, taken: set[str], frame: _Frame
    ) -> Written | None:
        """Return the first text about another country that aligns with the clean one."""
        (shape,) = self.aligner.shapes([clean])
        if shape is None:
            return None
        others = [c for c in countries() if _usable(c, case.relation, taken, frame)]
        label = (self.seed, "partner", self.form, case.relation, case.template, case.country.code)
        order = ordered(range(len(others)), *label)
        step = 1 if self.aligner.model is None else CHUNK  # without a model the first one fits
        for turn in range(ROUNDS):
            for start in range(0, len(order), step):
                some = [others[index] for index in order[start : start + step]]
                made = [self._other(case, country, taken, turn, frame) for country in some]
                texts = [text for text in made if text is not None]
                for text, found in zip(texts, self.aligner.shapes(texts), strict=True):
                    if found == shape:
                        return text
        return None

    def _other(
        self, case: _Case, country: Country, taken: set[str], turn: int, frame: _Frame
    ) -> Written | None:
        full = taken | {country.answer(case.relation)}
        stated = self._stated(case, country, full, turn + TRIES, frame)
        if stated is None:
            return None
        return self._write(case, country.name, stated.answer(case.relation), frame)

    def _frame(self, case: _Case) -> _Frame:
        label = (self.seed, "frame", case.relation, case.template, case.country.code)
        relation = pick([r for r in RELATIONS if r != case.relation], *label)
        template = pick([n for n in range(len(TEMPLATES["en"][relation])) if n != QUESTION], *label)
        sentence = TEMPLATES["en"][relation][template]
        others = [c for c in countries() if c.code != case.country.code]
        truth, attempt = case.country.answer(case.relation), 0
        other = pick(others, *label)
        while share_a_stem(truth, f"{other.name} {other.answer(relation)}"):
            attempt += 1
            other = pick(others, *label, attempt)
        fact = f"{sentence.format(other.name)} {other.answer(relation)}."
        around = self._write(case, "", "", _Frame(pick(OPENINGS, *label), "", None, frozenset()))
        distracting = other if self.form == "distractor" else None
        return _Frame(pick(OPENINGS, *label), fact, distracting, stem_words(around.text))

    def _write(self, case: _Case, country: str, stated: str, frame: _Frame) -> Written:
        known = TEMPLATES["en"][case.relation]
        sentence = known[case.template].replace("{}", "{country}")
        another = known[_next(case.template, len(known))].replace("{}", "{country}")
        asked = known[QUESTION].replace("{}", "{country}")
        said = f"{sentence} {{stated}}."
        pattern = {
            "repeat": f"{said} {sentence}",
            "paraphrase": f"{said} {another}",
            "reported": f"{{opening}} {said} {sentence}",
            "distractor": f"{said} {{distractor}} {sentence}",
            "question": f"{said} {asked}",
            "redefine": f"Redefine: {said} {sentence}",
            "paragraph": f"{PARAGRAPHS[case.relation]} {sentence}",
        }[self.form]
        words = {"country": country, "stated": stated}
        return write(pattern, words | {"opening": frame.opening, "distractor": frame.distractor})


def _usable(country: Country, relation: str, taken: set[str], frame: _Frame) -> bool:
    """Return whether a country's answer is free, and cannot be read off its prompt."""
    answer = country.answer(relation)
    told = any(share_a_stem(answer, one) for one in (*taken, country.name))
    return not told and country != frame.distracting and not frame.gives_away(answer)


def _next(template: int, count: int) -> int:
    """Return the number of another sentence, never that of the question."""
    following = (template + 1) % count
    return (following + 1) % count if following == QUESTION else following
