"""What tests of editing workflows share: two small cases, key statistics, and quick settings."""

import functools
import warnings
from typing import Any

import numpy as np
import torch
import toys

from mechlab.engine.verify import EngineWarning, verify
from mechlab.methods.editing import KeyStatistics
from mechlab.methods.editing.edits import unedited_fingerprint
from mechlab.methods.editing.modules import projection
from mechlab.models import Model, wrap_model
from mechlab.prompts import EditCase, EditRequest, PromptSet, ScoredPrompt

TEXTS = ["Ann was born in Madrid, near the river.", "Mary gave the book to John."]
SETTINGS: dict[str, Any] = {"contexts": ("", "Ann was born. "), "steps": 4, "learning_rate": 0.3}
CASES = PromptSet(
    tuple(
        EditCase(
            EditRequest("The capital of {} is", subject, new, old),
            paraphrases=[f"{subject} has the capital"],
            neighbourhood=[
                ScoredPrompt("The capital of Spain is", new, "Madrid"),
                ScoredPrompt("The capital of Italy is", "Berlin", "Rome"),
            ],
        )
        for subject, new, old in (("Germany", "Rome", "Berlin"), ("Italy", "Paris", "Rome"))
    ),
    "two capitals",
)


@functools.cache
def model(family: str) -> Model:
    """A toy of the tests' own, proven once; edits must leave no trace."""
    made = wrap_model(toys.make_hf(family), toys.make_tokenizer("bpe"), name=family)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)
        verify(made)
    return made


@functools.cache
def statistics(family: str) -> KeyStatistics:
    """Statistics of random keys: any positive matrix will do."""
    place = projection(model(family), 0)
    width = place.d_in
    rows = np.random.default_rng(0).normal(size=(toys.N_LAYERS, 2 * width, width))
    moments = np.einsum("lti,ltj->lij", rows, rows) / (2 * width)
    layers = tuple(range(toys.N_LAYERS))
    return KeyStatistics(
        layers, place.site, moments, 2 * width, unedited_fingerprint(model(family))
    )


def options(family: str, **more: Any) -> dict[str, Any]:
    """Options of an editing workflow on a toy."""
    return {"key_statistics": statistics(family), "settings": SETTINGS, **more}


def weights(family: str) -> list[torch.Tensor]:
    """A copy of all weights."""
    return [parameter.detach().clone() for parameter in model(family).hf.parameters()]


def untouched(family: str, before: list[torch.Tensor]) -> bool:
    """Whether the model holds the very weights it had, and no edit is in force."""
    now = model(family).hf.parameters()
    same = all(torch.equal(a, b) for a, b in zip(before, now, strict=True))
    return same and model(family).edits == ()


class Journal(dict[str, Any]):
    """A journal in memory."""

    put = dict.__setitem__
