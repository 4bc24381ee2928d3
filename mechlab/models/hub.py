"""Models that are present, and fetching one from the Hugging Face hub (or its cache, offline)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import huggingface_hub
from huggingface_hub import constants, errors

from mechlab.errors import ModelError
from mechlab.models.folder import check_weight_files
from mechlab.models.quiet import quiet

__all__ = ["InstalledModel", "download", "installed_models", "shipped_names", "unknown_model"]

_WANTED = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
)
"""What is fetched: no pickled weights, no code, no copies of the weights in other formats."""


@dataclass(frozen=True, order=True)
class InstalledModel:
    """A model that loads without a network.

    Attributes:
        name: what to give to `load_model`.
        source: `shipped` with mechlab, or found in the hub `cache`.
        bytes: size on disk.
        path: where it lies.
    """

    name: str
    source: Literal["shipped", "cache"]
    bytes: int
    path: Path


def shipped_names() -> tuple[str, ...]:
    """Return the names of the models that come with mechlab."""
    from mechlab import organisms

    return organisms.names()


def installed_models() -> list[InstalledModel]:
    """Return the models that load without a network: shipped ones, then those in the hub cache."""
    return [*_shipped(), *sorted(_cached())]


def download(name: str, revision: str | None) -> Path:
    """Return the folder of a hub model, fetching what is not in the cache.

    Args:
        name: `owner/model` or a short hub name.
        revision: branch, tag or commit; `None` for the main branch.

    Raises:
        ModelError: when the model or revision does not exist, is gated, or is not in the cache
            and the hub cannot be reached. The message lists the models that are present.
    """
    try:
        with quiet():
            folder = huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=list(_WANTED)
            )
    except (errors.HFValidationError, ValueError) as err:
        raise unknown_model(name, "it is not a name that the hub allows") from err
    except Exception as err:
        raise unknown_model(name, _reason(err, revision)) from err
    _refuse_pickled(name, revision, Path(folder))
    return Path(folder)


def _refuse_pickled(name: str, revision: str | None, folder: Path) -> None:
    """Name the pickled weights of a repository without safetensors; they were not fetched."""
    files = [path.name for path in folder.iterdir()]
    if not any(file.endswith(".safetensors") for file in files) and not constants.HF_HUB_OFFLINE:
        try:
            files = huggingface_hub.list_repo_files(name, revision=revision)
        except Exception:  # offline after all: the cached files have to do
            files = [path.name for path in folder.iterdir()]
    check_weight_files(name, [file for file in files if "/" not in file])


def unknown_model(name: str, reason: str) -> ModelError:
    """Return the error for a model that is not there, listing those that are."""
    present = "\n".join(
        f"    {model.name} ({model.source}, {model.bytes / 1e6:.1f} MB)"
        for model in installed_models()
    )
    return ModelError(
        f"model {name!r} is not available: {reason}.\n"
        f"  Present on this machine:\n{present or '    none'}\n"
        "  Name one of these, a folder with config.json, *.safetensors and a tokenizer, or a hub "
        "model while online (HF_HUB_OFFLINE unset)."
    )


def _reason(err: Exception, revision: str | None) -> str:
    version = f" at revision {revision!r}" if revision else ""
    if isinstance(err, errors.GatedRepoError):
        return "its owner asks for an agreement first; accept it on the hub and set HF_TOKEN"
    if isinstance(err, errors.RevisionNotFoundError):
        return f"the hub has no revision {revision!r} of it"
    if isinstance(err, errors.RepositoryNotFoundError):
        return "neither shipped, nor a folder, nor on the hub (or it is private)"
    if constants.HF_HUB_OFFLINE:
        return f"it is not in the hub cache{version}, and HF_HUB_OFFLINE is set"
    return (
        f"it is not in the hub cache{version}, and the hub cannot be reached ({type(err).__name__})"
    )


def _shipped() -> Iterator[InstalledModel]:
    from mechlab import organisms

    for name in shipped_names():
        path = organisms.path(name)
        steps = [organisms.path(name, step) for step in organisms.checkpoints(name)]
        yield InstalledModel(name, "shipped", _size([path, *steps]), path)


def _cached() -> Iterator[InstalledModel]:
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*")):
        snapshots = [p for p in folder.glob("snapshots/*") if (p / "config.json").exists()]
        if complete := [p for p in snapshots if any(p.glob("*.safetensors"))]:
            name = folder.name.removeprefix("models--").replace("--", "/")
            yield InstalledModel(name, "cache", _size(complete), folder)


def _size(folders: Sequence[Path]) -> int:
    """Return the bytes of the folders' files, links followed, shared files once."""
    paths = (path for folder in folders for path in folder.rglob("*"))
    return sum(path.stat().st_size for path in {path.resolve() for path in paths if path.is_file()})
