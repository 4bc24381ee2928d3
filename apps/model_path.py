"""What a model's name means on this disk. No Streamlit here, and no torch."""

from pathlib import Path

__all__ = ["folder_of", "path_of"]

_STARTS = ("/", ".", "~")


def path_of(name: str) -> Path | None:
    """Return the path that a model's name means; None when it means none, or can mean none.

    A path is what is written as one, whether or not it is there, and every folder that is there.
    `~nobody/x` of an unknown user, a name longer than the system allows, and the like are none.
    Links are followed, as loading does: results carry the name of the folder itself.
    """
    if not name.strip():
        return None
    try:
        path = Path(name).expanduser().resolve()
        there = path.is_dir()
    except (OSError, RuntimeError, ValueError):
        return None
    return path if there or name.startswith(_STARTS) else None


def folder_of(name: str) -> Path | None:
    """Return the folder that a model's name means; None when there is no such folder."""
    path = path_of(name)
    return path if path is not None and path.is_dir() else None
