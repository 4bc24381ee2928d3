"""From characters of a prompt to token positions."""

from collections.abc import Sequence
from typing import Protocol

from mechlab.errors import PromptError
from mechlab.models.encoding import Encoded, shorten
from mechlab.models.tokens import Span

__all__ = ["HasSubject", "covering_tokens", "subject_tokens"]


class HasSubject(Protocol):
    """A prompt that names the characters of its subject."""

    @property
    def prompt(self) -> str:
        """The text."""
        ...

    @property
    def subject_span(self) -> Span:
        """Start and end (excluded) of the subject in `prompt`, in characters."""
        ...


def covering_tokens(offsets: Sequence[Span], span: Span) -> tuple[int, int] | None:
    """Return the first and last token that share a character with `span`, or `None`."""
    start, end = span
    found = [place for place, (a, b) in enumerate(offsets) if a < end and b > start]
    return (found[0], found[-1]) if found else None


def subject_tokens(row: Encoded, fact: HasSubject) -> tuple[int, int]:
    """Return the first and last token of the subject, counted in the unpadded row.

    Positions come from the character offsets of the *whole* prompt: tokenising the subject alone
    would give other tokens (no leading space, other merges). White space at the ends of the span
    is ignored, because tokenizers differ in whether an offset includes the space before a word.

    Raises:
        PromptError: when the span lies outside the prompt or no token covers any of it.
    """
    start, end = fact.subject_span
    if not 0 <= start < end <= len(fact.prompt):
        raise PromptError(
            f"the subject span ({start}, {end}) does not lie in the prompt "
            f"{shorten(fact.prompt)} of {len(fact.prompt)} characters.\n"
            f"  Allowed: 0 <= start < end <= {len(fact.prompt)}.\n"
            "  Build the fact with mechlab.prompts.Fact(prompt, subject, target)."
        )
    subject = fact.prompt[start:end]
    bare = (end - len(subject.lstrip()), start + len(subject.rstrip()))
    if (places := covering_tokens(row.offsets, bare)) is None:
        raise PromptError(
            f"no token of {shorten(fact.prompt)} covers the subject {subject!r} at characters "
            f"{start} to {end}.\n  Allowed: a subject of at least one visible character.\n"
            "  Look at model.show_tokens(prompt) and name the subject as it is written there."
        )
    return places
