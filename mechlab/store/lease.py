"""Leases: who computes what right now, so that two processes do not compute the same thing twice.

A lease is one small file below `leases/`, named by the entry's key, rewritten every few seconds. A
holder that ends removes it; one that was killed stops rewriting it, and it expires. Leases save
work and show progress; correctness never depends on them: two writers of one key are harmless.
Stores that are not on a local disk have none.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from mechlab.progress import Progress, ProgressCallback
from mechlab.store.places import Place

__all__ = ["Lease", "Running", "hold", "running"]

FOLDER = "leases"
BEAT = 2.0
"""Seconds between two signs of life."""
EXPIRES = 15.0
"""Seconds after the last sign of life when a lease is void."""


@dataclass(frozen=True)
class Running:
    """A computation under way, in this process or another one."""

    key: str
    """Of the entry that it will become."""
    method: str
    """Name of the method."""
    model_name: str
    """Name of the model."""
    prompts: str
    """Digest of the prompts."""
    options: Mapping[str, Any]
    """The bound options."""
    holder: str
    """Distinguishes holders within one process."""
    host: str
    """Machine that computes."""
    pid: int
    """Process that computes."""
    started: float
    """Seconds since the epoch."""
    beat: float
    """The last sign of life, seconds since the epoch."""
    done: int = 0
    """Units finished."""
    total: int = 0
    """Units in all; 0 until the first report."""
    unit: str = ""
    """What is counted."""

    @property
    def alive(self) -> bool:
        """Whether its holder still gives signs of life."""
        if time.time() - self.beat > EXPIRES:
            return False
        return self.host != socket.gethostname() or _is_process(self.pid)


class Lease:
    """Held while one key is computed; reports are passed on and written down."""

    def __init__(self, file: Path, about: Running) -> None:
        """Keep the file, which is this holder's, alive from now on."""
        self._file, self._about = file, about
        self._ended = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._beat, name="mechlab-lease", daemon=True).start()

    def report(self, progress: Progress) -> None:
        """Note how far the computation is; written with the next sign of life."""
        with self._lock:
            self._about = replace(
                self._about, done=progress.done, total=progress.total, unit=progress.unit
            )

    def release(self) -> None:
        """Give the lease back."""
        self._ended.set()
        with self._lock:
            found = _read(self._file)
            if found is not None and found.holder == self._about.holder:
                self._file.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with self._lock:
                if not self._ended.is_set():
                    self._write()

    def _write(self) -> None:
        self._about = replace(self._about, beat=time.time())
        new = self._file.with_name(f".{self._file.name}-{self._about.holder}")
        try:
            new.write_text(json.dumps(asdict(self._about)), encoding="utf-8")
            new.replace(self._file)
        except OSError:  # a full disk stops no computation; its result will say so
            new.unlink(missing_ok=True)


@contextmanager
def hold(
    place: Place, key: str, about: Mapping[str, Any], progress: ProgressCallback | None
) -> Iterator[ProgressCallback | None]:
    """Hold the lease of `key`, once its present holder is done or dead; yield what to report to.

    While another holder computes, its progress is reported, and `progress` may raise `Cancelled`.

    Args:
        place: the store.
        key: what will be computed.
        about: `method`, `model_name`, `prompts`, `options`.
        progress: the caller's own callback.
    """
    if place.folder is None:
        yield progress
        return
    file = place.folder / FOLDER / f"{key}.json"
    while (lease := _take(file, key, about)) is None:
        other = _read(file)
        if other is not None and progress is not None:
            unit = f"{other.unit} (in another process)" if other.unit else "in another process"
            progress(Progress(other.done, other.total, unit))
        time.sleep(0.25)
    try:
        yield _telling(lease, progress)
    finally:
        lease.release()


def running(place: Place) -> list[Running]:
    """Return what is being computed into this store now, the oldest first."""
    if place.folder is None:
        return []
    found = [_read(file) for file in (place.folder / FOLDER).glob("[0-9a-f]*.json")]
    alive = [one for one in found if one is not None and one.alive]
    return sorted(alive, key=lambda one: one.started)


def _telling(lease: Lease, progress: ProgressCallback | None) -> ProgressCallback:
    def tell(report: Progress) -> None:
        lease.report(report)
        if progress is not None:
            progress(report)

    return tell


def _take(file: Path, key: str, about: Mapping[str, Any]) -> Lease | None:
    """Return a new lease, or None while another one is alive."""
    there = file.exists()
    other = _read(file)
    if other is not None and other.alive:
        return None
    now = time.time()
    mine = Running(
        key=key, holder=token_hex(8), host=socket.gethostname(), pid=os.getpid(),
        started=now, beat=now, **about,
    )  # fmt: skip
    new = file.with_name(f".{file.name}-{mine.holder}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(asdict(mine)), encoding="utf-8")
        if there:
            file.unlink(missing_ok=True)  # of a dead holder, or unreadable
        os.link(new, file)  # whole or not at all, and only one of several gets it
    except FileExistsError:
        return None
    except OSError:  # no links here, or no space: then there are no leases, which is harmless
        pass
    finally:
        new.unlink(missing_ok=True)
    return Lease(file, mine)


def _read(file: Path) -> Running | None:
    try:
        return Running(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is there and belongs to somebody else
        return True
    return True
