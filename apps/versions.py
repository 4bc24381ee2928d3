"""Versions of models: the training steps that shipped ones have, and what results call them."""

from collections.abc import Mapping
from typing import Any

import mechlab as ml

__all__ = ["last_step", "steps_of", "version_of"]


def steps_of(model: str) -> tuple[int, ...]:
    """Return the training steps at which a shipped model can be looked at, its end left out."""
    return tuple(ml.organisms.checkpoints(model)[:-1]) if model in ml.organisms.names() else ()


def version_of(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field, `checkpoint` or `revision`, that names the version of a result's model.

    Neither for the finished model, whichever way it was asked for.
    """
    revision = str(attrs.get("model_revision", "none"))
    shipped = attrs.get("model_source") == "shipped"
    if revision == "none" or (shipped and revision == last_step(str(attrs.get("model_name")))):
        return {}
    return (
        {"checkpoint": int(revision)}
        if shipped and revision.isdecimal()
        else {"revision": revision}
    )


def last_step(model: str) -> str:
    """Return the last training step of a shipped model, which is the model itself; else nothing."""
    steps = ml.organisms.checkpoints(model) if model in ml.organisms.names() else ()
    return str(steps[-1]) if steps else ""
