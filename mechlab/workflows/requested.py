"""What is to be edited, in whatever form a user has it, as cases that measure the edit."""

from collections.abc import Sequence
from typing import Any

from mechlab.errors import PromptError
from mechlab.prompts import EditCase, EditRequest, Fact, PromptSet
from mechlab.prompts.edit_cases import edit_cases

__all__ = ["as_edit_cases"]


def as_edit_cases(
    what: object,
    new_object: str | Sequence[str] | None = None,
    *,
    neighbours: int = 10,
    seed: int = 0,
) -> PromptSet[EditCase]:
    """Return edit cases for facts, requests or cases: what the editing workflows are handed.

        ml.as_edit_cases(ml.prompts.Fact("The capital of Poland is", "Poland", "Warsaw"), "London")

    A case is taken as it is. A request about a country of the table becomes the case that
    `ml.prompts.edit_cases` builds; any other one a case of its own prompt alone, so that only its
    efficacy is measured.

    Args:
        what: a `Fact`, `EditRequest` or `EditCase`, or several of them.
        new_object: for facts the object to write, one for each; not for requests and cases, which
            name theirs.
        neighbours: as in `ml.prompts.edit_cases`.
        seed: as there.

    Raises:
        PromptError: something else, a missing or superfluous object; all offenders at once.
    """
    single = isinstance(what, Fact | EditRequest | EditCase)
    if not single and (isinstance(what, str) or not isinstance(what, Sequence) or not what):
        raise PromptError(
            f"what is edited is {type(what).__name__} {what!r:.60}.\n"
            "  Allowed: a Fact, an EditRequest, an EditCase, or a list of them.\n"
            '  Make ml.EditRequest("The capital of {} is", "Poland", "London").'
        )
    given: list[Any] = [what] if single else list(what)  # type: ignore[call-overload]
    objects = _objects(given, new_object)
    found, bad = [], []
    for index, (one, new) in enumerate(zip(given, objects, strict=True)):
        try:
            found.append(_case(one, new, neighbours, seed))
        except PromptError as err:
            bad.append(f"  #{index} {str(err).splitlines()[0]}")
    if bad:
        raise PromptError(
            f"{len(bad)} of {len(given)} cannot be edited:\n" + "\n".join(bad) + "\n"
            "  Allowed: facts with a new object, requests, cases.\n  Correct those named."
        )
    return PromptSet(tuple(found), getattr(what, "name", "") or "edits")


def _objects(given: Sequence[Any], new_object: str | Sequence[str] | None) -> list[str | None]:
    """Return the new object for each."""
    if new_object is None or isinstance(new_object, str):
        return [new_object] * len(given)
    objects: list[str | None] = list(new_object)
    if len(objects) != len(given):
        raise PromptError(
            f"{len(objects)} new objects for {len(given)} facts.\n  Allowed: one for each.\n"
            "  Give as many, or one text for all."
        )
    return objects


def _case(one: object, new: str | None, neighbours: int, seed: int) -> EditCase:
    if isinstance(one, Fact):
        if new is None:
            raise PromptError(f"the fact {one.prompt!r:.60} has no new object")
        one, new = _request(one, new), None
    if new is not None:
        raise PromptError(f"{type(one).__name__} names its own object, not {new!r:.40}")
    if isinstance(one, EditCase):
        return one
    if not isinstance(one, EditRequest):
        raise PromptError(f"{type(one).__name__} {one!r:.60} is no fact, request or case")
    try:
        return edit_cases(one, neighbours=neighbours, seed=seed)[0]
    except PromptError:
        return EditCase(one)


def _request(fact: Fact, new: str) -> EditRequest:
    start, end = fact.subject_span
    template = f"{fact.prompt[:start]}{{}}{fact.prompt[end:]}"
    return EditRequest(template, fact.subject, new, fact.target)
