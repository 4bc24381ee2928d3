"""Why an edit cannot be run, in a sentence, as far as it can be told before it is.

What needs more is refused by the methods themselves, before any forward pass. Nothing here touches
Streamlit or loads a model.
"""

import json
from typing import Any

import loaded
import mechlab as ml
from edit_known import layers_of

__all__ = ["fact_problem", "number_problem", "token_problem"]

MOST = {
    "tokens": 100_000_000, "steps": 10_000, "samples": 10_000, "generation_length": 10_000,
    "seed": 2**32 - 1, "noise_scale": 1e6, "learning_rate": 1e6, "clamp": 1e6, "decay_weight": 1e6,
    "stop_loss": 1e6,
}  # fmt: skip
"""Beyond these a run would take days and could hardly be stopped, or would mean nothing."""


def fact_problem(request: Any) -> str:
    """Return what is wrong with the texts of a `FactEditRequest`; empty when nothing is."""
    if "{}" not in request.template:
        subject = request.subject or "the subject"
        return f"The prompt needs {{}}, or {subject!r} itself, where the subject stands."
    if request.template.count("{}") > 1:
        return "The prompt holds {} more than once: the subject stands in one place."
    if not request.subject:
        return "Give the subject: what the fact is about."
    if not request.new_object:
        return "Give the new object: what the model shall say instead."
    if request.new_object == request.target:
        return f"The new object {request.new_object!r} is what the fact says now."
    return ""


def number_problem(request: Any) -> str:
    """Return what is wrong with the layer or another number; empty when nothing is."""
    if request.layer is None and "layer" not in json.loads(request.more):
        return (
            "Choose a layer: none is known for this model before it is loaded. A trace shows "
            "where to begin."
        )
    count = layers_of(request)
    if request.layer is not None and count is not None and not 0 <= request.layer < count:
        return f"{request.model} has {count} layers, 0 to {count - 1}: there is no {request.layer}."
    own = ("steps", "learning_rate", "clamp", "decay_weight", "stop_loss")
    for name, most in MOST.items():
        value = getattr(request, name)
        if value is not None and value > most and (request.own or name not in own):
            return f"{name.replace('_', ' ')} {value:,} is too much: allowed is up to {most:,}."
    return ""


def token_problem(request: Any) -> str:
    """Return what the tokenizer of a loaded model has against the objects; empty when nothing."""
    if not loaded.is_loaded(request.load_arguments):
        return ""
    prompt = request.request.prompt
    old = request.case().request.target_true
    try:
        start = len(loaded.tokens(request.load_arguments, prompt))
        new, true = (
            loaded.tokens(request.load_arguments, f"{prompt} {word}")[start:]
            for word in (request.new_object, old or request.new_object)
        )
    except ml.MechlabError as error:
        return " ".join(line.strip() for line in str(error).splitlines())
    if old and new[:1] == true[:1]:
        return (
            f"{request.new_object!r} and {old!r} begin with the same token ({new[0]!r}): the "
            "edit could not be told from the fact."
        )
    return ""
