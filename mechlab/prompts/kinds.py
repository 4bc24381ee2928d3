"""The kinds of prompt: plain frozen text, checked when it is made.

Answers (`target`, `answer`, `wrong_answer`) may be written with or without the leading space; the
model's tokeniser applies the leading-space rule.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from types import NoneType
from typing import ClassVar

from mechlab.errors import PromptError

__all__ = ["Fact", "Place", "Prompt", "PromptPair"]

Place = tuple[str, int, int]
"""A named stretch of a prompt: name, first character, end (excluded)."""


@dataclass(frozen=True)
class Fact:
    """A statement that stops where its answer would come, and the words it is about.

    `Fact("The capital of France is", subject="France", target="Paris")`.
    """

    kind: ClassVar[str] = "fact"

    prompt: str
    """Text up to the answer, without a trailing space."""
    subject: str
    """The words that causal tracing corrupts; must occur in `prompt`."""
    target: str = ""
    """The expected answer; empty when none is expected."""
    label: str | None = None
    """Name in results; by default the prompt itself."""
    subject_start: int | None = None
    """Character at which the subject starts; by default its first occurrence."""

    def __post_init__(self) -> None:
        """Check the text.

        Raises:
            PromptError: when prompt or subject is empty, or the subject is not where it should be.
        """
        _check_text(self, filled=("prompt", "subject"), free=("target",))
        if type(self.subject_start) not in (int, NoneType):
            raise PromptError(
                f"subject_start={self.subject_start!r} of {self.prompt!r} is not a whole number.\n"
                "  It counts characters from 0.\n  Leave it out to take the first occurrence."
            )
        if self.subject_start is None and self.subject not in self.prompt:
            raise PromptError(
                f"subject {self.subject!r} does not occur in the prompt {self.prompt!r}.\n"
                "  It must be written exactly as in the prompt (case, accents, spaces).\n"
                "  Correct one of the two."
            )
        start, end = self.subject_span
        if start < 0 or (found := self.prompt[start:end]) != self.subject:
            found = "" if start < 0 else found
            raise PromptError(
                f"subject_start={start} of {self.prompt!r} reads {found!r}, "
                f"not {self.subject!r}.\n  It counts characters from 0.\n"
                "  Leave it out to take the first occurrence."
            )

    @property
    def subject_span(self) -> tuple[int, int]:
        """Characters of the subject in the prompt, as (start, end), end excluded."""
        start = self.subject_start
        start = self.prompt.index(self.subject) if start is None else start
        return start, start + len(self.subject)

    @property
    def text(self) -> str:
        """The text that the model reads, and the default label."""
        return self.prompt

    def to_json(self) -> dict[str, str | int | None]:
        """Return every field and the kind, as JSON scalars."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class PromptPair:
    """Two prompts that differ in what decides the answer.

    `answer` is right after `clean`, `wrong_answer` is right after `corrupted`.
    """

    kind: ClassVar[str] = "pair"

    clean: str
    """Prompt after which `answer` is expected."""
    corrupted: str
    """Prompt after which `wrong_answer` is expected; may equal `clean` in control runs."""
    answer: str
    """Expected after `clean`."""
    wrong_answer: str
    """Compared against `answer`; differs from it."""
    label: str | None = None
    """Name in results; by default the clean prompt."""
    group: str | None = None
    """Which pairs are not independent of this one, such as its template: what clustered intervals
    and tests draw together. By default every pair stands alone."""
    places: tuple[Place, ...] = ()
    """Named stretches of the clean prompt, in characters; `ml.prompts.named_positions` gives their
    tokens. The last token is called `end` without being listed."""
    corrupted_places: tuple[Place, ...] = ()
    """The same of the corrupted prompt."""
    about: tuple[tuple[str, str | int], ...] = ()
    """What else is known of the pair, such as the rank of its country, as (name, value)."""

    def __post_init__(self) -> None:
        """Check the text.

        Raises:
            PromptError: when a text is empty, both answers are the same word, or a place is not
                where it should be.
        """
        for name in ("places", "corrupted_places", "about"):
            value = getattr(self, name)
            if isinstance(value, Iterable) and not isinstance(value, str):
                object.__setattr__(self, name, tuple(map(_as_tuple, value)))
        _check_text(self, filled=("clean", "corrupted", "answer", "wrong_answer"))
        _check_extras(self)
        if self.answer.strip() == self.wrong_answer.strip():
            raise PromptError(
                f"answer and wrong_answer of {self.clean!r} are both {self.answer.strip()!r}.\n"
                "  A pair compares two different answers.\n  Change one of them."
            )

    @property
    def text(self) -> str:
        """The clean prompt, and the default label."""
        return self.clean

    def to_json(self) -> dict[str, object]:
        """Return the kind and every field; those added later only when they hold something.

        So the digest of a pair of texts, answers and label stays what it always was.
        """
        later = ("group", "places", "corrupted_places", "about")
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        kept = {name: value for name, value in held.items() if name not in later or value}
        return {"kind": self.kind, **kept}


Prompt = Fact | PromptPair
"""Any kind of prompt."""


def _check_text(prompt: Prompt, filled: tuple[str, ...], free: tuple[str, ...] = ()) -> None:
    problems = [text for name in filled if (text := _problem(prompt, name, may_be_empty=False))]
    problems += [text for name in free if (text := _problem(prompt, name, may_be_empty=True))]
    if prompt.label is not None and (text := _problem(prompt, "label", may_be_empty=False)):
        problems.append(text)
    if problems:
        raise PromptError(
            f"{type(prompt).__name__} cannot be made: {'; '.join(problems)}.\n"
            "  Each of these must be text that is not blank.\n  Correct the fields named."
        )


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else value


def _check_extras(pair: PromptPair) -> None:
    problems = []
    if pair.group is not None and (text := _problem(pair, "group", may_be_empty=False)):
        problems.append(text)
    for name, text in (("places", pair.clean), ("corrupted_places", pair.corrupted)):
        problems += _wrong_places(name, getattr(pair, name), text)
    if not isinstance(pair.about, tuple) or not all(map(_is_note, pair.about)):
        problems.append(f"about is {pair.about!r:.60}, not a list of (name, text or whole number)")
    elif len(dict(pair.about)) < len(pair.about):
        problems.append("about names something twice")
    if problems:
        raise PromptError(
            f"PromptPair {pair.clean!r:.80} cannot be made: {'; '.join(problems)}.\n"
            "  A place is (name, start, end) in characters, from 0, end excluded, each name once.\n"
            "  Correct the fields named."
        )


def _wrong_places(field: str, places: object, text: str) -> list[str]:
    if not isinstance(places, tuple):
        return [f"{field} is {type(places).__name__} {places!r:.60}, not a list"]
    wrong = [
        f"{field} holds {place!r:.60}"
        for place in places
        if not (
            isinstance(place, tuple)
            and [type(part) for part in place] == [str, int, int]
            and place[0]
            and 0 <= place[1] < place[2] <= len(text)
            and text[place[1] : place[2]].strip()
        )
    ]
    names = [place[0] for place in places if isinstance(place, tuple) and place]
    return wrong + ([f"{field} names a place twice"] if len(set(names)) < len(names) else [])


def _is_note(note: object) -> bool:
    whole = isinstance(note, tuple) and len(note) == 2 and isinstance(note[0], str)
    return whole and type(note[1]) in (str, int)  # type: ignore[index]


def _problem(prompt: Prompt, name: str, *, may_be_empty: bool) -> str | None:
    value = getattr(prompt, name)
    if not isinstance(value, str):
        return f"{name} is {type(value).__name__} {value!r:.60}, not text"
    if not value.strip() and not (may_be_empty and value == ""):
        return f"{name} is empty ({value!r:.20})"
    if any("\ud800" <= character <= "\udfff" for character in value):
        return f"{name} holds half a surrogate pair, which is not valid Unicode"
    return None
