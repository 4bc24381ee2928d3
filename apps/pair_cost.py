"""What runs over heads and paths cost, told without loading the model. No Streamlit here."""

from typing import Any

import cost
import loaded
import mechlab as ml
import runs
from cost import Cost
from heads_request import HeadsRequest
from pair_request import PairRequest
from paths_request import PathsRequest

__all__ = ["heads_price", "paths_price", "shape_of"]


def shape_of(request: PairRequest) -> tuple[int, int] | None:
    """Return (layers, heads per layer): of the loaded model, a shipped one's card, a stored run."""
    if facts := loaded.summary(request.load_arguments):
        words = facts["attention heads"].split()
        return int(facts["layers"]), int(words[0]) if words[0].isdecimal() else 1
    if request.model in ml.organisms.names():
        told = ml.organisms.card(request.model).get("architecture", {})
        if {"layers", "heads"} <= set(told):
            return int(told["layers"]), int(told["heads"])
    for record in runs.recent():
        if record.model_name == request.model_name and {"layer", "head"} <= set(record.sizes):
            return int(record.sizes["layer"]), int(record.sizes["head"])
    return None


def heads_price(request: HeadsRequest) -> Cost:
    """Return what the heads page would run: passes per prompt, or one per prompt and cell."""
    shape = shape_of(request)
    each: int | None = {"attribution": 1, "gradient": 3}.get(request.how)
    if each is None and shape is not None:
        layers, heads = shape
        draws = int(request.options.get("draws", 1))
        each = 2 + draws * layers * (heads + 1 if request.site == "z" else 1)
    return _like_last(request, each)


def paths_price(request: PathsRequest) -> Cost:
    """Return what the paths page would run: one patched run per prompt and sender."""
    shape, senders = shape_of(request), None
    if request.senders == "set":
        senders = len(request.sender_texts)
    elif shape is not None:
        layers, heads = shape
        sizes = {"all_heads": layers * heads, "all_mlps": layers, "all": layers * (heads + 1) + 1}
        senders = sizes[request.senders]
    return _like_last(request, None if senders is None else 2 + senders)


def _like_last(request: PairRequest, each: int | None) -> Cost:
    size = None if each is None else request.size * each

    def of_stored(record: Any) -> int:
        return len(record.labels) * (each or 1)

    return cost.like_last(
        request, size, of_stored, "forward pass" if size == 1 else "forward passes"
    )
