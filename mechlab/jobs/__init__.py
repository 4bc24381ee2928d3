"""Background runs with progress and cancel: one worker thread per device, first come first served.

The table of jobs lives in this module, not in a page's script, so that a page that is reloaded, or
a second one, finds the running job again. A job is handed a function and knows nothing of what it
computes; whatever must outlive the process belongs in the store.
"""

import errno
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from mechlab.errors import Cancelled, MechlabError, OptionError
from mechlab.jobs.detached import detached
from mechlab.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["TABLE", "Job", "JobTable", "State", "Work", "detached", "submit"]

State = Literal["queued", "running", "done", "failed", "cancelled"]
"""Life of a job; the last three are final."""

Work = Callable[[ProgressCallback], object]
"""What a job runs: it is given the callback to report to and returns something small."""

_FINISHED_KEPT = 100


@dataclass(frozen=True, eq=False)
class Job:
    """What is known about one job at one moment; ask the table again for news."""

    id: str
    """Identity: the same id submitted while it runs is the same job."""
    label: str
    """What it does, for people."""
    device: str
    """Which queue it stands in."""
    state: State = "queued"
    """Where it is in its life."""
    done: int = 0
    """Units finished."""
    total: int = 0
    """Units in all; 0 until the first report."""
    unit: str = ""
    """What is counted, in words."""
    partial: "xr.Dataset | None" = None
    """The latest picture of an unfinished result; kept when the job is cancelled."""
    result: Any = None
    """What the function returned, once done."""
    error: str = ""
    """Why it failed or was cancelled, in a sentence."""
    details: str = ""
    """The full traceback of a failure."""
    cancelling: bool = False
    """Cancel was asked for; the batch in flight is still being finished."""
    submitted: float = 0.0
    """When it was handed in, seconds since the epoch."""
    started: float | None = None
    """When it began to run."""
    counting: float | None = None
    """When it first said how much there is to do; what comes before is not the work itself."""
    finished: float | None = None
    """When it ended."""

    @property
    def active(self) -> bool:
        """Whether it still waits or runs."""
        return self.state in ("queued", "running")

    @property
    def per_second(self) -> float | None:
        """Average speed since the count began; None until there is one."""
        if self.state != "running" or self.counting is None or self.done <= 0:
            return None
        return self.done / max(time.time() - self.counting, 1e-3)

    @property
    def seconds_left(self) -> float | None:
        """Time left at that speed; None until there is one."""
        speed = self.per_second
        return None if not speed else max(self.total - self.done, 0) / speed


class JobTable:
    """All jobs of this process. Every method may be called from any thread."""

    def __init__(self) -> None:
        """Start empty; worker threads begin when there is work."""
        self._lock = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._queues: dict[str, deque[tuple[str, Work]]] = {}

    def submit(self, id: str, function: Work, *, device: str = "cpu", label: str = "") -> Job:
        """Queue a function, or attach to the job of the same id that waits or runs.

        Args:
            id: what makes two requests the same, for instance a run id.
            function: called in the worker thread with a progress callback, which raises
                `Cancelled` once cancel was asked for.
            device: which queue; jobs of one device run one after the other.
            label: what it does, for people; default: the id.

        Returns:
            The job as it stands. A finished job of this id is replaced by the new one.

        Raises:
            OptionError: when the id is empty or the function cannot be called.
        """
        if not id or not callable(function):
            raise OptionError(
                f"a job needs a non-empty id and a function; received id={id!r}, {function!r}. "
                "Pass a callable that takes the progress callback."
            )
        with self._lock:
            if (known := self._jobs.get(id)) is not None and known.active:
                return known
            self._jobs.pop(id, None)  # the newest job stands last
            self._jobs[id] = Job(id, label or id, device, submitted=time.time())
            self._forget_oldest()
            self._enqueue(device, id, function)
            return self._jobs[id]

    def job(self, id: str) -> Job | None:
        """Return what is known about a job, or None."""
        with self._lock:
            return self._jobs.get(id)

    def jobs(self) -> list[Job]:
        """Return all jobs in the order handed in."""
        with self._lock:
            return list(self._jobs.values())

    def position(self, id: str) -> int | None:
        """Return how many jobs run or wait before this one; None when it does not wait."""
        with self._lock:
            job = self._jobs.get(id)
            if job is None or job.state != "queued":
                return None
            before = [j for j in self._jobs.values() if j.device == job.device and j.active]
            return before.index(job)

    def cancel(self, id: str) -> Job | None:
        """Ask a job to stop: a waiting one stops now, a running one at its next progress report.

        Returns:
            The job as it stands, or None when there is no such job. Finished jobs stay as they are.
        """
        with self._lock:
            job = self._jobs.get(id)
            if job is None or not job.active:
                return job
            if job.state == "queued":
                queue = self._queues[job.device]
                queue.remove(next(task for task in queue if task[0] == id))
                self._finish(id, "cancelled", error="cancelled before it started")
            else:
                self._update(id, cancelling=True)
            return self._jobs[id]

    def wait(self, id: str, timeout: float | None = None) -> Job | None:
        """Block until a job has ended, or for `timeout` seconds; return it as it then stands."""
        with self._lock:
            self._lock.wait_for(lambda: (j := self._jobs.get(id)) is None or not j.active, timeout)
            return self._jobs.get(id)

    def _enqueue(self, device: str, id: str, function: Work) -> None:
        # A worker thread ends with its queue, so a device has a thread exactly when it has a queue.
        if device in self._queues:
            self._queues[device].append((id, function))
            return
        self._queues[device] = deque([(id, function)])
        name = f"mechlab-jobs-{device}"
        threading.Thread(target=self._work, args=(device,), name=name, daemon=True).start()

    def _work(self, device: str) -> None:
        while (task := self._next(device)) is not None:
            job_id, function = task
            try:
                result = function(lambda progress: self._report(job_id, progress))  # noqa: B023
            except Cancelled as error:
                self._end(job_id, "cancelled", error=str(error))
            except BaseException as error:  # nobody else hears of it: this is the thread's top
                self._end(job_id, "failed", error=_sentence(error), details=traceback.format_exc())
            else:
                self._end(job_id, "done", result=result)

    def _next(self, device: str) -> tuple[str, Work] | None:
        with self._lock:
            queue = self._queues[device]
            if not queue:
                del self._queues[device]
                return None
            id, function = queue.popleft()
            self._update(id, state="running", started=time.time())
            return id, function

    def _report(self, id: str, progress: Progress) -> None:
        with self._lock:
            job = self._jobs[id]
            self._update(
                id,
                done=progress.done,
                total=progress.total,
                unit=progress.unit,
                counting=job.counting or (time.time() if progress.total else None),
                partial=job.partial if progress.partial is None else progress.partial,
            )
            if job.cancelling:
                raise Cancelled(f"cancelled after {progress.done} of {progress.total}")

    def _end(self, id: str, state: State, **facts: Any) -> None:
        with self._lock:
            self._finish(id, state, **facts)

    def _finish(self, id: str, state: State, **facts: Any) -> None:
        self._update(id, state=state, finished=time.time(), cancelling=False, **facts)
        self._lock.notify_all()

    def _update(self, id: str, **facts: Any) -> None:
        self._jobs[id] = replace(self._jobs[id], **facts)

    def _forget_oldest(self) -> None:
        finished = [id for id, job in self._jobs.items() if not job.active]
        for id in finished[: max(0, len(finished) - _FINISHED_KEPT)]:
            del self._jobs[id]


def _sentence(error: BaseException) -> str:
    """Return what to tell a person: our own messages as they are, others with their type."""
    if isinstance(error, MechlabError):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return (
            "the memory of this device ran out. Finished batches are kept. Unload other models, "
            "use bfloat16, a shorter prompt or fewer samples, then run again."
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full. What was finished is kept. Make space, then run again."
    return f"{type(error).__name__}: {error}".rstrip(": ")


TABLE = JobTable()
"""The table that every page of this process shares."""


def submit(id: str, function: Work, *, device: str = "cpu", label: str = "") -> Job:
    """Queue a function in the shared `TABLE`; see `JobTable.submit`."""
    return TABLE.submit(id, function, device=device, label=label)
