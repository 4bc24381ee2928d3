"""`--estimate`: what a request would cost, told without running the model."""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mechlab.cli.costs import Cost, cost_of

if TYPE_CHECKING:
    from mechlab.models import Model
    from mechlab.prompts import PromptSet
    from mechlab.store import Store, TraceCost

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
    """Print the number of restored runs, and the time at the speed of the last stored one.

    Raises:
        MechlabError: what a real run would refuse before its first forward pass.
    """
    from mechlab.results import method_of

    method = method_of(function)
    if method.check is not None:
        method.check(model, prompts, **options)
    stored = key in store
    cost = None if stored else _cost(store, method.name, function, model, prompts, options)
    kind = "restored_runs" if method.name == "causal_trace" else "runs"
    if as_json:
        about = {"run": key[:12], "stored": stored, kind: 0, "seconds": 0.0}
        if not stored:
            about |= {kind: cost and cost.runs, "seconds": cost and cost.seconds}
        print(json.dumps(about))
    elif stored:
        print(f"run {key[:12]} is stored already; showing it computes nothing")
    elif cost is None:
        print(f"run {key[:12]} is not stored; of {method.name} there is no estimate of its time")
    else:
        runs = f"{cost.runs:,} {kind.replace('_', ' ')}"
        print(f"run {key[:12]}: up to {runs}, {_time(cost.seconds, method.name)}")


def _cost(
    store: "Store",
    method: str,
    function: Callable[..., Any],
    model: "Model",
    prompts: "PromptSet[Any]",
    options: Mapping[str, Any],
) -> "TraceCost | Cost | None":
    from mechlab.store import trace_cost

    defaults = {p.name: p.default for p in inspect.signature(function).parameters.values()}
    bound = {**defaults, **options}
    if method != "causal_trace":
        return cost_of(store, method, model, len(prompts), bound)
    return trace_cost(
        store.find(method=method, model=model.fingerprint),
        sites=1 if isinstance(bound["sites"], str) else len(bound["sites"]),
        layers=model.n_layers if bound["layers"] is None else len(bound["layers"]),
        tokens=sum(_traced_tokens(model, fact, bound["positions"]) for fact in prompts),
        samples=int(bound["samples"]),
    )


def _traced_tokens(model: "Model", fact: Any, positions: str) -> int:
    if positions == "last_subject":
        return 1
    if positions == "subject":
        first, last = model.subject_positions(fact)
        return last - first + 1
    return len(model.token_strings(fact.prompt))


def _time(seconds: float | None, method: str) -> str:
    what = "trace" if method == "causal_trace" else method
    if seconds is None:
        return f"time unknown before the first {what} of this model"
    return f"about {seconds:,.0f} s at the speed of the last {what}"
