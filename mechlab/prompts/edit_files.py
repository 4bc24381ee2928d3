"""Read edit cases: CounterFact, zsRE as ROME uses it, and files of one's own.

Own files (.json, .jsonl, .ndjson, .csv, .tsv) have one case per row; case of names does not matter,
other columns are ignored:

    template            prompt, text, question, template: with {}, or with the subject itself
    subject             subject, entity
    target              target, target_new, new, new_object
    target_true         target_true, true, old_object, answer      (may be absent)
    paraphrases         paraphrases, paraphrase_prompts, rephrase  (this and the rest too)
    neighbourhood       neighbourhood, neighborhood, neighborhood_prompts
    other_relations, languages, two_hop
    generation_prompts, reference_texts, label

The prompts of a case are a list of texts, or of objects with prompt, target, target_true and about
in JSON; in a table, texts separated by " | ". A plain text is compared with the request's objects.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mechlab.errors import PromptError
from mechlab.prompts.drawing import chosen
from mechlab.prompts.edit_kind import EditCase, ScoredPrompt
from mechlab.prompts.edits import EditRequest
from mechlab.prompts.reading import accepted_names, check_columns, collect, held_fields
from mechlab.prompts.records import Record, read_records
from mechlab.prompts.sets import PromptSet

__all__ = ["EDIT_COLUMNS", "read_counterfact", "read_edit_cases", "read_zsre"]

File = str | os.PathLike[str]

EDIT_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "template": ("prompt", "text", "question", "template"),
    "subject": ("subject", "entity"),
    "target": ("target", "target_new", "new", "new_object"),
    "target_true": ("target_true", "true", "old_object", "answer"),
    "paraphrases": ("paraphrases", "paraphrase_prompts", "rephrase"),
    "neighbourhood": ("neighbourhood", "neighborhood", "neighborhood_prompts"),
    "other_relations": ("other_relations",),
    "languages": ("languages",),
    "two_hop": ("two_hop",),
    "generation_prompts": ("generation_prompts",),
    "reference_texts": ("reference_texts",),
    "label": ("label",),
}
"""Columns that `read_edit_cases` accepts for each field, preferred ones first."""


def read_counterfact(path: File, *, snippets: File | None = None) -> PromptSet[Any]:
    """Read CounterFact (Meng et al. 2022; `counterfact.json` and `multi_counterfact.json`).

    Neighbourhood prompts are about other subjects with the same old object and are compared with
    the request's objects. `attribute_prompts` (other subjects that have the new object) are left
    out: no published measure is made of them.

    Args:
        path: the file.
        snippets: `attribute_snippets.json`, whose texts about subjects with the new object become
            the reference texts; without it there is no consistency to measure.

    Raises:
        PromptError: when a file cannot be read, or listing all bad rows with their line numbers.
    """
    texts = {} if snippets is None else _snippets(Path(snippets))

    def case(record: Record) -> EditCase:
        rewrite = record.fields.get("requested_rewrite")
        if not isinstance(rewrite, dict):
            raise PromptError("no object under requested_rewrite")
        given: dict[str, Any] = rewrite
        request = EditRequest(
            given.get("prompt"),  # type: ignore[arg-type]
            given.get("subject"),  # type: ignore[arg-type]
            _str(given.get("target_new"), "target_new"),
            _str(given.get("target_true"), "target_true"),
        )
        references: Sequence[str] = ()
        if snippets is not None:
            key = given.get("relation_id"), given["target_new"].get("id")
            if not (references := texts.get(key, ())):
                raise PromptError(
                    f"{snippets} has no text of relation {key[0]} and object {key[1]}"
                )
        return EditCase(
            request,
            paraphrases=record.fields.get("paraphrase_prompts", ()),  # type: ignore[arg-type]
            neighbourhood=record.fields.get("neighborhood_prompts", ()),  # type: ignore[arg-type]
            generation_prompts=record.fields.get("generation_prompts", ()),  # type: ignore[arg-type]
            reference_texts=tuple(references),
        )

    return collect(Path(path), read_records(Path(path)), case)


def read_zsre(path: File, *, target: Literal["answers", "alt"] = "answers") -> PromptSet[Any]:
    """Read zsRE questions as the code of ROME uses them (`zsre_mend_eval.json`).

    The subject's first occurrence in `src` is where the request has it. `loc` with a question mark
    is the one neighbourhood prompt, `loc_ans` its object. There is no old object, so evaluate with
    `protocol="zsre"` or `"exact"`.

    Args:
        path: the file.
        target: what is written: the first of `answers` (ROME, MEMIT), or `alt`, a wrong answer.

    Raises:
        PromptError: when the file cannot be read, or listing all bad rows with their line numbers.
    """
    chosen("target", [target], ("answers", "alt"))

    def case(record: Record) -> EditCase:
        given = record.fields
        answers = given.get("answers")
        if target == "answers" and not (isinstance(answers, list) and answers):
            raise PromptError("no list under answers")
        new = answers[0] if target == "answers" else given.get("alt")  # type: ignore[index]
        request = _request(given.get("src"), given.get("subject"), new, "")
        names = ("rephrase", "loc", "loc_ans")
        rephrase, loc, loc_ans = (_text(given.get(name), name) for name in names)
        near = ScoredPrompt(f"{loc}?", target_true=loc_ans)
        return EditCase(request, paraphrases=(rephrase,), neighbourhood=(near,))  # type: ignore[arg-type]

    return collect(Path(path), read_records(Path(path)), case)


def read_edit_cases(path: File, *, columns: Mapping[str, str] | None = None) -> PromptSet[Any]:
    """Read edit cases; `mechlab.prompts.edit_files` says what a file may hold.

    Args:
        path: a .csv, .tsv, .json, .jsonl or .ndjson file.
        columns: names of the file's own columns by field, e.g. `{"subject": "country"}`.

    Raises:
        PromptError: when the file cannot be read, or listing all bad rows with their line numbers.
    """
    path = Path(path)
    accepted = accepted_names(EDIT_COLUMNS, columns)
    records = read_records(path)
    needed = ("template", "subject", "target")
    check_columns(path, records, accepted, needed, {})
    table = path.suffix.lower() in (".csv", ".tsv")

    def case(record: Record) -> EditCase:
        fields = held_fields(record, accepted)
        if missing := [name for name in needed if name not in fields]:
            raise PromptError(f"no {' and no '.join(missing)}")
        template, subject, target = (fields.pop(name) for name in needed)
        request = _request(template, subject, target, fields.pop("target_true", ""))
        for name, value in fields.items():
            if name != "label" and isinstance(value, str):
                parts = value.split(" | ") if table else [value]
                fields[name] = [part.strip() for part in parts]
        return EditCase(request, **fields)

    return collect(path, records, case)


def _request(template: Any, subject: Any, target: Any, target_true: Any) -> EditRequest:
    """Return a request whose template may have the subject itself in place of {}."""
    if isinstance(template, str) and "{}" not in template:
        subject = _text(subject, "subject")
        if subject not in template:
            raise PromptError(f"subject {subject!r:.60} does not occur in {template!r:.60}")
        template = template.replace(subject, "{}", 1)
    return EditRequest(template, subject, target, target_true)


def _snippets(path: Path) -> Mapping[tuple[object, object], list[str]]:
    """Return the texts of each relation and object."""
    found = defaultdict[tuple[object, object], list[str]](list)
    bad = []
    for record in read_records(path):
        samples = record.fields.get("samples")
        texts = [s.get("text") if isinstance(s, dict) else None for s in samples] if isinstance(
            samples, list) else [None]  # fmt: skip
        if record.problem or not all(isinstance(text, str) and text.strip() for text in texts):
            bad.append(f"  line {record.line}: {record.problem or 'no texts under samples'}")
            continue
        key = record.fields.get("relation_id"), record.fields.get("target_id")
        found[key] += [str(text) for text in texts]
    if bad:
        raise PromptError(
            f"{len(bad)} rows of {path} cannot be used:\n"
            + "\n".join(bad[:50])
            + "\n  Correct or remove these rows; nothing was read."
        )
    return found


def _str(value: object, name: str) -> str:
    return _text(value.get("str") if isinstance(value, dict) else None, f"{name}.str")


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise PromptError(f"no text under {name}")
    return value
