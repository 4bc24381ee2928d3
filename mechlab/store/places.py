"""Where a store lies: a local folder, or any place that fsspec can write to.

Both kinds offer the same few operations. On a local disk a file is replaced through a temporary
file, fsync and `os.replace`; object stores have no rename, but one put is all or nothing there.
"""

import os
import shutil
import time
import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

import fsspec
import platformdirs

from mechlab.errors import StoreError

__all__ = ["LocalPlace", "Place", "RemotePlace", "default_root", "open_place"]


class Place(Protocol):
    """A tree of files; paths are relative, with forward slashes."""

    url: str
    """The root, as a person would write it."""
    folder: Path | None
    """The root on this machine's disk, `None` elsewhere."""

    def read(self, path: str) -> bytes:
        """Return a file's bytes; FileNotFoundError when it is not there."""
        ...

    def write(self, path: str, files: Mapping[str, bytes]) -> None:
        """Write files below `path`; not atomic, for what no record points to yet."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Write one file so that a reader sees the old or the new content, never a part."""
        ...

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a folder; none when it is not there."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all in it; nothing happens when it is not there."""
        ...

    def age(self, path: str) -> float:
        """Return the seconds since anything below `path` was last written."""
        ...


class LocalPlace:
    """A folder on this machine's disk."""

    def __init__(self, folder: Path) -> None:
        """Take `folder` as the root; it need not exist yet."""
        self.folder: Path | None = folder
        self.url = str(folder)
        self._root = folder

    def read(self, path: str) -> bytes:
        """Return a file's bytes; FileNotFoundError when it is not there."""
        return (self._root / path).read_bytes()

    def write(self, path: str, files: Mapping[str, bytes]) -> None:
        """Write files below `path`."""
        for name, data in files.items():
            file = self._root / path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)

    def replace(self, path: str, data: bytes) -> None:
        """Write one file through a temporary one, fsync and rename."""
        file = self._root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}-{token_hex(4)}")
        try:
            with new.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            new.replace(file)
        finally:
            new.unlink(missing_ok=True)

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a folder, without temporary files."""
        try:
            found = sorted(entry.name for entry in (self._root / path).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name for name in found if not name.startswith(".")]

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all in it."""
        target = self._root / path
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)  # another process may be removing it too
        else:
            target.unlink(missing_ok=True)

    def age(self, path: str) -> float:
        """Return the seconds since anything below `path` was last written."""
        return time.time() - max(_times(self._root / path), default=0.0)


class RemotePlace:
    """A root on an object store or any other file system of fsspec."""

    def __init__(self, url: str) -> None:
        """Open the file system that the URL names.

        Raises:
            StoreError: when fsspec has no such file system, or cannot open it.
        """
        try:
            self._fs, self._root = fsspec.url_to_fs(url)
        except (ValueError, ImportError, OSError) as err:
            raise StoreError(
                f"the store {url} cannot be opened: {err}.\n"
                "  Allowed: a local folder, or a URL of an installed fsspec file system.\n"
                "  Install what the message names, or correct the URL."
            ) from err
        self.url = url
        self.folder: Path | None = None

    def read(self, path: str) -> bytes:
        """Return a file's bytes; FileNotFoundError when it is not there."""
        data: bytes = self._fs.cat_file(self._at(path))
        return data

    def write(self, path: str, files: Mapping[str, bytes]) -> None:
        """Put files below `path`."""
        self._fs.pipe({self._at(f"{path}/{name}"): data for name, data in files.items()})

    def replace(self, path: str, data: bytes) -> None:
        """Put one file."""
        self._fs.pipe_file(self._at(path), data)

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a folder."""
        self._fs.invalidate_cache()  # another process may have written since
        try:
            found = self._fs.ls(self._at(path), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found)

    def remove(self, path: str) -> None:
        """Remove a file or everything below a prefix."""
        self._fs.invalidate_cache()
        if self._fs.exists(self._at(path)):
            self._fs.rm(self._at(path), recursive=True)

    def age(self, path: str) -> float:
        """Return the seconds since anything below `path` was put; 0 where nobody recorded it."""
        self._fs.invalidate_cache()
        found = self._fs.find(self._at(path), detail=True)
        times = [moment for info in found.values() if (moment := _moment(info)) is not None]
        return time.time() - max(times) if times else 0.0

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")


def open_place(root: str | os.PathLike[str] | None) -> Place:
    """Return the place that `root` names, or the default one.

    Raises:
        StoreError: when `root` is a URL that cannot be opened.
    """
    chosen = default_root() if root is None else os.fspath(root)
    if chosen.startswith("file://"):
        chosen = chosen.removeprefix("file://")
    if "://" in chosen or "::" in chosen:
        return RemotePlace(chosen)
    try:
        return LocalPlace(Path(chosen).expanduser().absolute())
    except RuntimeError as err:
        raise StoreError(
            f"the store {chosen!r} cannot be opened: there is no such home folder.\n"
            "  Allowed: a folder that you may write to, or an fsspec URL.\n"
            "  Set MECHLAB_CACHE, or give Store(root=...)."
        ) from err


def default_root() -> str:
    """Return `MECHLAB_CACHE`, else `cache/` of a checkout around here, else the user's cache."""
    if given := os.environ.get("MECHLAB_CACHE"):
        return given
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if _is_checkout(folder):
                return str(folder / "cache")
    return platformdirs.user_cache_dir("mechlab")


def _is_checkout(folder: Path) -> bool:
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False
    about = project.get("project")
    return isinstance(about, dict) and about.get("name") == "mechlab"


def _times(path: Path) -> Iterator[float]:
    for file in (path, *path.rglob("*")):
        try:
            yield file.stat().st_mtime
        except OSError:  # removed meanwhile
            continue


def _moment(info: Mapping[str, Any]) -> float | None:
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None
