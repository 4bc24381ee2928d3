"""Where and how a model is edited when nothing is said: settings that are known to work."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["usual_options"]

_DEEP = 17 / 48
"""Relative depth of ROME's layer on GPT-2 XL, for models without a known one."""
_MEMIT_SMALL = {"clamp": 10.0, "decay_weight": 0.0, "steps": 40, "moment_weight": 1500.0}
"""MEMIT on `atlas`, on which the published options change nothing: of 10 capitals 7 are edited."""


def usual_options(model: "Model", method: str) -> dict[str, Any]:
    """Return the options of a method for a model, from `edit_settings` as far as these are known.

    Args:
        model: the model.
        method: `rank-one`, `memit` or `fine-tune`.
    """
    from mechlab import organisms
    from mechlab.methods.editing.settings import edit_settings

    known = edit_settings(model)
    layer = int(known.get("layer", int(model.n_layers * _DEEP)))
    if method == "rank-one":
        return {**known, "layer": layer}
    if method == "fine-tune":
        return {"layer": layer}
    layers = {"layers": tuple(range(max(0, layer - 4), layer + 1))}
    return layers | (_MEMIT_SMALL if model.name in organisms.names() else {})
