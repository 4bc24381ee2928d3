"""What a trace would cost, told before it runs and without loading the model. No Streamlit here."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import loaded
import mechlab as ml
from request import Request

__all__ = ["Cost", "estimate"]

_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


@dataclass(frozen=True)
class Cost:
    """Size of a trace; None where it cannot be told without loading the model."""

    rows: int | None
    """Restored runs: sites × layers × tokens × noise samples."""
    seconds: float | None
    """Expected time at the speed of the last stored trace of this model."""
    loaded: bool
    """Whether the model is in memory already."""

    def in_words(self) -> str:
        """Say it in one line."""
        parts = []
        if self.rows is not None:
            parts.append(f"about {self.rows:,} restored runs")
        if self.seconds is not None:
            parts.append(f"about {duration(self.seconds)} at the speed of the last trace")
        if not self.loaded:
            parts.append("the model is loaded first")
        return " · ".join(parts) or "The size is known once the model is loaded."


def estimate(request: Request, stored: Iterable[Any] = ()) -> Cost:
    """Return what a request would cost.

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


def duration(seconds: float) -> str:
    """Write a duration as `8 s` or `3:20 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{int(seconds // 60)}:{int(seconds % 60):02d} min"


def _loaded_size(request: Request) -> tuple[int | None, int | None]:
    try:
        tokens = loaded.tokens(request.load_arguments, request.prompt)
    except ml.MechlabError:
        return None, None
    return int(loaded.summary(request.load_arguments)["layers"]), len(tokens)


def _size_on_disk(request: Request) -> tuple[int | None, int | None]:
    folder = _folder(request.model)
    if folder is None:
        return None, None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, None
    layers = next((config[key] for key in _LAYER_KEYS if key in config), None)
    return layers, _count_tokens(folder / "tokenizer.json", request.prompt)


def _folder(model: str) -> Path | None:
    if model in ml.organisms.names():
        return Path(ml.organisms.path(model))
    return folder if (folder := Path(model).expanduser()).is_dir() else None


def _count_tokens(file: Path, text: str) -> int | None:
    from tokenizers import Tokenizer

    if not file.is_file():
        return None
    tokenizer: Any = Tokenizer.from_file(str(file))
    return len(tokenizer.encode(text).ids)
