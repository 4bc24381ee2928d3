"""Bundles: stored results as one zip, to hand to another store; checked before anything is kept.

A bundle holds the same files as the store, records, data and remarks, below the same paths.
Nothing in it is trusted: paths are rebuilt from keys, every file is compared with its checksum,
every key with what it is the digest of, and sizes are bounded before a byte is unpacked.
"""

import io
import zipfile
from collections.abc import Iterable, Iterator

from mechlab.canonical import digest
from mechlab.errors import StoreError
from mechlab.store.encoding import checksums
from mechlab.store.records import Entry, path_of
from mechlab.store.remarks import REMARK, remark_of_bytes
from mechlab.store.shelf import RECORD, Shelf

__all__ = ["MOST_BYTES", "pack", "unpack"]

MOST_BYTES = 2**29
"""An unpacked bundle beyond this is refused; zip files can claim to hold anything."""

_MOST_FILES = 50_000


def pack(shelf: Shelf, entries: Iterable[Entry]) -> bytes:
    """Return a zip of these entries and of the prompts that they are put together from.

    Raises:
        StoreError: when one of their files cannot be read.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted({path for entry in entries for path in _files(shelf, entry)}):
            try:
                archive.writestr(path, shelf.place.read(path))
            except OSError as err:
                raise StoreError(
                    f"{path} cannot be read: {err.strerror or err}. The bundle is not made; "
                    "`mechlab runs verify` lists what is damaged."
                ) from err
    return stream.getvalue()


def unpack(shelf: Shelf, data: bytes) -> list[str]:
    """Keep the entries of a bundle and return the keys of its runs.

    Raises:
        StoreError: naming what is wrong with the bundle; nothing is kept then.
    """
    files = _contents(data)
    entries = [_entry(files, path) for path in sorted(files) if path.rpartition("/")[2] == RECORD]
    if not entries:
        raise _refused("it holds no record")
    paths = {entry.path for entry in entries}
    for entry in entries:
        _check(entry, files)
        lacks = [key for key in entry.chunks if path_of(entry.method, "prompt", key) not in paths]
        if lacks:
            raise _refused(f"entry {entry.id} lacks its prompt {lacks[0][:12]}")
    for entry in sorted(entries, key=lambda entry: entry.kind):  # prompts before runs
        _keep(shelf, entry, files)
    return [entry.key for entry in entries if entry.kind == "run"]


def _files(shelf: Shelf, entry: Entry) -> Iterator[str]:
    yield f"{entry.path}/{RECORD}"
    if REMARK in shelf.place.names(entry.path):
        yield f"{entry.path}/{REMARK}"
    yield from (f"{entry.path}/{entry.data}/{name}" for name in entry.files)
    for key in entry.chunks:
        chunk = shelf.entry(path_of(entry.method, "prompt", key))
        if chunk is None:
            raise StoreError(f"entry {entry.id} of {entry.method} lacks its prompt {key[:12]}.")
        yield from _files(shelf, chunk)


def _contents(data: bytes) -> dict[str, bytes]:
    """Return the files of a zip by name, all within the bounds."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            listed = [info for info in archive.infolist() if not info.is_dir()]
            size = sum(info.file_size for info in listed)
            if len(listed) > _MOST_FILES or size > MOST_BYTES:
                raise _refused(
                    f"it holds {len(listed)} files of {size / 1e6:.0f} MB; at most {_MOST_FILES} "
                    f"files of {MOST_BYTES / 1e6:.0f} MB are taken"
                )
            return {info.filename: archive.read(info) for info in listed}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as err:
        raise _refused(f"it is not a zip that can be read ({err})") from err


def _entry(files: dict[str, bytes], path: str) -> Entry:
    try:
        entry = Entry.from_bytes(files[path], path.removesuffix(f"/{RECORD}"))
    except StoreError as err:
        raise _refused(str(err)) from err
    if digest(entry.source) != entry.key:
        raise _refused(f"the key of entry {entry.id} is not that of what it says it is")
    return entry


def _check(entry: Entry, files: dict[str, bytes]) -> None:
    """Compare an entry's data with its record, and read the remark on it."""
    held = {name: files.get(f"{entry.path}/{entry.data}/{name}") for name in entry.files}
    missing = [name for name, content in held.items() if content is None]
    found = checksums({name: content for name, content in held.items() if content is not None})
    wrong = missing or [n for n, check in found.items() if check != tuple(entry.files[n])]
    if wrong:
        raise _refused(f"{wrong[0]} of entry {entry.id} is missing or lacks its checksum")
    if (remark := files.get(f"{entry.path}/{REMARK}")) is not None:
        try:
            remark_of_bytes(remark, entry.id)
        except StoreError as err:
            raise _refused(str(err)) from err


def _keep(shelf: Shelf, entry: Entry, files: dict[str, bytes]) -> None:
    data = {name: files[f"{entry.path}/{entry.data}/{name}"] for name in entry.files}
    try:
        if data:
            shelf.place.write(f"{entry.path}/{entry.data}", data)
        shelf.place.replace(f"{entry.path}/{RECORD}", entry.to_bytes())
        remark = files.get(f"{entry.path}/{REMARK}")
        if remark is not None and REMARK not in shelf.place.names(entry.path):
            shelf.place.replace(f"{entry.path}/{REMARK}", remark)
    except OSError as err:
        raise StoreError(
            f"entry {entry.id} cannot be written to {shelf.place.url}: {err.strerror or err}.\n"
            "  Make space or choose another store (MECHLAB_CACHE), then import again."
        ) from err


def _refused(problem: str) -> StoreError:
    return StoreError(
        f"this bundle is not taken: {problem}.\n  Allowed: a zip that `Store.bundle` made.\n"
        "  Export it again from the store that it comes from."
    )
