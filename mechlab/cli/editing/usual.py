"""Where and how a model is edited when nothing is said: settings that are known to work."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["note_foreign_corpus", "usual_options"]

_DEEP = 17 / 48
"""Relative depth of ROME's layer on GPT-2 XL, for models without a known one."""
_MEMIT_SMALL = {
    "clamp": 5.0, "decay_weight": 0.0, "steps": 40, "stop_loss": 0.2, "moment_weight": 100.0
}  # fmt: skip
_TUNE_SMALL = {"learning_rate": 5e-3}
"""For `atlas`, on which the published options change nothing; measured in the studies of sequential
editing (MEMIT: of 10 capitals at once 9 hold, of 100 96) and of fact editing (fine-tuning)."""


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
    small = model.name in organisms.names()
    if method == "fine-tune":
        return {"layer": layer} | (_TUNE_SMALL if small else {})
    layers = {"layers": tuple(range(max(0, layer - 4), layer + 1))}
    return layers | (_MEMIT_SMALL if small else {})


def note_foreign_corpus(model: "Model", statistics: Mapping[str, Any]) -> None:
    """Warn where no corpus was named and the usual one is not what the model was trained on.

    Args:
        model: the model.
        statistics: options of the key statistics that were given.
    """
    from mechlab import organisms

    if "corpus" in statistics or model.name in organisms.names():
        return
    warnings.warn(
        f"key statistics of {model.name} are counted on the shipped corpus of atlas, sentences "
        "about countries: what other text needs is hardly preserved. Name text like that which the "
        "model was trained on with --corpus (corpus in a spec).",
        stacklevel=2,
    )
