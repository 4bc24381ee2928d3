"""Records of a CSV, TSV, JSON or JSON-lines file, each with the line it starts on.

Anything a file can get wrong becomes a `PromptError` that names the file: it is missing, too large,
not UTF-8, of an unknown kind, empty, or not well-formed.
"""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from mechlab.errors import PromptError

__all__ = ["MAX_BYTES", "Record", "read_list", "read_object", "read_records"]

MAX_BYTES = 64 * 2**20
"""Largest file that is read; prompt sets are text, and larger files are mistakes."""

_NAMES = ("facts", "pairs", "prompts", "samples")
_LISTS = re.compile(rf'(?<!\\)"(?:{"|".join(_NAMES)})"\s*:\s*(?=\[)')
_SPACE = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class Record:
    """One row, or why it could not be read."""

    line: int
    """Line of the file on which it starts, from 1."""
    fields: dict[str, object]
    """Column names as written in the file, and values."""
    problem: str = ""
    """Empty, or what is wrong with the row as such."""


def read_records(path: Path) -> list[Record]:
    """Return the records of a file in order.

    JSON holds a list of objects, or an object with such a list under `facts`, `pairs`, `prompts` or
    `samples`; in the second case the object's `prompt_templates` give each record its `template`.

    Raises:
        PromptError: when the file cannot be read at all; rows that cannot be read are returned with
            their problem.
    """
    readers = {".csv": _csv, ".tsv": _csv, ".json": _json, ".jsonl": _jsonl, ".ndjson": _jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise PromptError(
            f"{path} has the unknown extension {path.suffix!r}.\n"
            f"  Allowed: {', '.join(readers)}.\n  Rename or convert the file."
        )
    text = _text(path)
    try:
        records = list(reader(text, path))
    except RecursionError as err:
        raise PromptError(f"{path} is nested too deeply to be a list of prompts.") from err
    if not records:
        raise PromptError(
            f"{path} holds no prompts.\n  Expected one per row.\n  Check that it is the right file."
        )
    return records


def read_list(path: Path) -> list[str]:
    """Return a JSON list of texts.

    Raises:
        PromptError: when the file cannot be read or holds anything else.
    """
    found = _whole(path)
    if not isinstance(found, list) or not found or not all(isinstance(t, str) and t for t in found):
        raise PromptError(
            f"{path} does not hold a JSON list of texts.\n  Check that it is the right file."
        )
    return found


def read_object(path: Path) -> dict[str, object]:
    """Return a JSON object.

    Raises:
        PromptError: when the file cannot be read or holds anything else.
    """
    found = _whole(path)
    if not isinstance(found, dict):
        raise PromptError(
            f"{path} holds a JSON {type(found).__name__}, not an object.\n"
            "  Check that it is the right file."
        )
    return found


def _whole(path: Path) -> object:
    try:
        return _parsed(_text(path), path)
    except RecursionError as err:
        raise PromptError(f"{path} is nested too deeply to be a list of prompts.") from err


def _parsed(text: str, path: Path) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as err:
        raise PromptError(
            f"{path} is not JSON: {err.msg} at line {err.lineno}, character {err.colno}.\n"
            "  Correct it there."
        ) from err


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise PromptError(f"{path} is not there, or not a file.\n  Check the path.")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise PromptError(
                f"{path} has {size / 2**20:.0f} MiB.\n"
                f"  Allowed: up to {MAX_BYTES // 2**20} MiB.\n  Cut it into several files."
            )
        data = path.read_bytes()
    except OSError as err:
        raise PromptError(f"{path} cannot be read: {err.strerror}.\n  Check the path.") from err
    try:
        return data.decode("utf-8-sig")  # some spreadsheets write a byte-order mark
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise PromptError(
            f"{path} is not UTF-8: line {line} holds the byte 0x{data[err.start]:02x}.\n"
            "  Save it as UTF-8."
        ) from err


def _csv(text: str, path: Path) -> Iterator[Record]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    rows = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for row in rows:
            if header is None:
                header = row
            elif row:  # a blank line is no row
                yield _row(line, header, row)
            line = rows.line_num + 1
    except csv.Error as err:
        raise PromptError(
            f"{path} is not well-formed CSV near line {max(line, rows.line_num)}: {err}.\n"
            "  Quote texts that hold quotes, commas or line breaks."
        ) from err


def _row(line: int, header: list[str], row: list[str]) -> Record:
    problem = "" if len(row) == len(header) else f"{len(row)} fields under {len(header)} columns"
    return Record(line, dict(zip(header, row, strict=False)), problem)


def _jsonl(text: str, path: Path) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield _object(number, json.loads(line), None)
            except json.JSONDecodeError as err:
                yield Record(number, {}, f"not JSON ({err.msg} at character {err.colno})")


def _json(text: str, path: Path) -> Iterator[Record]:
    if not text.strip():
        return
    whole = _parsed(text, path)
    start, template = _list_start(text, whole, path)
    decoder, line, seen = json.JSONDecoder(), 1, 0
    place = _SPACE.match(text, start + 1).end()  # type: ignore[union-attr]
    while text[place] != "]":  # the whole is known to be well-formed
        line, seen = line + text.count("\n", seen, place), place
        value, place = decoder.raw_decode(text, place)
        yield _object(line, value, template)
        place = _SPACE.match(text, place).end()  # type: ignore[union-attr]


def _list_start(text: str, whole: object, path: Path) -> tuple[int, str | None]:
    if isinstance(whole, list):
        return text.find("["), None
    named = isinstance(whole, dict) and any(isinstance(whole.get(n), list) for n in _NAMES)
    if isinstance(whole, dict) and named and (found := _LISTS.search(text)):
        templates = whole.get("prompt_templates")
        first = templates[0] if isinstance(templates, list) and templates else None
        return found.end(), first if isinstance(first, str) else None
    raise PromptError(
        f"{path} holds a JSON {type(whole).__name__}.\n"
        "  Allowed: a list of objects, or an object with such a list under 'facts', 'pairs', "
        "'prompts' or 'samples'.\n  Write one object per prompt."
    )


def _object(line: int, value: object, template: str | None) -> Record:
    if not isinstance(value, dict):
        return Record(line, {}, f"a JSON {type(value).__name__}, not an object")
    return Record(line, value if template is None else {"template": template, **value})
