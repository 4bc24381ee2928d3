"""What is known of editing a model before anything is run: its settings, and its key statistics.

Nothing here touches Streamlit or loads a model.
"""

from types import SimpleNamespace
from typing import Any

import loaded
import mechlab as ml
import runs
from request import Request

__all__ = ["known_settings", "layers_of", "statistics_state"]


def known_settings(request: Request) -> dict[str, Any]:
    """Return the options of an edit that are known for a model, `layer` among them.

    From the card of a shipped model; of another one once it is loaded; else nothing.
    """
    if _is_shipped(request):
        return dict(ml.organisms.card(request.model).get("edit_settings", {}))
    facts = loaded.summary(request.load_arguments)
    if not facts:
        return {}
    shape = SimpleNamespace(
        family=facts["architecture"], n_layers=int(facts["layers"]), d_model=int(facts["width"])
    )
    return dict(ml.edit_settings(shape))  # type: ignore[arg-type]


def layers_of(request: Request) -> int | None:
    """Return how many layers a model has; None while that is not known without loading it."""
    if _is_shipped(request):
        told = ml.organisms.card(request.model).get("architecture", {}).get("layers")
    else:
        told = loaded.summary(request.load_arguments).get("layers")
    return None if told is None else int(told)


def statistics_state(request: Request, layer: int | None, tokens: int, corpus: str) -> str:
    """Say whether the key statistics of a layer are stored, without loading the model."""
    if layer is None:
        return ""
    held = [one for one in runs.recent(("key_statistics",), 500) if _is_of(one, request)]
    wanted = {"layer": layer, "tokens": tokens}
    for one in held:
        if one.name == corpus and all(one.options.get(n) == v for n, v in wanted.items()):
            return f"{tokens:,} tokens · stored"
    timed = next((one for one in held if one.wall_seconds > 0), None)
    about = ""
    if timed is not None:
        seconds = timed.wall_seconds * tokens / max(int(timed.options.get("tokens", tokens)), 1)
        about = f", about {max(1, round(seconds))} s"
    return f"{tokens:,} tokens · missing: counted first{about}"


def _is_shipped(request: Request) -> bool:
    return request.model in ml.organisms.names() and request.checkpoint is None


def _is_of(record: Any, request: Request) -> bool:
    model = loaded.summary(request.load_arguments).get("fingerprint")
    same = record.model.startswith(model) if model else True
    return bool(same and record.model_name == request.model_name)
