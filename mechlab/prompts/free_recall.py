"""Free recall: what was studied and what was recalled, from a long-format CSV or from lists.

The file has one row per studied and per recalled item, in the columns of psifr:

    subject      who; any text
    list         which list; any text, one per list of a subject
    trial_type   study or recall
    position     place in the study list, respectively in the recalls, from 1
    item         the word; an item that was not on this list is an intrusion

Case of column names does not matter; a column `session` tells lists of equal name apart, and all
others are ignored.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mechlab.errors import PromptError
from mechlab.prompts.records import Record, read_records

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_free_recall", "recall_sequences"]

_COLUMNS = ("subject", "list", "trial_type", "position", "item")
_LISTED = 20
"""So many problems are told in full, the others counted."""


@dataclass
class _List:
    studied: dict[int, str] = field(default_factory=dict)
    recalled: dict[int, str] = field(default_factory=dict)


_Lists = dict[tuple[str, str, str], _List]


def read_free_recall(
    path: str | os.PathLike[str], *, list_length: int | None = None
) -> "xr.DataArray":
    """Read a free-recall experiment from a file in psifr's long format.

    Items are compared letter by letter. Study lists must have one length, as every measure by
    position or lag needs; `list_length` picks the lists of one length from a file with several.

    Args:
        path: a .csv or .tsv file; `mechlab.prompts.free_recall` tells its columns.
        list_length: take only lists of so many items.

    Returns:
        Recall sequences in the form of `recall_sequences`, one subject after another as in the
        file; `name` along `list` is what the file calls it.

    Raises:
        PromptError: when the file cannot be read, or naming all rows and lists that are wrong: of
            an unknown trial type, without a position, with a place filled twice or left out, with
            an item studied twice, recalled but never studied, or of another length.
    """
    path = Path(path)
    records = read_records(path)
    lists, problems = _collected(path, records)
    problems += [f"{_told(key)}: {text}" for key, one in lists.items() for text in _faults(one)]
    if not problems and list_length is not None:
        lists = {key: one for key, one in lists.items() if len(one.studied) == list_length}
        problems += [] if lists else [f"no list has {list_length} items"]
    if not problems:
        problems += _other_lengths(lists)
    if problems:
        more = f"\n    and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise PromptError(
            f"{path} is no free-recall experiment of one list length:\n    "
            + "\n    ".join(problems[:_LISTED])
            + f"{more}\n  Expected one row per studied and per recalled item, with the columns "
            f"{', '.join(_COLUMNS)}.\n  Correct these rows, or pick lists with list_length=."
        )
    length = len(next(iter(lists.values())).studied)
    made = recall_sequences(
        [_serial(one) for one in lists.values()],
        list_length=length,
        subjects=[key[0] for key in lists],
    )
    names = [" ".join(filter(None, key[1:])) for key in lists]
    return made.assign_coords(name=("list", names)).assign_attrs(file=path.name)


def recall_sequences(
    recalls: Sequence[Sequence[int]],
    *,
    list_length: int,
    subjects: Sequence[object] | None = None,
) -> "xr.DataArray":
    """Return recalls as the array that the measures of free recall take.

    Args:
        recalls: for each list the serial positions recalled, in the order of recall, from 1; 0 is
            an item that was not on the list. What is recalled again is written again.
        list_length: number of items studied.
        subjects: whose list it is, one entry per list; by default all are of one subject.

    Returns:
        Whole numbers `[list, output_position]`, -1 after the last recall, with the coordinates
        `subject` (text) along `list` and `output_position` from 1, and the attribute `list_length`.

    Raises:
        PromptError: naming all lists with entries that are no serial positions, or when there are
            no lists, no items, or not one subject per list.
    """
    import xarray as xr

    rows = [list(row) for row in recalls]
    problems = [
        f"list {number}: {bad}"
        for number, row in enumerate(rows)
        if (bad := [value for value in row if not _is_position(value, list_length)])
    ]
    if not rows or list_length < 1:
        problems.append(f"{len(rows)} lists of {list_length} items")
    if subjects is not None and len(subjects) != len(rows):
        problems.append(f"{len(subjects)} subjects for {len(rows)} lists")
    if problems:
        raise PromptError(
            f"these are no recall sequences: {'; '.join(problems[:_LISTED])}"
            f"{f' and {len(problems) - _LISTED} more' if len(problems) > _LISTED else ''}.\n"
            f"  Allowed: serial positions from 1 to {list_length}, and 0 for an intrusion.\n"
            "  Correct them."
        )
    values = np.full((len(rows), max(1, *map(len, rows), 1)), -1)
    for row, recalled in zip(values, rows, strict=True):
        row[: len(recalled)] = recalled
    names = ["all"] * len(rows) if subjects is None else [str(name) for name in subjects]
    return xr.DataArray(
        values,
        {
            "subject": ("list", names),
            "list": np.arange(len(rows)),
            "output_position": np.arange(1, values.shape[1] + 1),
        },
        ("list", "output_position"),
        name="recalls",
        attrs={"list_length": int(list_length), "units": "serial position"},
    )


def _is_position(value: object, length: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return False
    return 0 <= int(value) <= length


def _collected(path: Path, records: Sequence[Record]) -> tuple[_Lists, list[str]]:
    """Return what was studied and recalled by list, and what is wrong with single rows."""
    known = {str(name).strip().casefold() for record in records for name in record.fields}
    if missing := [name for name in _COLUMNS if name not in known]:
        raise PromptError(
            f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(sorted(known))}.\n"
            f"  Expected {', '.join(_COLUMNS)}.\n  Rename its columns."
        )
    lists: _Lists = {}
    problems = []
    for record in records:
        text = {
            str(name).strip().casefold(): str(value).strip()
            for name, value in record.fields.items()
        }
        if (problem := record.problem or _entered(lists, text)) != "":
            problems.append(f"line {record.line}: {problem}")
    return lists, problems


def _entered(lists: _Lists, row: Mapping[str, str]) -> str:
    """Enter a row into its list; return what is wrong with it, or nothing."""
    kind, place = row["trial_type"].casefold(), _whole(row["position"])
    if kind not in ("study", "recall"):
        return f"trial_type {row['trial_type']!r} (study or recall)"
    if place is None:
        return f"position {row['position']!r} (whole numbers from 1)"
    if not row["subject"] or not row["list"] or (kind == "study" and not row["item"]):
        return "no subject, list or item"
    one = lists.setdefault((row["subject"], row.get("session", ""), row["list"]), _List())
    held = one.studied if kind == "study" else one.recalled
    if place in held:
        return f"{kind} position {place} of this list is filled twice"
    held[place] = row["item"]
    return ""


def _whole(text: str) -> int | None:
    """Return a position; tables that passed through a spreadsheet write 1.0."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() and number >= 1 else None


def _faults(one: _List) -> Iterator[str]:
    if not one.studied:
        yield "recalled from, but nothing was studied"
    elif max(one.studied) != len(one.studied):
        gone = sorted(set(range(1, max(one.studied))) - set(one.studied))
        yield f"no study positions {', '.join(map(str, gone[:10]))}"
    twice = [item for item, count in Counter(one.studied.values()).items() if count > 1]
    if twice:
        yield f"studied twice: {', '.join(twice[:10])}"


def _other_lengths(lists: _Lists) -> list[str]:
    lengths = Counter(len(one.studied) for one in lists.values())
    usual = lengths.most_common(1)[0][0]
    return [
        f"{_told(key)}: {len(one.studied)} items studied, {usual} in most lists"
        for key, one in lists.items()
        if len(one.studied) != usual
    ]


def _told(key: tuple[str, str, str]) -> str:
    subject, session, name = key
    return f"subject {subject}, {f'session {session}, ' if session else ''}list {name}"


def _serial(one: _List) -> list[int]:
    """Return the serial positions recalled, in order; 0 for what was not on the list."""
    place = {item: position for position, item in one.studied.items()}
    return [place.get(one.recalled[output], 0) for output in sorted(one.recalled)]
