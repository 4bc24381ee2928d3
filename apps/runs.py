"""Stored traces and background runs, as the pages see them. Nothing here touches Streamlit."""

import re
import time
from collections import OrderedDict
from typing import Any

import loaded
import mechlab as ml
from request import OTHER_DEFAULTS, Request

__all__ = ["find", "is_run_id", "job_of", "load", "of_model", "recent", "start"]

METHOD = "causal_trace"
_RUN_ID = re.compile(r"[0-9a-f]{12}")

_MOST_SHOWN = 4
_shown: OrderedDict[tuple[str, str, str], Any] = OrderedDict()
_listed: dict[str, tuple[float, list[Any]]] = {}


def is_run_id(text: str) -> bool:
    """Return whether a link's run is written as run ids are: twelve hex digits."""
    return _RUN_ID.fullmatch(text) is not None


def recent(most: int = 50) -> list[Any]:
    """Return the records of stored traces, the newest first."""
    return _records()[:most]


def load(run: str) -> Any | None:
    """Return a stored trace by its run id; None when this store does not have it.

    Raises:
        StoreError: when the entry is there but damaged.
    """
    store = ml.Store()
    if not is_run_id(run) or run not in store:
        return None
    entry = store.entry(run)
    key = (store.root, entry.key, entry.created)
    if key not in _shown:
        while len(_shown) >= _MOST_SHOWN:
            _shown.popitem(last=False)
        _shown[key] = store.get(entry.key)
    return _shown[key]


def find(request: Request) -> str | None:
    """Return the run id of the newest stored trace that answers exactly this request.

    Whether the model of that name is still the same cannot be told before it is loaded; running the
    request again compares fingerprints.
    """
    try:
        wanted = ml.prompts.as_prompt_set(request.fact()).digest
    except ml.MechlabError:
        return None
    matching = (entry for entry in _records() if entry.prompts == wanted)
    return next((entry.id for entry in matching if _answers(entry, request)), None)


def of_model(request: Request) -> list[Any]:
    """Return the records of stored traces of a request's model, the newest first."""
    return [entry for entry in _records() if entry.model_name == request.model_name]


def job_of(request: Request) -> Any | None:
    """Return the job that runs or ran this request in this process, or None."""
    return ml.jobs.TABLE.job(request.id)


def start(request: Request, *, recompute: bool = False) -> Any:
    """Run a request in the background, or attach to the run under way.

    Raises:
        PromptError: when the fact cannot be used; nothing is started then.
    """
    fact = request.fact()

    def work(progress: Any) -> str:
        progress(ml.Progress(0, 0, f"loading {request.model}"))
        model = loaded.load(request.load_arguments)
        progress(ml.Progress(0, 0, "checking what the model lets us see"))
        store = ml.Store()
        store.run(
            ml.causal_trace,
            model,
            fact,
            progress=progress,
            recompute=recompute,
            **request.options,
        )
        return str(store.key(ml.causal_trace, model, fact, **request.options))

    # `auto` and `cpu` may be the same processor: they share a queue, so that they never compete.
    queue = "this machine" if request.device in ("auto", "cpu") else request.device
    label = f"Trace “{request.prompt}” on {request.model}"
    return ml.jobs.submit(request.id, work, device=queue, label=label)


def _records() -> list[Any]:
    """Return all records of stored traces, newest first; read once a second or after a run."""
    store = ml.Store()
    read, entries = _listed.get(store.root, (0.0, []))
    ended = max((job.finished or 0.0 for job in ml.jobs.TABLE.jobs()), default=0.0)
    if time.time() - read > 1.0 or ended >= read:
        now = time.time()
        entries = store.find(method=METHOD)
        _listed[store.root] = (now, entries)
    return list(entries)


def _answers(entry: Any, request: Request) -> bool:
    about = entry.provenance
    version = request.revision if request.checkpoint is None else str(request.checkpoint)
    same_model = (
        entry.model_name == request.model_name
        and about.get("model_dtype", request.dtype) == request.dtype
        and about.get("model_weights", request.weights) == request.weights
        and about.get("model_revision", "none") == (version or "none")
    )
    wanted = {name: _plain(value) for name, value in request.options.items()}
    return same_model and all(
        _plain(entry.options.get(name, OTHER_DEFAULTS.get(name))) == value
        for name, value in {**OTHER_DEFAULTS, **wanted}.items()
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
