"""What an edit is asked for: one typed request, requests of a file, drawn ones; and their cases."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechlab.errors import OptionError, PromptError

if TYPE_CHECKING:
    from mechlab.prompts import EditCase, EditRequest, PromptSet

__all__ = ["EXAMPLE", "chosen_cases", "drawn_cases", "read_cases", "typed_request"]

EXAMPLE = ("The capital of {} is", "Poland", "London")
"""Prompt, subject and new object when none are named."""

FORMATS = ("auto", "counterfact", "zsre", "cases")
"""What `--format` takes."""


def typed_request(
    prompt: str | None, subject: str | None, target: str | None, target_true: str | None
) -> "EditRequest":
    """Return the request that was typed; `EXAMPLE` fills in what was left out of it.

    The prompt holds `{}` where the subject stands, or the subject itself.

    Raises:
        OptionError: a prompt of one's own without a subject or target, or one in which the subject
            does not occur.
        PromptError: an unusable request.
    """
    from mechlab.prompts import EditRequest

    template, name, new = (given or usual for given, usual in
                           zip((prompt, subject, target), EXAMPLE, strict=True))  # fmt: skip
    missing = [
        option for option, value in (("--subject", subject), ("--target", target)) if value is None
    ]
    if prompt is not None and missing:
        raise OptionError(
            f"--prompt without {' and '.join(missing)}. An edit is given as --prompt, --subject "
            "and --target, e.g. --prompt 'The capital of {} is' --subject Poland --target London. "
            "Add what is missing."
        )
    if "{}" not in template:
        if name not in template:
            raise OptionError(
                f"--subject {name!r} does not occur in --prompt {template!r}. Allowed: a prompt "
                "with {} or the subject itself where the subject stands. Correct one of them."
            )
        template = template.replace(name, "{}", 1)
    return EditRequest(template, name, new, target_true or "")


def drawn_cases(
    count: int, seed: int, relations: Sequence[str] | None, neighbours: int = 10
) -> "PromptSet[Any]":
    """Return cases of random requests to edit the project's countries."""
    from mechlab import prompts

    chosen = tuple(relations) if relations else ("capital",)
    return prompts.edit_cases(
        prompts.world_edits(count, seed, relations=chosen), neighbours=neighbours
    )


def chosen_cases(requests: "Sequence[EditRequest]") -> "PromptSet[Any]":
    """Return the cases that the country table has of requests, bare ones of those it has not."""
    from mechlab import prompts

    return prompts.as_prompt_set([_case(request) for request in requests], kind="edit")


def read_cases(path: Path, form: str = "auto", count: int | None = None) -> "PromptSet[Any]":
    """Return the cases of a file, the first `count` of them.

    Cases of own files that say nothing but what to edit are looked up in the country table.

    Args:
        path: CounterFact, zsRE, or a file of own cases.
        form: one of `FORMATS`.
        count: how many; `None` for all.

    Raises:
        OptionError: an unknown format, or more cases than there are.
        PromptError: when the file cannot be read, or listing all bad rows.
    """
    from mechlab import prompts

    if form not in FORMATS:
        raise OptionError(
            f"--format {form!r} is unknown. Allowed: {', '.join(FORMATS)}. Use one of them."
        )
    form = _format_of(path) if form == "auto" else form
    if form == "counterfact":
        cases = prompts.read_counterfact(path)
    elif form == "zsre":
        cases = prompts.read_zsre(path)
    else:
        own = prompts.read_edit_cases(path)
        cases = prompts.as_prompt_set([_enriched(case) for case in own], kind="edit")
    if count is None:
        return cases
    if not 1 <= count <= len(cases):
        raise OptionError(
            f"--count {count} of {path.name}. Allowed: 1 to {len(cases)}, the number of its cases. "
            "Correct it, or leave it out for all."
        )
    return prompts.as_prompt_set(list(cases)[:count], kind="edit")


def _format_of(path: Path) -> str:
    """Return what a file holds, from the keys of its first row."""
    from mechlab.prompts.records import read_records

    first: Mapping[str, object] = read_records(path)[0].fields
    if "requested_rewrite" in first:
        return "counterfact"
    return "zsre" if {"src", "loc", "alt"} <= set(first) else "cases"


def _case(request: "EditRequest") -> "EditCase":
    from mechlab import prompts

    try:
        (case,) = prompts.edit_cases(request)
    except PromptError:
        if _is_of_the_table(request):  # so the request itself cannot be used
            raise
        return prompts.EditCase(request, generation_prompts=(request.prompt,))
    found: EditCase = case
    return found


def _is_of_the_table(request: "EditRequest") -> bool:
    """Return whether the country table knows the subject and the relation of a request."""
    from mechlab import prompts

    try:
        prompts.edit_cases(replace(request, target="something else"))
    except PromptError:
        return False
    return True


def _enriched(case: "EditCase") -> "EditCase":
    bare = {"kind", "request", "label"} >= set(case.to_json())
    return _case(case.request) if bare else case
