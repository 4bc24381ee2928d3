"""Keeping a store in order: what is damaged, what is debris, what goes with a run."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mechlab.store.records import KINDS, DamagedEntry, Entry, NewerEntry, path_of
from mechlab.store.remarks import REMARK
from mechlab.store.shelf import RECORD, Shelf

__all__ = ["Damage", "damages", "remove", "remove_debris"]


@dataclass(frozen=True)
class Damage:
    """An entry that `Store.verify` found damaged."""

    path: str
    """Folder of the entry below the store's root."""
    problem: str
    """What is wrong, naming files."""


def damages(shelf: Shelf) -> list[Damage]:
    """Compare every file of every entry with its checksum and return what is damaged."""
    paths = [path for kind in KINDS for path in shelf.paths(kind)]
    return [Damage(path, problem) for path in paths for problem in _problems(shelf, path)]


def remove_debris(shelf: Shelf, seconds: float) -> list[str]:
    """Remove what no record points to and is at least so old; return the paths removed."""
    debris = [
        path for kind in KINDS for entry in shelf.paths(kind) for path in _debris(shelf, entry)
    ]
    old = [path for path in debris if shelf.place.age(path) >= seconds]
    for path in old:
        shelf.place.remove(path)
    return old


def remove(shelf: Shelf, entry: Entry, others: Iterable[Entry]) -> int:
    """Remove an entry, and those of its prompts that no other one holds; return the bytes freed."""
    kept = {chunk for other in others for chunk in other.chunks}
    freed = _remove(shelf, entry)
    for chunk in set(entry.chunks) - kept:
        part = shelf.entry(path_of(entry.method, "prompt", chunk))
        freed += 0 if part is None else _remove(shelf, part)
    return freed


def _problems(shelf: Shelf, path: str) -> Iterator[str]:
    try:
        entry = shelf.entry(path)
        if entry is None:
            return
        if entry.data is not None:
            shelf.load(entry)
    except (DamagedEntry, NewerEntry) as err:
        yield str(err)
        return
    for chunk in entry.chunks:
        if RECORD not in shelf.place.names(f"{entry.method}/prompts/{chunk[:2]}/{chunk}"):
            yield f"entry {entry.id} of {entry.method} lacks its prompt {chunk[:12]}"


def _debris(shelf: Shelf, path: str) -> Iterator[str]:
    try:
        entry = shelf.entry(path)
    except (DamagedEntry, NewerEntry):  # for `run` to replace, or for a newer mechlab to read
        return
    if entry is None:
        yield path
        return
    names = shelf.place.names(path)
    yield from (f"{path}/{n}" for n in names if n not in (RECORD, REMARK, entry.data))


def _remove(shelf: Shelf, entry: Entry) -> int:
    shelf.place.remove(f"{entry.path}/{RECORD}")  # first: then the rest is debris
    shelf.place.remove(entry.path)
    return sum(size for size, _ in entry.files.values())
