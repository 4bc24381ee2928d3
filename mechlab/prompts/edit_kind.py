"""The kind `edit`: a request and everything that shall, or shall not, change with it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from mechlab.errors import PromptError
from mechlab.prompts.edits import EditRequest, text_problem

__all__ = ["CHANGED_KINDS", "KEPT_KINDS", "PROMPT_KINDS", "EditCase", "ScoredPrompt"]

CHANGED_KINDS = ("rewrite", "paraphrase", "languages", "two_hop")
"""Prompts after which the new object is right once the edit is made."""

KEPT_KINDS = ("neighbourhood", "other_relations")
"""Prompts after which the old object stays right."""

PROMPT_KINDS = ("rewrite", "paraphrase", "neighbourhood", "other_relations", "languages", "two_hop")
"""The axis `prompt_kind` of evaluations, in its order."""


@dataclass(frozen=True)
class ScoredPrompt:
    """A prompt and the two objects compared after it; one of them may be missing."""

    prompt: str
    """Text up to the object."""
    target: str = ""
    """What an edited model might say: right after `CHANGED_KINDS`, wrong after `KEPT_KINDS`."""
    target_true: str = ""
    """What is right without the edit."""
    about: str = ""
    """What sets the prompt apart from others of its kind, such as `fr` or `currency`."""

    def __post_init__(self) -> None:
        """Check the text.

        Raises:
            PromptError: when the prompt is empty, or both objects are, or they are the same.
        """
        problems = [text_problem(self, "prompt")]
        problems += [
            text_problem(self, n, may_be_empty=True) for n in ("target", "target_true", "about")
        ]
        if not any(problems) and self.target.strip() == self.target_true.strip():
            problems.append(
                f"target and target_true of {self.prompt!r:.60} are both {self.target.strip()!r}"
            )
        if found := [problem for problem in problems if problem]:
            raise PromptError(
                f"ScoredPrompt cannot be made: {'; '.join(found)}.\n"
                "  A prompt and one or two different objects are text.\n  Correct the fields named."
            )


@dataclass(frozen=True)
class EditCase:
    """A request to edit, and the prompts and texts that measure what came of it.

    `EditCase(request, paraphrases=["Its capital is"], neighbourhood=[ScoredPrompt(…)])`: a plain
    text stands for a prompt with the request's own objects, as in CounterFact, and a mapping for
    the `ScoredPrompt` of its fields. Every field but the request may be empty.
    """

    kind: ClassVar[str] = "edit"

    request: EditRequest
    """What is edited; its own prompt is the one of `rewrite`."""
    paraphrases: tuple[ScoredPrompt, ...] = ()
    """The same relation of the same subject in other words."""
    neighbourhood: tuple[ScoredPrompt, ...] = ()
    """Other subjects, whose objects shall stay."""
    other_relations: tuple[ScoredPrompt, ...] = ()
    """Other relations of the same subject, which shall stay."""
    languages: tuple[ScoredPrompt, ...] = ()
    """The edited fact in other languages."""
    two_hop: tuple[ScoredPrompt, ...] = ()
    """Questions whose answer follows from the edited fact and another one."""
    generation_prompts: tuple[str, ...] = ()
    """Beginnings of texts that the model is to continue."""
    reference_texts: tuple[str, ...] = ()
    """Texts about subjects that really have the new object, to compare the continuations with."""
    label: str | None = None
    """Name in results; by default the edited sentence."""

    def __post_init__(self) -> None:
        """Fix the order, fill in the request's objects and check all parts.

        Raises:
            PromptError: listing every part that cannot be used.
        """
        if not isinstance(self.request, EditRequest):
            raise PromptError(
                f"request is {type(self.request).__name__} {self.request!r:.60}.\n"
                "  Allowed: an EditRequest.\n  Make one from template, subject and target."
            )
        problems: list[str] = []
        for name in _PROMPTS.values():
            object.__setattr__(self, name, tuple(_scored(self, name, problems)))
        for name in ("generation_prompts", "reference_texts"):
            object.__setattr__(self, name, _texts(self, name, problems))
        if self.label is not None:
            problems.append(text_problem(self, "label"))
        if found := [problem for problem in problems if problem]:
            raise PromptError(
                f"EditCase {self.request.label!r:.80} cannot be made: {'; '.join(found)}.\n"
                "  Prompts are texts, or ScoredPrompts; texts are not blank.\n"
                "  Correct the parts named."
            )

    @property
    def text(self) -> str:
        """The edited sentence, and the default label."""
        return self.request.label

    def prompts_of(self, prompt_kind: str) -> tuple[ScoredPrompt, ...]:
        """Return the prompts of one of `PROMPT_KINDS`."""
        if prompt_kind == "rewrite":
            request = self.request
            return (ScoredPrompt(request.prompt, request.target, request.target_true),)
        found: tuple[ScoredPrompt, ...] = getattr(self, _PROMPTS[prompt_kind])
        return found

    def to_json(self) -> dict[str, object]:
        """Return the kind and every field that holds something, as JSON values."""
        held: dict[str, Any] = asdict(self)
        return {"kind": self.kind, **{name: value for name, value in held.items() if value}}


_PROMPTS = {
    "paraphrase": "paraphrases",
    "neighbourhood": "neighbourhood",
    "other_relations": "other_relations",
    "languages": "languages",
    "two_hop": "two_hop",
}
_FIELDS = {field.name for field in fields(ScoredPrompt)}


def _listed(case: EditCase, name: str, problems: list[str]) -> list[Any]:
    value = getattr(case, name)
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        problems.append(f"{name} is {type(value).__name__} {value!r:.60}, not a list")
        return []
    return list(value)


def _scored(case: EditCase, name: str, problems: list[str]) -> list[ScoredPrompt]:
    found = []
    for number, given in enumerate(_listed(case, name, problems)):
        try:
            found.append(_one(case.request, given))
        except PromptError as err:
            reason = str(err).splitlines()[0].removeprefix("ScoredPrompt cannot be made: ")
            problems.append(f"{name} #{number}: {reason.rstrip('.')}")
    return found


def _one(request: EditRequest, given: object) -> ScoredPrompt:
    if isinstance(given, ScoredPrompt):
        return given
    if isinstance(given, str):
        return ScoredPrompt(given, request.target, request.target_true)
    if isinstance(given, Mapping) and "prompt" in given and set(given) <= _FIELDS:
        own = {"target": request.target, "target_true": request.target_true}
        return ScoredPrompt(**(given if set(given) & set(own) else {**own, **given}))
    raise PromptError(f"{type(given).__name__} {given!r:.60} is no prompt")


def _texts(case: EditCase, name: str, problems: list[str]) -> tuple[str, ...]:
    texts = _listed(case, name, problems)
    wrong = [n for n, text in enumerate(texts) if not isinstance(text, str) or not text.strip()]
    if wrong:
        problems.append(f"{name} #{', #'.join(map(str, wrong))} is blank or no text")
    return tuple(texts)
