"""`--estimate`: what a trace would cost, told without running the model."""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechlab.models import Model
    from mechlab.prompts import PromptSet
    from mechlab.store import Store

__all__ = ["show"]


def show(
    store: "Store",
    key: str,
    function: Callable[..., Any],
    model: "Model",
    prompts: "PromptSet[Any]",
    options: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """Print the number of restored runs, and the time at the speed of the last stored trace."""
    stored = key in store
    defaults = {p.name: p.default for p in inspect.signature(function).parameters.values()}
    rows = 0 if stored else _rows(model, prompts, {**defaults, **options})
    rate = _rate(store, model)
    seconds = 0.0 if stored else rows / rate if rate else None
    if as_json:
        about = {"run": key[:12], "stored": stored, "restored_runs": rows, "seconds": seconds}
        print(json.dumps(about))
    elif stored:
        print(f"run {key[:12]} is stored already; showing it computes nothing")
    else:
        print(f"run {key[:12]}: up to {rows:,} restored runs, {_time(seconds)}")


def _rows(model: "Model", prompts: "PromptSet[Any]", options: Mapping[str, Any]) -> int:
    """Return sites × layers × tokens × samples, summed over all facts."""
    tokens = sum(len(model.token_strings(fact.prompt)) for fact in prompts)
    layers = len(options["layers"] or range(model.n_layers))
    return len(options["sites"]) * layers * tokens * int(options["samples"])


def _rate(store: "Store", model: "Model") -> float | None:
    """Return restored runs per second in the newest stored trace of this model, if any."""
    for entry in store.find(method="causal_trace", model=model.fingerprint):
        if entry.wall_seconds > 0:
            rows = 1
            for axis in ("prompt", "site", "layer", "pos", "sample"):
                rows *= int(entry.sizes.get(axis, 1))
            return rows / entry.wall_seconds
    return None


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "time unknown before the first trace of this model"
    return f"about {seconds:,.0f} s at the speed of the last trace"
