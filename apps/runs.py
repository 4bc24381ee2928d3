"""Stored results and background runs, as the pages see them. Nothing here touches Streamlit."""

import os
import re
import time
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

import loaded
import mechlab as ml
from request import Request

__all__ = [
    "elsewhere", "entry", "find", "is_run_id", "job_of", "load", "loading", "of_model", "queue_of",
    "recent", "remark", "start", "start_loading",
]  # fmt: skip

_RUN_ID = re.compile(r"[0-9a-f]{12}")

_MOST_SHOWN = 6
_shown: OrderedDict[tuple[str, str, str], Any] = OrderedDict()
FRESH_SECONDS = 1.0
"""So long the list of stored results is not read again, unless a job of this process has ended."""
_listed: dict[str, tuple[float, list[Any]]] = {}


def is_run_id(text: str) -> bool:
    """Return whether a link's run is written as run ids are: twelve hex digits."""
    return _RUN_ID.fullmatch(text) is not None


def recent(methods: Collection[str] = (), most: int = 50) -> list[Any]:
    """Return the records of stored results, newest first; of some methods, or of all."""
    return [record for record in _records() if not methods or record.method in methods][:most]


def entry(run: str) -> Any | None:
    """Return the record of a stored result by its run id; None when this store does not have it."""
    store = ml.Store()
    return store.entry(run) if is_run_id(run) and run in store else None


def load(run: str) -> Any | None:
    """Return a stored result by its run id; None when this store does not have it.

    Raises:
        StoreError: when the entry is there but damaged.
    """
    record = entry(run)
    if record is None:
        return None
    store = ml.Store()
    key = (store.root, record.key, record.created)
    if key not in _shown:
        while len(_shown) >= _MOST_SHOWN:
            _shown.popitem(last=False)
        _shown[key] = store.get(record.key)
    return _shown[key]


def remark(run: str) -> Any:
    """Return what is said of a stored run: tags, a note, why it is shown although it means little.

    An empty remark where nothing is said, or this store does not have the run.
    """
    said = ml.Store().remarks([run]) if is_run_id(run) else {}
    return next(iter(said.values()), ml.Remark())


def find(request: Request) -> str | None:
    """Return the run id of the newest stored result that answers exactly this request.

    Whether the model of that name is still the same cannot be told before it is loaded; running the
    request again compares fingerprints. Prompts that only a model can make are not found this way.
    """
    wanted = request.digest()
    if wanted is None:
        return None
    matching = (record for record in _records() if record.prompts == wanted)
    return next((record.id for record in matching if request.answered_by(record)), None)


def of_model(request: Request) -> list[Any]:
    """Return the records of stored results of a request's method and model, newest first."""
    return [
        record
        for record in _records()
        if record.method == request.method and record.model_name == request.model_name
    ]


def job_of(request: Request) -> Any | None:
    """Return the job that runs or ran this request in this process, or None."""
    return ml.jobs.TABLE.job(request.id)


def elsewhere(request: Request) -> Any | None:
    """Return what is known of a run of this request in another process, or None."""
    here = os.getpid()
    others = (one for one in ml.Store().running() if one.pid != here)
    return next((one for one in others if request.computed_by(one)), None)


def start(request: Request, *, recompute: bool = False, detached: bool = False) -> Any:
    """Run a request in the background, or attach to the run under way, in whatever process.

    Args:
        request: what to run.
        recompute: whether to replace a stored result.
        detached: whether to use a process of its own, which goes on when the dashboard ends.

    Raises:
        MechlabError: when the prompts cannot be used; nothing is started then.
    """
    if problem := request.problem():
        raise ml.PromptError(problem)
    label = f"{request.method.replace('_', ' ')}: “{request.label}” on {request.model}"
    queue = queue_of(request)
    if detached:
        alone = ml.jobs.detached(request.spec(), ml.Store().root)
        return ml.jobs.submit(request.id, alone, device=f"{queue}, detached", label=label)

    def work(progress: Any) -> str:
        progress(ml.Progress(0, 0, f"loading {request.model}"))
        model = loaded.load(request.load_arguments)
        progress(ml.Progress(0, 0, "checking what the model lets us see"))
        return request.compute(model, progress, recompute=recompute)

    return ml.jobs.submit(request.id, work, device=queue, label=label)


def start_loading(request: Request) -> Any:
    """Load the model of a request in the background and check what it lets us see."""

    def work(progress: Any) -> None:
        progress(ml.Progress(0, 0, f"loading the weights of {request.model}"))
        model = loaded.load(request.load_arguments)
        progress(ml.Progress(0, 0, "checking what the model lets us see"))
        ml.verify(model)

    label, queue = f"Load {request.model}", queue_of(request)
    return ml.jobs.submit(_load_id(request), work, device=queue, label=label)


def loading(request: Request) -> Any | None:
    """Return the job that loads or loaded the model of a request, or None."""
    return ml.jobs.TABLE.job(_load_id(request))


def _load_id(request: Request) -> str:
    return "load " + " ".join(str(value) for value in request.load_arguments.values())


def queue_of(request: Request) -> str:
    """Return the queue of a request's device.

    `auto` and `cpu` may be the same processor: they share a queue, so that they never compete.
    """
    return "this machine" if request.device in ("auto", "cpu") else request.device


def _records() -> list[Any]:
    """Return all records of stored results, newest first; read once a second or after a run."""
    store = ml.Store()
    read, records = _listed.get(store.root, (0.0, []))
    ended = max((job.finished or 0.0 for job in ml.jobs.TABLE.jobs()), default=0.0)
    if time.time() - read > FRESH_SECONDS or ended >= read:
        now = time.time()
        records = store.find()
        _listed[store.root] = (now, records)
    return list(records)
