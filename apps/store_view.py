"""The store as a table: rows, filters, sizes. No Streamlit, and no torch, here."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import mechlab as ml

__all__ = ["filtered", "mechlab_version", "megabytes", "newest_versions", "older", "rows"]

_NOTHING_SAID: Mapping[str, Any] = {}


def filtered(
    records: Iterable[Any],
    *,
    kind: str | None = None,
    model: str | None = None,
    tag: str | None = None,
    text: str = "",
    remarks: Mapping[str, Any] = _NOTHING_SAID,
) -> list[Any]:
    """Return the records that fit: of one method, one model, with a tag, with all words of `text`.

    Words are looked for in run id, prompts, options, names, tags and notes, whatever their case.
    """
    words = text.lower().split()
    return [
        record
        for record in records
        if (not kind or record.method == kind)
        and (not model or record.model_name == model)
        and (not tag or tag in _tags(record, remarks))
        and all(word in _searched(record, remarks) for word in words)
    ]


def rows(
    records: Sequence[Any],
    newest: Mapping[str, int],
    remarks: Mapping[str, Any] = _NOTHING_SAID,
) -> list[dict[str, Any]]:
    """Return one row of the table per record.

    Args:
        records: what to list.
        newest: for each method the highest version known; see `older`.
        remarks: what is said of runs, by key.
    """
    return [
        {
            "run": record.id,
            "kind": record.method.replace("_", " "),
            "model": record.model_name,
            "prompts": _prompts(record),
            "tags": " ".join(_tags(record, remarks)),
            "note": _note(record, remarks),
            "created": record.when,
            "seconds": round(record.wall_seconds, 1),
            "kB": math.ceil(record.size / 1000),
            "state": "older code" if older(record, newest) else "done",
            "code": f"v{record.method_version} · {mechlab_version(record)}",
        }
        for record in records
    ]


def older(record: Any, newest: Mapping[str, int]) -> bool:
    """Return whether an older version of the method or of mechlab computed this."""
    if record.method_version < newest.get(record.method, 0):
        return True
    return mechlab_version(record) not in ("", ml.__version__)


def newest_versions(records: Iterable[Any]) -> dict[str, int]:
    """Return the highest version of every method among the records."""
    found: dict[str, int] = {}
    for record in records:
        found[record.method] = max(found.get(record.method, 0), record.method_version)
    return found


def mechlab_version(record: Any) -> str:
    """Return the version of mechlab that computed a result; empty when it does not say."""
    try:
        return str(json.loads(record.provenance.get("versions", "{}")).get("mechlab", ""))
    except (ValueError, TypeError, AttributeError):
        return ""


def megabytes(size: int) -> str:
    """Write a size as `8 kB`, `0.4 MB` or `412 MB`."""
    if size < 1e5:
        return f"{math.ceil(size / 1000)} kB"
    return f"{size / 1e6:.1f} MB" if size < 9.95e6 else f"{size / 1e6:.0f} MB"


def _prompts(record: Any) -> str:
    if not record.labels:
        return str(record.name)
    more = f" and {len(record.labels) - 1} more" if len(record.labels) > 1 else ""
    return f"{record.labels[0]}{more}"


def _tags(record: Any, remarks: Mapping[str, Any]) -> tuple[str, ...]:
    said = remarks.get(record.key)
    return () if said is None else said.tags


def _note(record: Any, remarks: Mapping[str, Any]) -> str:
    said = remarks.get(record.key)
    return "" if said is None else ml.plots.show_text(said.note, longest=120)


def _searched(record: Any, remarks: Mapping[str, Any]) -> str:
    parts = (record.id, record.method, record.model_name, record.name, *record.labels)
    said = remarks.get(record.key)
    more = () if said is None else (*said.tags, said.note)
    return " ".join((*parts, *more, json.dumps(dict(record.options), default=str))).lower()
