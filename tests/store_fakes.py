"""A model and methods without torch: what the store needs to know of either."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mechlab.progress import Journal, Progress, ProgressCallback
from mechlab.prompts import Fact, PromptSet, as_prompt_set, role_of_positions
from mechlab.results import WORK, analysis, new_result

LAYERS, SITES, SAMPLES = 3, ("resid_post", "mlp_out"), 4


class FakeModel:
    """Its name decides its numbers."""

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.fingerprint = f"{name}-fingerprint"
        self.provenance = {"name": name, "device": "cpu", "dtype": "float32", "revision": None}


def facts(count: int) -> PromptSet[Fact]:
    """Facts of different lengths, with letters beyond ASCII."""
    made = [
        Fact(f"Über {'sehr ' * (i % 4)}Land {i} ist", f"Land {i}", f"Stadt {i}")
        for i in range(count)
    ]
    return PromptSet(tuple(made), "facts")


CALLS: list[str] = []
"""Prompts for which `trace` was really computed, in order."""


@analysis(version=3)
def trace(
    model: FakeModel,
    prompts: Any,
    *,
    window: int = 2,
    noise_scale: float = 3.0,
    seed: int = 0,
    slow: float = 0.0,
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> xr.Dataset:
    """A stand-in for a traced fact: layers are batches, kept in the journal when there is one."""
    started, chosen = time.time(), as_prompt_set(prompts)
    CALLS.extend(fact.prompt for fact in chosen)
    longest = max(len(fact.prompt.split()) for fact in chosen)
    shape = (len(chosen), len(SITES), LAYERS, longest)
    effect = np.full(shape, np.nan)
    restored = np.full((*shape, SAMPLES), np.nan, dtype=np.float32)
    tokens = np.full((len(chosen), longest), "", dtype="<U16")
    roles = tokens.copy()
    for row, fact in enumerate(chosen):
        words = fact.prompt.split()
        tokens[row, : len(words)] = words
        roles[row, : len(words)] = role_of_positions(len(words), len(words) - 3, len(words) - 2)
        for layer in range(LAYERS):
            batch = _batch(
                model, fact, layer, len(words), noise_scale * window + seed, slow, journal
            )
            restored[row, :, layer, : len(words)] = batch
            effect[row, :, layer, : len(words)] = batch.mean(axis=-1)
            if progress is not None:
                progress(Progress(layer + 1, LAYERS, "rows", xr.Dataset({"layer": [layer]})))
    return new_result(
        {
            "indirect_effect": (
                ("prompt", "site", "layer", "pos"),
                effect,
                {"units": "probability"},
            ),
            "restored_probability": (("prompt", "site", "layer", "pos", "sample"), restored),
            "total_effect": ("prompt", effect[:, 0, 0, 0]),
            "known": ("prompt", np.array([len(fact.prompt) % 2 == 0 for fact in chosen])),
        },
        {
            "prompt": list(chosen.labels),
            "site": list(SITES),
            "layer": np.arange(LAYERS),
            "pos": np.arange(longest),
            "sample": np.arange(SAMPLES),
            "token": (("prompt", "pos"), tokens),
            "token_role": (("prompt", "pos"), roles),
            "subject": ("prompt", [fact.subject for fact in chosen]),
            "window_start": (("site", "layer"), np.zeros((len(SITES), LAYERS), dtype=int)),
        },
        method="trace",
        version=3,
        model=model,
        prompts=chosen,
        options={"window": window, "noise_scale": noise_scale, "seed": seed},
        seed=seed,
        started=started,
    )


def _batch(
    model: FakeModel,
    fact: Fact,
    layer: int,
    length: int,
    scale: float,
    slow: float,
    journal: Journal | None,
) -> np.ndarray[Any, Any]:
    key = f"{layer}"
    if journal is not None and (kept := journal.get(key)) is not None:
        return kept
    log_batch(f"{fact.prompt} {layer}")
    time.sleep(slow)
    seed = [*f"{model.name} {fact.prompt} {layer} {scale}".encode()]
    batch = (
        np.random.default_rng(seed).normal(size=(len(SITES), length, SAMPLES)).astype(np.float32)
    )
    if journal is not None:
        journal.put(key, batch)
    return batch


def log_batch(text: str) -> None:
    """Append to the file `FAKE_LOG`, so that batches computed in child processes can be counted."""
    if path := os.environ.get("FAKE_LOG"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


@analysis(default_plot="lines", per_prompt=False)
def spread(model: FakeModel, prompts: Any, *, power: int = 1) -> xr.Dataset:
    """A method whose number depends on all prompts together."""
    chosen = as_prompt_set(prompts)
    CALLS.append("spread")
    lengths = np.array([len(fact.prompt) for fact in chosen], dtype=float)
    return new_result(
        {"spread": ((), float((lengths**power).std()))},
        method="spread",
        version=1,
        model=model,
        prompts=chosen,
        options={"power": power},
        seed=None,
        started=time.time(),
    )


def numbers(result: xr.Dataset) -> xr.Dataset:
    """A result without what differs between two runs of the same thing: time and work."""
    kept = {k: v for k, v in result.attrs.items() if k not in ("started", *WORK)}
    return result.copy().drop_attrs(deep=False).assign_attrs(kept)
