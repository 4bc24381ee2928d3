"""What a run would cost, told before it runs and without loading the model. No Streamlit here."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import loaded
import mechlab as ml
import runs
from model_path import folder_of
from request import Request
from text import duration
from trace_request import TraceRequest

__all__ = ["Cost", "estimate", "like_last"]

_LONG = 3600.0
"""Seconds after which a run had better not end with the dashboard."""

_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


@dataclass(frozen=True)
class Cost:
    """Size of a run; None where it cannot be told without loading the model."""

    rows: int | None
    """How many runs of the model, e.g. sites × layers × tokens × noise samples."""
    seconds: float | None
    """Expected time at the speed of the last stored trace of this model."""
    loaded: bool
    """Whether the model is in memory already."""
    unit: str = "restored runs"
    """What `rows` counts."""

    def in_words(self, *, detachable: bool = True) -> str:
        """Say it in one line of Markdown; above an hour with a word on where to run it.

        Args:
            detachable: whether the page has the button Run detached.
        """
        parts = []
        if self.rows is not None:
            parts.append(f"about {self.rows:,} {self.unit}")
        if self.seconds is not None:
            parts.append(f"about {duration(self.seconds)} at the speed of the last one")
        if not self.loaded:
            parts.append("the model is loaded first")
        if detachable and (self.seconds or 0) > _LONG:
            parts.append(":orange[long: consider Run detached, under Options]")
        return " · ".join(parts) or "The size is known once the model is loaded."


def like_last(
    request: Request,
    size: int | None = None,
    size_of: Callable[[Any], int] | None = None,
    unit: str = "runs",
) -> Cost:
    """Return what a run would cost, going by the last stored one of this method and model.

    Args:
        request: what would be run.
        size: how much there is to do; None when it cannot be told yet.
        size_of: how much a stored run had to do, told from its record; left out, the time of the
            last run is taken as it is.
        unit: what `size` counts.
    """
    last = next((record for record in runs.of_model(request) if record.wall_seconds > 0), None)
    seconds = None
    if last is not None and size_of is None:
        seconds = last.wall_seconds
    elif last is not None and size is not None and size_of is not None:
        seconds = last.wall_seconds * size / max(size_of(last), 1)
    return Cost(size, seconds, loaded.is_loaded(request.load_arguments), unit)


def estimate(request: TraceRequest, stored: Iterable[Any] = ()) -> Cost:
    """Return what a causal trace would cost.

    Args:
        request: what would be run.
        stored: records of stored traces of this model, newest first, which tell the speed.
    """
    ready = loaded.is_loaded(request.load_arguments)
    layers, tokens = _loaded_size(request) if ready else _size_on_disk(request)
    if not layers or not tokens:
        return Cost(None, None, ready)
    told = ml.trace_cost(
        stored, sites=len(request.sites), layers=layers, tokens=tokens, samples=request.samples
    )
    return Cost(told.runs, told.seconds, ready)


def _loaded_size(request: TraceRequest) -> tuple[int | None, int | None]:
    try:
        tokens = sum(len(loaded.tokens(request.load_arguments, text)) for text in _texts(request))
    except ml.MechlabError:
        return None, None
    return int(loaded.summary(request.load_arguments)["layers"]), tokens


def _texts(request: TraceRequest) -> list[str]:
    return [fact.prompt for fact in ml.prompts.as_prompt_set(request.prompts())]


def _size_on_disk(request: TraceRequest) -> tuple[int | None, int | None]:
    folder = _folder(request.model)
    if folder is None:
        return None, None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, None
    layers = next((config[key] for key in _LAYER_KEYS if key in config), None)
    try:
        return layers, _count_tokens(folder / "tokenizer.json", _texts(request))
    except ml.MechlabError:
        return None, None


def _folder(model: str) -> Path | None:
    if model in ml.organisms.names():
        return Path(ml.organisms.path(model))
    return folder_of(model)


def _count_tokens(file: Path, texts: list[str]) -> int | None:
    from tokenizers import Tokenizer

    if not file.is_file():
        return None
    tokenizer: Any = Tokenizer.from_file(str(file))
    return sum(len(tokenizer.encode(text).ids) for text in texts)
