"""`record.json`: what makes an entry valid, written last, and readable without the data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from mechlab.errors import StoreError

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "KINDS",
    "SCHEMA",
    "DamagedEntry",
    "DamagedEntryWarning",
    "Entry",
    "Kind",
    "NewerEntry",
    "order_of",
    "path_of",
]

Kind = Literal["run", "prompt"]
KINDS: tuple[Kind, ...] = ("run", "prompt")
"""Whole results, and those on one prompt."""

SCHEMA = 1
"""Raised when records change so that older code would misread them."""

_KEY = re.compile(r"[0-9a-f]{64}")
_DATA = re.compile(r"data-[0-9a-f]+\.zarr")


class DamagedEntry(StoreError):
    """An entry that cannot be read as it was written; running it again replaces it."""


class NewerEntry(StoreError):
    """An entry that a newer mechlab wrote; it is neither read nor replaced."""


class DamagedEntryWarning(UserWarning):
    """A stored entry is damaged; the message names it, what is wrong, and what happens now."""


@dataclass(frozen=True)
class Entry:
    """The record of one stored result."""

    key: str
    """64 hex digits."""
    kind: Kind
    """A whole prompt set, or one prompt of a per-prompt method."""
    source: Mapping[str, Any]
    """What the key is the digest of: method, method_version, model, options, prompts."""
    data: str | None
    """Name of the zarr folder beside the record; `None` when the one chunk holds all."""
    files: Mapping[str, tuple[int, str]]
    """Size and sha256 of every file of the zarr folder."""
    order: Mapping[str, list[str]]
    """Names of coordinates and data variables, in order."""
    sizes: Mapping[str, int]
    """Length of each axis."""
    labels: tuple[str, ...]
    """Labels of the prompts, or of the cases of edits."""
    chunks: tuple[str, ...]
    """Keys of the entries of the single prompts; none when the method is not per prompt."""
    provenance: Mapping[str, Any]
    """The result's attributes."""
    name: str = ""
    """What the prompt set is called."""
    size: int = 0
    """Bytes of all data on disk, chunks included."""
    created: str = ""
    """When the entry was written, ISO 8601, UTC."""
    schema: int = field(default=SCHEMA)

    @property
    def id(self) -> str:
        """The first 12 digits of the key, as shown and typed."""
        return self.key[:12]

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.source["method"])

    @property
    def method_version(self) -> int:
        """Version of the method that computed this."""
        return int(self.source["method_version"])

    @property
    def model(self) -> str:
        """The model's fingerprint."""
        return str(self.source["model"])

    @property
    def model_name(self) -> str:
        """The model's name, or the start of its fingerprint where it has none."""
        return str(self.provenance.get("model_name", self.model[:12]))

    @property
    def prompts(self) -> str:
        """Digest of the prompt set, or of the one prompt."""
        return str(self.source["prompts" if self.kind == "run" else "prompt"])

    @property
    def options(self) -> Mapping[str, Any]:
        """The bound options, defaults included."""
        return dict(self.source["options"])

    @property
    def wall_seconds(self) -> float:
        """How long the computation took, all prompts together."""
        return float(self.provenance.get("wall_seconds", 0.0))

    @property
    def when(self) -> datetime:
        """When the entry was written."""
        return datetime.fromisoformat(self.created)

    @property
    def path(self) -> str:
        """The entry's folder below the store's root."""
        return path_of(self.method, self.kind, self.key)

    def to_bytes(self) -> bytes:
        """Return the content of `record.json`."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False).encode("utf-8")

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> Entry:
        """Read the `record.json` of the entry at `path`.

        Raises:
            DamagedEntry: when it does not parse, is not of this key, or is of an older schema.
            NewerEntry: when it is of a newer schema.
        """
        try:
            record = json.loads(data)
            schema = record["schema"]
        except (ValueError, KeyError, TypeError, RecursionError) as err:
            raise DamagedEntry(f"entry {path} has a record.json that cannot be parsed") from err
        _check_schema(schema, path)
        try:
            held = {part.name: _restored(part.name, record[part.name]) for part in fields(cls)}
            entry = cls(**held)
            wrong = _problem(entry, path)
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise DamagedEntry(f"entry {path} has a record.json that lacks {err!s:.60}") from err
        if wrong:
            raise DamagedEntry(f"entry {path} has a record.json {wrong}")
        return entry


def path_of(method: str, kind: str, key: str) -> str:
    """Return an entry's folder: `<method>/<key[:2]>/<key>`, prompts below `<method>/prompts`."""
    return "/".join([method, *(["prompts"] if kind == "prompt" else []), key[:2], key])


def order_of(dataset: xr.Dataset) -> dict[str, list[str]]:
    """Return the names of coordinates and data variables, in order."""
    return {"coords": [*map(str, dataset.coords)], "data_vars": [*map(str, dataset.data_vars)]}


def _check_schema(schema: object, path: str) -> None:
    if schema == SCHEMA:
        return
    if isinstance(schema, int) and schema > SCHEMA:
        raise NewerEntry(
            f"entry {path} was written by a newer mechlab (schema {schema}).\n"
            f"  This one reads schema {SCHEMA}.\n"
            "  Update mechlab, or use another store (MECHLAB_CACHE)."
        )
    raise DamagedEntry(
        f"entry {path} was written by an older mechlab (schema {schema!r}, this one reads {SCHEMA})"
    )


def _problem(entry: Entry, path: str) -> str | None:
    if not _KEY.fullmatch(entry.key) or entry.path != path:
        return f"that belongs to {entry.path}"
    strange = [name for name in entry.files if ".." in name.split("/") or name.startswith("/")]
    if strange or not (entry.data is None or _DATA.fullmatch(entry.data)):
        return "that names files outside the entry"
    return None


def _restored(name: str, value: Any) -> Any:
    if name in ("labels", "chunks"):
        return tuple(str(item) for item in value)
    if name == "files":
        return {path: (int(size), str(check)) for path, (size, check) in value.items()}
    return value
