"""A run in a process of its own: it survives the page's process, and a crash of it harms nobody.

What the process writes lies below `detached/` of the store: the specification that
`mechlab run` carries out, and what it printed. Its progress is read from its lease in the store.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from mechlab.errors import Cancelled, MechlabError, StoreError
from mechlab.progress import Progress, ProgressCallback

if TYPE_CHECKING:  # the store brings in xarray, which a page that only looks at jobs has no use for
    from mechlab.store import Running, Store

__all__ = ["detached"]

_WAIT = 0.25
_PATIENCE = 10.0
"""Seconds between asking a process to end and ending it."""


def detached(
    spec: Mapping[str, Any], root: str | None = None
) -> Callable[[ProgressCallback], object]:
    """Return a job's function that carries out a specification in a process of its own.

    The job follows that process; cancelling the job ends it. When this process ends first, the
    other goes on and keeps its result in the store.

    Args:
        spec: what `mechlab run` takes: `method`, `model`, `prompts`, `options`, as JSON values.
        root: the store, a local folder; default: the usual one.

    Returns:
        A function for `submit`, which returns the run id.

    Raises:
        StoreError: when the store does not lie on this machine, or cannot be written.
    """
    from mechlab.store import Store

    store = Store(root)
    if "://" in store.root:
        raise StoreError(
            f"a detached run needs a store on this machine; received {store.root}. "
            "Allowed: a local folder. Run it attached, or use `mechlab run` there."
        )

    def work(progress: ProgressCallback) -> str:
        place = _write(Path(store.root) / "detached", spec)
        command = _command(place.with_suffix(".spec.json"), store.root)
        with (
            place.with_suffix(".out").open("wb") as out,
            place.with_suffix(".log").open("wb") as log,
        ):
            # A session of its own: what ends this process does not reach it.
            process = subprocess.Popen(command, stdout=out, stderr=log, start_new_session=True)
        try:
            while process.poll() is None:
                progress(_report(store, process.pid))
                time.sleep(_WAIT)
        except Cancelled:
            _end(process)
            raise
        return _outcome(process.returncode, place)

    return work


def _command(spec: Path, root: str) -> list[str]:
    return [sys.executable, "-m", "mechlab", "run", str(spec), "--json", "--cache", root]


def _write(folder: Path, spec: Mapping[str, Any]) -> Path:
    place = folder / token_hex(6)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dict(spec), ensure_ascii=False)
        place.with_suffix(".spec.json").write_text(text, encoding="utf-8")
    except OSError as err:
        raise StoreError(
            f"the specification cannot be written to {folder}: {err.strerror or err}.\n"
            "  Make space or choose another store (MECHLAB_CACHE), then run again."
        ) from err
    return place


def _report(store: "Store", pid: int) -> Progress:
    mine: list[Running] = [one for one in store.running() if one.pid == pid]
    if not mine:
        return Progress(0, 0, f"process {pid} loads the model")
    return Progress(mine[0].done, mine[0].total, mine[0].unit)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _outcome(code: int, place: Path) -> str:
    """Return the run id that the process printed; raise what it said when it failed."""
    if code == 0:
        return str(json.loads(place.with_suffix(".out").read_text(encoding="utf-8"))["run"])
    if code < 0:
        name = signal.Signals(-code).name
        raise MechlabError(
            f"the process of this run was ended by {name}"
            + (", often because memory ran out" if name == "SIGKILL" else "")
            + ".\n  Finished batches are kept.\n"
            "  Run it again to go on; if it ends the same way, use a smaller batch or model."
        )
    said = place.with_suffix(".log").read_text(encoding="utf-8", errors="replace").strip()
    raise MechlabError(said[-2000:] or f"the process of this run ended with code {code}")
