"""Requests to change a fact, and cases that say what else to look at: frozen, checked text.

Objects (`target`, `target_true`) may be written with or without the leading space; the model's
tokeniser applies the leading-space rule.
"""

from dataclasses import asdict, dataclass

from mechlab.errors import PromptError
from mechlab.prompts.kinds import Fact

__all__ = ["EditRequest"]


@dataclass(frozen=True)
class EditRequest:
    """One association to write: the subject, put where the template has `{}`, then `target`.

    `EditRequest("The capital of {} is", "Poland", "London", target_true="Warsaw")`. Only the exact
    characters `{}` stand for the subject; any other brace, also one of the subject, is plain text.
    """

    template: str
    """Text up to the object, with `{}` exactly once where the subject stands."""
    subject: str
    """What the association is about."""
    target: str
    """The new object."""
    target_true: str = ""
    """The object until now; empty when it does not matter. It differs from `target`."""

    def __post_init__(self) -> None:
        """Check the text.

        Raises:
            PromptError: listing what is wrong: a text that is empty or none, a template without
                exactly one `{}`, the same object twice.
        """
        problems = [text_problem(self, name) for name in ("template", "subject", "target")]
        problems.append(text_problem(self, "target_true", may_be_empty=True))
        if not any(problems):
            if (count := self.template.count("{}")) != 1:
                problems.append(f"template {self.template!r:.80} holds {{}} {count} times")
            if self.target.strip() == self.target_true.strip():
                problems.append(f"target and target_true are both {self.target.strip()!r:.40}")
        if found := [problem for problem in problems if problem]:
            raise PromptError(
                f"EditRequest cannot be made: {'; '.join(found)}.\n"
                "  The template holds {} exactly once, where the subject stands; subject and "
                "target are text that is not blank; target_true is another text, or empty.\n"
                "  Correct the fields named."
            )

    @property
    def prompt(self) -> str:
        """The template with the subject in its place: the text after which `target` shall come."""
        before, after = self.template.split("{}")
        return f"{before}{self.subject}{after}"

    @property
    def subject_span(self) -> tuple[int, int]:
        """Characters of the subject in the prompt, as (start, end), end excluded."""
        start = self.template.index("{}")
        return start, start + len(self.subject)

    @property
    def label(self) -> str:
        """The prompt and the new object, as results name the request."""
        return f"{self.prompt} {self.target.strip()}"

    @property
    def fact(self) -> Fact:
        """The fact as it was: the prompt with its subject, expecting `target_true`."""
        start, _ = self.subject_span
        first = self.prompt.index(self.subject) == start
        return Fact(
            self.prompt, self.subject, self.target_true, subject_start=None if first else start
        )

    def to_json(self) -> dict[str, str]:
        """Return every field: as an option of a run, a request is keyed by its contents."""
        return asdict(self)


def text_problem(owner: object, name: str, *, may_be_empty: bool = False) -> str:
    """Return what is wrong with a text of a request or case, or an empty text."""
    value = getattr(owner, name)
    if not isinstance(value, str):
        return f"{name} is {type(value).__name__} {value!r:.60}, not text"
    if not value.strip() and not (may_be_empty and value == ""):
        return f"{name} is empty ({value!r:.20})"
    if any("\ud800" <= character <= "\udfff" for character in value):
        return f"{name} holds half a surrogate pair, which is not valid Unicode"
    return ""
