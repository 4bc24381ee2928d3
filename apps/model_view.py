"""Models that can be chosen, told without loading one: where they are and how much they need.

No Streamlit here, and no torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mechlab as ml
from model_path import folder_of

__all__ = ["KnownModel", "about", "free_memory", "in_words"]

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8, "int8": 1}


@dataclass(frozen=True)
class KnownModel:
    """What is known of a model before it is loaded."""

    name: str
    where: str
    """`built in, offline`, `in the local cache`, `a folder`, or `not on this machine`."""
    parameters: int | None
    """How many numbers its weights are; None when they are not here."""
    folder: Path | None
    """Where its files are."""

    def needs(self, dtype: str) -> int | None:
        """Return about how many bytes its weights take in memory at a precision."""
        return None if self.parameters is None else self.parameters * _BYTES.get(dtype, 4)


def about(name: str) -> KnownModel:
    """Return what is known of a model by its name, or by the path of its folder."""
    if name in ml.organisms.names():
        folder = Path(ml.organisms.path(name))
        return KnownModel(name, "built in, offline", _parameters(folder), folder)
    if (here := folder_of(name)) is not None:
        return KnownModel(name, "a folder", _parameters(here), here)
    cached = _cached_folder(name)
    if cached is not None:
        return KnownModel(name, "in the local cache", _parameters(cached), cached)
    return KnownModel(name, "not on this machine", None, None)


def in_words(model: KnownModel, dtype: str, free: int) -> str:
    """Say in one line where a model is, what it needs, and whether that is there."""
    if model.folder is None:
        return "not on this machine; loading it downloads it when the network allows"
    needed = model.needs(dtype)
    if needed is None:
        return f"{model.where} · no safetensors weights found"
    fits = "fits" if needed < 0.9 * free else "does not fit: choose bfloat16 or a smaller model"
    return f"{model.where} · {_size(needed)} as {dtype} · {_size(free)} free · {fits}"


def free_memory() -> int:
    """Return how many bytes of main memory are free."""
    import psutil

    return int(psutil.virtual_memory().available)


def _cached_folder(name: str) -> Path | None:
    from huggingface_hub import constants

    held = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "snapshots"
    try:
        found = sorted(held.glob("*/*.safetensors"))
    except (OSError, ValueError):  # a name that no folder can have
        return None
    return found[-1].parent if found else None


def _parameters(folder: Path) -> int | None:
    """Return how many numbers the weights hold, from the headers of their files alone."""
    try:
        return sum(_numbers(file) for file in folder.glob("*.safetensors")) or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _numbers(file: Path) -> int:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > 100_000_000:
            raise ValueError("not a safetensors file")
        header: dict[str, Any] = json.loads(stream.read(length))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            count = 1
            for size in tensor["shape"]:
                count *= int(size)
            total += count
    return total


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 5e7 else f"{count / 1e6:.1f} MB"
