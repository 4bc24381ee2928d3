"""Entries on a place: written data first and record last, read only when every checksum fits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from mechlab.errors import StoreError
from mechlab.store.encoding import checksums, from_files, in_order, to_files
from mechlab.store.places import Place
from mechlab.store.records import DamagedEntry, Entry, Kind, order_of, path_of

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["RECORD", "Shelf"]

RECORD = "record.json"
"""Without it a folder is debris: ignored by readers, removed by `clean`."""

_TWO = re.compile(r"[0-9a-f]{2}")
_KEY = re.compile(r"[0-9a-f]{64}")


class Shelf:
    """The entries of one store, one folder each."""

    def __init__(self, place: Place) -> None:
        """Keep entries on `place`."""
        self.place = place

    def check_writable(self) -> None:
        """Write and remove a small file.

        Raises:
            StoreError: when that does not work.
        """
        name = f"probe-{token_hex(4)}"
        try:
            self.place.replace(name, b"")
            self.place.remove(name)
        except OSError as err:
            raise StoreError(
                f"the store {self.place.url} cannot be written: {err.strerror or err}.\n"
                "  Allowed: a folder that you may write, or an fsspec URL.\n"
                "  Set MECHLAB_CACHE, or give Store(root=...)."
            ) from err

    def entry(self, path: str) -> Entry | None:
        """Return the record at `path`, or `None` when there is none.

        Raises:
            DamagedEntry: when it cannot be read.
            NewerEntry: when a newer mechlab wrote it.
        """
        try:
            data = self.place.read(f"{path}/{RECORD}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as err:
            raise DamagedEntry(f"entry {path} cannot be read: {err.strerror or err}") from err
        return Entry.from_bytes(data, path)

    def load(self, entry: Entry) -> xr.Dataset:
        """Return an entry's own data; every file is compared with its checksum.

        Raises:
            DamagedEntry: naming every file that is missing or differs.
        """
        files: dict[str, bytes] = {}
        problems: list[str] = []
        for name, (size, check) in entry.files.items():
            try:
                files[name] = self.place.read(f"{entry.path}/{entry.data}/{name}")
            except OSError:
                problems.append(f"{name} is missing")
                continue
            if len(files[name]) != size:
                problems.append(f"{name} has {len(files[name])} bytes instead of {size}")
            elif checksums({name: files[name]})[name][1] != check:
                problems.append(f"{name} does not have its checksum")
        if problems or not files:
            raise DamagedEntry(
                f"entry {entry.id} of {entry.method} is damaged: "
                f"{'; '.join(problems) or 'it has no data'}"
            )
        return from_files(files, entry.order)

    def open(self, entry: Entry) -> xr.Dataset:
        """Return an entry's own data, numbers read when they are used (local disks only)."""
        import xarray as xr

        if self.place.folder is None:
            return self.load(entry)
        folder = self.place.folder / entry.path / str(entry.data)
        self._check_sizes(entry, folder)
        return in_order(xr.open_zarr(folder, consolidated=False, chunks=None), entry.order)

    def add(
        self,
        kind: Kind,
        key: str,
        source: Mapping[str, Any],
        result: xr.Dataset,
        *,
        name: str = "",
        chunks: tuple[Entry, ...] = (),
    ) -> Entry:
        """Write an entry, data first and record last; the last of several writers wins.

        Raises:
            StoreError: when it cannot be written (no space, no permission).
        """
        files = {} if len(chunks) == 1 else to_files(result)  # one chunk holds it all already
        sums = checksums(files)
        entry = Entry(
            key=key,
            kind=kind,
            source=dict(source),
            data=f"data-{token_hex(6)}.zarr" if files else None,
            files=sums,
            order=order_of(result),
            sizes={str(dim): size for dim, size in result.sizes.items()},
            labels=_labels(result),
            chunks=tuple(chunk.key for chunk in chunks),
            provenance=dict(result.attrs),
            name=name,
            size=sum(s for s, _ in sums.values()) + sum(chunk.size for chunk in chunks),
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        try:
            self.place.write(f"{entry.path}/{entry.data}", files)
            self.place.replace(f"{entry.path}/{RECORD}", entry.to_bytes())
        except OSError as err:
            raise StoreError(
                f"entry {entry.id} of {entry.method} cannot be written to {self.place.url}: "
                f"{err.strerror or err}.\n  What was finished before is kept.\n"
                "  Make space or choose another store (MECHLAB_CACHE), then run again."
            ) from err
        return entry

    def paths(self, kind: Kind, method: str | None = None, start: str = "") -> Iterator[str]:
        """Yield the folders of entries, valid or not, whose key begins with `start`.

        Raises:
            StoreError: when a folder of the store cannot be listed.
        """
        below = "/prompts" if kind == "prompt" else ""
        for name in self._names("") if method is None else [method]:
            twos = [start[:2]] if len(start) >= 2 else self._names(f"{name}{below}")
            for two in filter(_TWO.fullmatch, twos):
                for key in filter(_KEY.fullmatch, self._names(f"{name}{below}/{two}")):
                    if key.startswith(start):
                        yield path_of(name, kind, key)

    def _names(self, path: str) -> list[str]:
        try:
            return self.place.names(path)
        except OSError as err:
            raise StoreError(
                f"the store {self.place.url} cannot be read: {err.strerror or err}.\n"
                "  Allowed: a folder that you may read, or an fsspec URL.\n"
                "  Set MECHLAB_CACHE, or give Store(root=...)."
            ) from err

    def _check_sizes(self, entry: Entry, folder: Path) -> None:
        found = {name: folder / name for name in entry.files}
        wrong = [
            name
            for name, file in found.items()
            if not file.is_file() or file.stat().st_size != entry.files[name][0]
        ]
        if wrong:
            raise DamagedEntry(
                f"entry {entry.id} of {entry.method} is damaged: missing or of wrong size: "
                f"{', '.join(wrong)}"
            )


def _labels(result: xr.Dataset) -> tuple[str, ...]:
    """Return what a result is about, for lists: its prompts, or the cases of edits."""
    held = next((name for name in ("prompt", "case") if name in result.coords), None)
    return () if held is None else tuple(map(str, result[held].values.ravel()))
