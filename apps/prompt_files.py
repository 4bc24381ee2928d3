"""Files of facts that people read in: kept in the store's folder, named by their content.

A link names a file by twelve hex digits and never by a path. Nothing here touches Streamlit.
"""

import json
import re
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mechlab as ml

__all__ = ["MOST_BYTES", "facts_of", "id_of_digest", "known", "name_of", "path_of", "take"]

MOST_BYTES = 5_000_000
"""A larger file is refused."""
MOST_FACTS = 2_000
"""More facts than these are for the command line."""

_ID = re.compile(r"[0-9a-f]{12}")
_ENDINGS = (".csv", ".json")
_read: dict[tuple[str, str], Any] = {}


def take(name: str, data: bytes) -> str:
    """Keep a file of facts and return its id.

    Args:
        name: of the file; only its ending and its stem are used.
        data: its content.

    Raises:
        PromptError: when it is too large, of another kind, or rows cannot be used; nothing is kept.
    """
    ending = Path(name).suffix.lower()
    if ending not in _ENDINGS or len(data) > MOST_BYTES:
        raise ml.PromptError(
            f"{Path(name).name} cannot be taken: {ending or 'no ending'}, {len(data):,} bytes. "
            f"Allowed: {', '.join(_ENDINGS)} of at most {MOST_BYTES:,} bytes. Convert or split it."
        )
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"facts{ending}"
        file.write_bytes(data)
        facts = ml.prompts.read_facts(file)
    if len(facts) > MOST_FACTS:
        raise ml.PromptError(
            f"{Path(name).name} holds {len(facts):,} facts. Allowed here: at most {MOST_FACTS:,}. "
            "Use `mechlab trace --facts FILE` for more."
        )
    return _keep(Path(name).stem, facts)


def facts_of(set_id: str) -> Any:
    """Return the facts of a file.

    Raises:
        PromptError: when there is no such file in this store.
    """
    path = path_of(set_id)
    key = (str(path), set_id)
    if key not in _read:
        if not _ID.fullmatch(set_id) or not path.is_file():
            raise ml.PromptError(f"the file of facts {set_id!r} is not here. Read it in again.")
        _read.clear()  # one is enough
        _read[key] = ml.prompts.read_facts(path)
    return _read[key]


def known() -> dict[str, str]:
    """Return the files that are here: id to name with the number of facts."""
    found = {}
    for file in sorted(_folder().glob("*.json")):
        set_id = file.stem
        if _ID.fullmatch(set_id) and (about := _about(set_id)) is not None:
            found[set_id] = f"{about['name']} · {about['count']} facts"
    return found


def name_of(set_id: str) -> str:
    """Return what people call a file."""
    about = _about(set_id)
    return f"{about['name']} · {about['count']} facts" if about else f"file {set_id}"


def id_of_digest(digest: str) -> str:
    """Return the id of the file whose facts have this digest; empty when it is not here."""
    set_id = digest[:12]
    about = _about(set_id)
    return set_id if about is not None and about["digest"] == digest else ""


def path_of(set_id: str) -> Path:
    """Return where a file lies."""
    return _folder() / f"{set_id}.json"


def _folder() -> Path:
    root = ml.Store().root
    return Path(root) / "prompt_files" if "://" not in root else Path("/nonexistent")


def _keep(name: str, facts: Any) -> str:
    set_id = str(facts.digest)[:12]
    about = {"name": name[:60], "count": len(facts), "digest": str(facts.digest)}
    rows = [{n: v for n, v in asdict(fact).items() if v} for fact in facts]
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        path_of(set_id).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        path_of(set_id).with_suffix(".about").write_text(json.dumps(about), encoding="utf-8")
    except OSError as error:
        raise ml.PromptError(
            f"the file cannot be kept in {_folder()}: {error.strerror or error}. Make space, or "
            "choose another store (MECHLAB_CACHE)."
        ) from error
    if str(facts_of(set_id).digest) != str(facts.digest):
        path_of(set_id).unlink(missing_ok=True)
        raise ml.PromptError(f"{name} does not read back as it was; it is not kept.")
    return set_id


def _about(set_id: str) -> dict[str, Any] | None:
    if not _ID.fullmatch(set_id):
        return None
    try:
        about = json.loads(path_of(set_id).with_suffix(".about").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and "digest" in about else None
