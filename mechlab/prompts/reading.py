"""Read facts and pairs from CSV, TSV, JSON and JSON-lines files.

Accepted columns, in order of preference; case does not matter, other columns are ignored:

    facts   prompt     prompt, text, question; or `template` with {} where the subject stands
            subject    subject, entity, sub_label
            target     target, attribute, answer, object, target_true, obj_label
            label      label (may be absent)
    pairs   clean           clean, clean_prompt, prompt
            corrupted       corrupted, corrupted_prompt, corrupt, counterfactual
            answer          answer, correct, clean_answer, target
            wrong_answer    wrong_answer, incorrect, wrong, corrupted_answer
            label           label (may be absent)

A prompt that holds {} is taken as a template. Files are UTF-8, with or without a byte-order mark.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mechlab.errors import PromptError
from mechlab.prompts.edit_kind import EditCase
from mechlab.prompts.kinds import Fact, PromptPair
from mechlab.prompts.records import Record, read_records
from mechlab.prompts.sets import PromptSet

__all__ = [
    "FACT_COLUMNS",
    "PAIR_COLUMNS",
    "accepted_names",
    "check_columns",
    "collect",
    "fill_template",
    "held_fields",
    "read_facts",
    "read_pairs",
]

FACT_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "text", "question"),
    "template": ("template",),
    "subject": ("subject", "entity", "sub_label"),
    "target": ("target", "attribute", "answer", "object", "target_true", "obj_label"),
    "label": ("label",),
}
"""Columns that `read_facts` accepts for each field, preferred ones first."""

PAIR_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "clean": ("clean", "clean_prompt", "prompt"),
    "corrupted": ("corrupted", "corrupted_prompt", "corrupt", "counterfactual"),
    "answer": ("answer", "correct", "clean_answer", "target"),
    "wrong_answer": ("wrong_answer", "incorrect", "wrong", "corrupted_answer"),
    "label": ("label",),
}
"""Columns that `read_pairs` accepts for each field, preferred ones first."""

_LISTED = 50
"""So many bad rows are listed with their reason, the rest by line number only."""

P = TypeVar("P", Fact, PromptPair, EditCase)


def read_facts(
    path: str | os.PathLike[str],
    *,
    template: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> PromptSet[Fact]:
    """Read facts; `mechlab.prompts.reading` lists the accepted columns.

    Args:
        path: a .csv, .tsv, .json, .jsonl or .ndjson file.
        template: text with {} where the subject stands, for rows without prompt and template.
        columns: names of the file's own columns by field, e.g. `{"subject": "country"}`.

    Raises:
        PromptError: when the file cannot be read, or listing all bad rows with their line numbers.
    """
    accepted = accepted_names(FACT_COLUMNS, columns)
    needed = ("subject", "target") if template else ("prompt", "subject", "target")

    def fact(fields: dict[str, Any]) -> Fact:
        return _fact(fields, template)

    return _read(Path(path), accepted, needed, {"prompt": "template"}, fact)


def read_pairs(
    path: str | os.PathLike[str], *, columns: Mapping[str, str] | None = None
) -> PromptSet[PromptPair]:
    """Read prompt pairs; `mechlab.prompts.reading` lists the accepted columns.

    Args:
        path: a .csv, .tsv, .json, .jsonl or .ndjson file.
        columns: names of the file's own columns by field, e.g. `{"corrupted": "abc"}`.

    Raises:
        PromptError: when the file cannot be read, or listing all bad rows with their line numbers.
    """
    accepted = accepted_names(PAIR_COLUMNS, columns)
    needed = ("clean", "corrupted", "answer", "wrong_answer")
    return _read(Path(path), accepted, needed, {}, lambda fields: PromptPair(**fields))


def _read(
    path: Path,
    accepted: Mapping[str, tuple[str, ...]],
    needed: tuple[str, ...],
    instead: Mapping[str, str],
    make: Callable[[dict[str, Any]], P],
) -> PromptSet[P]:
    records = read_records(path)
    check_columns(path, records, accepted, needed, instead)

    def prompt(record: Record) -> P:
        fields = held_fields(record, accepted)
        missing = [n for n in needed if n not in fields and instead.get(n) not in fields]
        if missing:
            raise PromptError(f"no {' and no '.join(missing)}")
        return make(fields)

    return collect(path, records, prompt)


def collect(path: Path, records: Sequence[Record], make: Callable[[Record], P]) -> PromptSet[P]:
    """Make a prompt of every record.

    Args:
        path: the file they are from.
        records: its records.
        make: what makes one; it raises `PromptError` for a bad one.

    Raises:
        PromptError: listing all bad records with their line numbers and the first line of why.
    """
    good: list[P] = []
    bad: list[tuple[int, str]] = []
    for record in records:
        try:
            if record.problem:
                raise PromptError(record.problem)
            good.append(make(record))
        except PromptError as err:
            bad.append((record.line, str(err).splitlines()[0]))
    if bad:
        raise PromptError(_report(path, len(records), bad))
    return PromptSet(tuple(good), path.stem)


def _fact(fields: dict[str, Any], template: str | None) -> Fact:
    pattern = fields.pop("template", template)
    prompt = fields.pop("prompt", None)
    if isinstance(prompt, str) and "{}" in prompt:
        pattern, prompt = prompt, None
    if prompt is not None:
        return Fact(prompt, **fields)
    return fill_template(pattern, **fields)


def fill_template(template: object, subject: object, **fields: Any) -> Fact:
    """Return the fact that puts `subject` where `template` has {}.

    Raises:
        PromptError: when the template does not hold exactly one {}, or the fact is refused.
    """
    if not isinstance(template, str) or template.count("{}") != 1:
        raise PromptError(
            f"template {template!r} does not hold {{}} exactly once.\n"
            "  Write {} where the subject stands."
        )
    prompt, start = template.replace("{}", str(subject)), template.index("{}")
    first = prompt.find(str(subject)) == start
    return Fact(prompt, subject, subject_start=None if first else start, **fields)  # type: ignore[arg-type]


def accepted_names(
    table: Mapping[str, tuple[str, ...]], columns: Mapping[str, str] | None
) -> Mapping[str, tuple[str, ...]]:
    """Return the column names accepted for each field, the user's own instead of the table's.

    Raises:
        PromptError: when `columns` names a field that there is not.
    """
    columns = columns or {}
    if unknown := sorted(set(columns) - set(table)):
        raise PromptError(
            f"columns= names unknown fields: {', '.join(unknown)}.\n"
            f"  Allowed: {', '.join(table)}.\n  Write field=column of the file."
        )
    return {n: (columns[n].casefold(),) if n in columns else names for n, names in table.items()}


def held_fields(record: Record, accepted: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the accepted fields of a record that hold anything."""
    values = {str(name).strip().casefold(): value for name, value in record.fields.items()}
    found = {
        field: next((values[n] for n in names if values.get(n) not in (None, "")), None)
        for field, names in accepted.items()
    }
    return {field: value for field, value in found.items() if value is not None}


def check_columns(
    path: Path,
    records: list[Record],
    accepted: Mapping[str, tuple[str, ...]],
    needed: tuple[str, ...],
    instead: Mapping[str, str],
) -> None:
    """Refuse a file that lacks a column altogether, naming those that it has.

    Args:
        path: the file.
        records: its records.
        accepted: column names accepted for each field.
        needed: fields that must have a column.
        instead: another field that may stand for one.

    Raises:
        PromptError: naming every field without a column.
    """
    there = {str(name).strip().casefold(): name for record in records for name in record.fields}
    choices = {n: (*accepted[n], *accepted.get(instead.get(n, ""), ())) for n in needed}
    missing = [n for n, names in choices.items() if there and not there.keys() & set(names)]
    if missing:
        lines = [f"  {n}: {', '.join(choices[n])}" for n in missing]
        raise PromptError(
            f"{path} has no column for {' and '.join(missing)}; "
            f"it has {', '.join(map(repr, there.values()))}. Accepted:\n"
            + "\n".join(lines)
            + "\n  Rename the columns, or name them with columns={field: column}."
        )


def _report(path: Path, count: int, bad: list[tuple[int, str]]) -> str:
    lines = [f"  line {line}: {reason}" for line, reason in bad[:_LISTED]]
    if rest := bad[_LISTED:]:
        lines.append(f"  and line {', '.join(str(line) for line, _ in rest)}")
    head = f"{len(bad)} of {count} rows of {path} cannot be used:"
    return "\n".join([head, *lines, "  Correct or remove these rows; nothing was read."])
