"""How many runs of the model a request takes, counted from its options alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechlab.models import Model
    from mechlab.store import Store

__all__ = ["Cost", "cost_of"]


@dataclass(frozen=True)
class Cost:
    """Size of a request."""

    runs: int
    """Runs of the model, at most: rows that share work count singly."""
    seconds: float | None
    """Time at the speed of the last stored run of this method and model; `None` without one."""


def cost_of(
    store: "Store", method: str, model: "Model", prompts: int, options: Mapping[str, Any]
) -> Cost | None:
    """Return what a request would cost; `None` for methods whose runs cannot be counted.

    Args:
        store: where earlier runs tell the speed.
        method: name of the method.
        model: the model.
        prompts: how many prompts.
        options: all options, defaults included.
    """
    count = _PER_PROMPT.get(method)
    if count is None:
        return None
    runs = prompts * count(model, options)
    for entry in store.find(method=method, model=model.fingerprint):
        before = len(entry.labels) * count(model, entry.options)
        if entry.wall_seconds > 0 and before:
            return Cost(runs, runs * entry.wall_seconds / before)
    return Cost(runs, None)


def _cells(model: "Model", options: Mapping[str, Any]) -> int:
    """Return cells of a sweep over heads or layers; positions in cells of their own not counted."""
    if options.get("heads") is not None:
        return len(options["heads"])
    layers = model.n_layers if options.get("layers") is None else len(options["layers"])
    by = options.get("by", "head")
    width = {"head": model.n_heads, "kv_head": model.n_kv_heads}.get(by, 1)
    return layers * (width or 1)


def _exact(model: "Model", options: Mapping[str, Any]) -> int:
    return 2 + _cells(model, options)


def _ablated(model: "Model", options: Mapping[str, Any]) -> int:
    sets = 1 if options["by"] == "set" else _cells(model, options)
    return 1 + sets * (int(options["draws"]) if options["kind"] == "resample" else 1)


def _gradients(model: "Model", options: Mapping[str, Any]) -> int:
    layers = model.n_layers if options.get("layers") is None else len(options["layers"])
    steps = int(options["steps"])
    return 3 if steps == 1 else 3 + 2 * steps * layers


def _screened(model: "Model", options: Mapping[str, Any]) -> int:
    return _gradients(model, options) + 2 + int(options["k"]) + int(options["sample"])


def _scaled(_: "Model", options: Mapping[str, Any]) -> int:
    sets = 1 if options["together"] else len(options["heads"])
    return 1 + sets * (1 + int(options["controls"])) * len(options["alpha"])


def _cut(model: "Model", options: Mapping[str, Any]) -> int:
    layers = model.n_layers if options["layers"] is None else len(options["layers"])
    groups = 1 if isinstance(options["keys"], str) else len(options["keys"])
    return 1 + layers * groups


def _paths(model: "Model", options: Mapping[str, Any]) -> int:
    return 2 + _nodes(model, options["senders"]) * _nodes(model, options["receivers"])


def _nodes(model: "Model", given: Any) -> int:
    heads = model.n_layers * (model.n_heads or 0)
    sweeps = {
        "all_mlps": model.n_layers,
        "all": heads + model.n_layers + 1,
        "all_kv_heads_k": model.n_layers * (model.n_kv_heads or 0),
        "all_kv_heads_v": model.n_layers * (model.n_kv_heads or 0),
    }
    if not isinstance(given, str):
        return sum(_nodes(model, item) if isinstance(item, str) else 1 for item in given)
    return heads if given.startswith("all_heads") else sweeps.get(given, 1)


def _without_groups(_: "Model", options: Mapping[str, Any]) -> int:
    """Return runs per list: each is read for its loss and for its recall."""
    sets = 1 + len(options["groups"]) * (1 + int(options["draws"]))
    return 2 * sets * len(options["kinds"])


_PER_PROMPT: dict[str, Callable[["Model", Mapping[str, Any]], int]] = {
    "ablate": _ablated,
    "activation_patch": _exact,
    "attribution_patch": _gradients,
    "direct_logit_attribution": lambda _, options: 2 if options["norm"] == "clean" else 1,
    "induction_scores": lambda *_: 1,
    "knockout": _cut,
    "logit_lens": lambda *_: 1,
    "memory_ablation": _without_groups,
    "memory_heads": lambda *_: 2,
    "path_patch": _paths,
    "scale_heads": _scaled,
    "screen_then_verify": _screened,
    "token_lens": lambda *_: 1,
}
