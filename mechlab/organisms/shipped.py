"""Where the shipped models lie, what is on their cards, and how their facts were acquired."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechlab.errors import ModelError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["acquisition", "card", "checkpoints", "names", "path"]

_HERE = Path(__file__).parent


def names() -> tuple[str, ...]:
    """Return the names of the shipped models, sorted."""
    return tuple(sorted(folder.parent.name for folder in _HERE.glob("*/card.json")))


def card(name: str) -> dict[str, Any]:
    """Return a model's card: architecture, recipe, measured skills, known answers, digests.

    Raises:
        ModelError: when no shipped model has that name.
    """
    text = (_folder(name) / "card.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def checkpoints(name: str) -> tuple[int, ...]:
    """Return the training steps that a model ships, in order; empty when only the last is there.

    Raises:
        ModelError: when no shipped model has that name.
    """
    folders = (_folder(name) / "checkpoints").glob("step-*")
    return tuple(sorted(int(folder.name.removeprefix("step-")) for folder in folders))


def path(name: str, checkpoint: int | str | None = None) -> Path:
    """Return a folder that `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer` load.

    Args:
        name: a shipped model.
        checkpoint: one of `checkpoints(name)`; the last by default.

    Raises:
        ModelError: when there is no such model or checkpoint; what exists is listed.
    """
    folder, steps = _folder(name), checkpoints(name)
    if checkpoint is None:
        return folder / "checkpoints" / f"step-{steps[-1]:06d}" if steps else folder
    if str(checkpoint) not in map(str, steps):
        there = ", ".join(map(str, steps)) or "none, only the finished model"
        raise ModelError(
            f"{name!r} has no checkpoint {checkpoint!r}. It ships: {there}. "
            "Choose one of these, or leave the checkpoint out for the finished model."
        )
    return folder / "checkpoints" / f"step-{int(checkpoint):06d}"


def acquisition(name: str) -> "xr.Dataset":
    """Return how a model acquired its facts while it was trained.

    Dims `step` (training steps, log-spaced) and `case` (one fact: a country and a relation, with
    coordinates `country`, `relation` and `rank`, 0 for the most frequent country). `exposures` is
    how often the true fact had been stated in English; `log_probability_seen`, `_paraphrased` and
    `_held_out` are natural logarithms of the probability of the answer's first token after one
    template of the training set, the mean over three others, and one that was held out.

    Raises:
        ModelError: when the model has no such record.
    """
    import numpy as np
    import xarray as xr

    file = _folder(name) / "acquisition.npz"
    if not file.exists():
        have = [known for known in names() if (_HERE / known / "acquisition.npz").exists()]
        raise ModelError(
            f"{name!r} was not trained on facts and has no acquisition record. "
            f"Models with one: {', '.join(have) or 'none'}. Ask for one of these."
        )
    with np.load(file, allow_pickle=False) as kept:
        scores = kept["log_probability"].astype(np.float32)
        parts: dict[str, Any] = {
            f"log_probability_{condition}": (("step", "case"), scores[:, i], {"units": "nats"})
            for i, condition in enumerate(kept["condition"])
        }
        parts["exposures"] = (("step", "case"), kept["exposures"], {"units": "documents"})
        coords: dict[str, Any] = {"step": kept["step"]}
        coords |= {label: ("case", kept[label]) for label in ("country", "relation", "rank")}
        cases = zip(kept["country"], kept["relation"], strict=True)
        coords["case"] = np.asarray([f"{country}: {relation}" for country, relation in cases])
    return xr.Dataset(parts, coords, {"model": name})


def _folder(name: str) -> Path:
    if name not in names():
        raise ModelError(
            f"unknown shipped model {name!r}. Shipped models: {', '.join(names()) or 'none'}. "
            "Choose one of these, or give a folder or a hub name to load_model."
        )
    return _HERE / name
