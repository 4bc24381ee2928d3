"""The kinds of prompt: plain frozen text, checked when it is made.

Answers (`target`, `answer`, `wrong_answer`) may be written with or without the leading space; the
model's tokeniser applies the leading-space rule.
"""

from dataclasses import asdict, dataclass
from types import NoneType
from typing import ClassVar

from mechlab.errors import PromptError

__all__ = ["Fact", "Prompt", "PromptPair"]


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

    def __post_init__(self) -> None:
        """Check the text.

        Raises:
            PromptError: when a text is empty or both answers are the same word.
        """
        _check_text(self, filled=("clean", "corrupted", "answer", "wrong_answer"))
        if self.answer.strip() == self.wrong_answer.strip():
            raise PromptError(
                f"answer and wrong_answer of {self.clean!r} are both {self.answer.strip()!r}.\n"
                "  A pair compares two different answers.\n  Change one of them."
            )

    @property
    def text(self) -> str:
        """The clean prompt, and the default label."""
        return self.clean

    def to_json(self) -> dict[str, str | int | None]:
        """Return every field and the kind, as JSON scalars."""
        return {"kind": self.kind, **asdict(self)}


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


def _problem(prompt: Prompt, name: str, *, may_be_empty: bool) -> str | None:
    value = getattr(prompt, name)
    if not isinstance(value, str):
        return f"{name} is {type(value).__name__} {value!r:.60}, not text"
    if not value.strip() and not (may_be_empty and value == ""):
        return f"{name} is empty ({value!r:.20})"
    if any("\ud800" <= character <= "\udfff" for character in value):
        return f"{name} holds half a surrogate pair, which is not valid Unicode"
    return None
