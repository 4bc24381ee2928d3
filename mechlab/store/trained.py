"""Models that studies train: Hugging Face folders below the store, each with its recipe.

On disk, below the root:

    models/<digest>/                 the model's files, and `recipe.json` with their checksums
    models/<digest>.run/             saved states of a training that is under way
    models/<digest>.lock             held while somebody trains it

A folder gets its name by one rename when all is in it.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from mechlab.canonical import digest, plain
from mechlab.errors import StoreError
from mechlab.results import library_versions
from mechlab.store.places import Place

__all__ = ["RECIPE", "trained_folder"]

RECIPE = "recipe.json"
"""What the model was made of, and the checksums of its files."""


def trained_folder(place: Place, recipe: object, train: Callable[[Path, Path], object]) -> Path:
    """Return the folder of a recipe's model; `Store.trained_model` says more.

    Raises:
        StoreError: the place is not on this machine's disk, the recipe has no canonical form, or a
            file of the folder is missing or changed.
    """
    if place.folder is None:
        raise StoreError(
            f"models are trained on a local disk, and the store is {place.url}.\n"
            "  Allowed: a folder.\n  Set MECHLAB_CACHE, or give Store(root=...)."
        )
    try:
        key, content = digest(recipe), plain(recipe)
    except TypeError as err:
        raise StoreError(
            f"the recipe cannot be kept: {err}.\n"
            "  Allowed: numbers, text, lists, mappings and frozen dataclasses of them.\n"
            "  Write it with these."
        ) from err
    folder = place.folder / "models" / key
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                _make(folder, content, train)
    except OSError as err:
        raise StoreError(
            f"the model {key[:12]} cannot be written below {folder.parent}: {err}."
            "\n  Saved states are kept.\n  Make space or set MECHLAB_CACHE, then run it again."
        ) from err
    _check(folder)
    return folder


def _make(folder: Path, recipe: object, train: Callable[[Path, Path], object]) -> None:
    states, made = folder.with_name(f"{folder.name}.run"), folder.with_name(f"{folder.name}.part")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    states.mkdir(exist_ok=True)
    train(made, states)
    about = {
        "recipe": recipe,
        "files": _sums(made),
        "versions": library_versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    (made / RECIPE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    made.rename(folder)
    shutil.rmtree(states)


def _sums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECIPE)
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _check(folder: Path) -> None:
    found = _sums(folder)
    try:
        about: dict[str, Any] = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        kept: dict[str, str] = about["files"]
        wrong = [name for name, check in kept.items() if found.get(name) != check]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        wrong = [RECIPE]
    if wrong:
        raise StoreError(
            f"the trained model {folder} is damaged: {', '.join(wrong)} missing or changed.\n"
            "  Allowed: the files as they were written.\n"
            "  Remove the folder; the model is then trained anew."
        )
