"""What people write beside a run: tags, a note, and why it is shown although it means little.

A remark lies in `remark.json` beside the run's `record.json`. It is no part of the result: neither
key nor checksums know of it, computing the run again leaves it, deleting the run removes it.
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from mechlab.errors import StoreError
from mechlab.store.places import Place

__all__ = ["REMARK", "Remark", "changed", "read_remark", "remark_of_bytes", "write_remark"]

REMARK = "remark.json"

MOST_TAGS = 12
LONGEST_NOTE = 1000
_LONGEST_REASON = 1000
_MOST_BYTES = 20_000
_BREAKS = str.maketrans("", "", "\n\t")
_TAG = re.compile(r"\w[\w.:+/-]{0,31}")


@dataclass(frozen=True)
class Remark:
    """Tags and note of one run."""

    tags: tuple[str, ...] = ()
    """Sorted, each once."""
    note: str = ""
    """One or more lines."""
    shown_although: str = ""
    """Why the result means little, where somebody chose to look at it all the same."""

    def __bool__(self) -> bool:
        """Whether anything is said."""
        return self != Remark()


def changed(
    remark: Remark,
    *,
    tags: Iterable[str] | None = None,
    note: str | None = None,
    shown_although: str | None = None,
) -> Remark:
    """Return a remark with other parts; `None` leaves a part as it is.

    Raises:
        StoreError: naming every part that cannot be kept, and what is allowed.
    """
    new = Remark(
        remark.tags if tags is None else tuple(sorted({tag.strip() for tag in tags} - {""})),
        remark.note if note is None else note.replace("\r\n", "\n").strip(),
        remark.shown_although if shown_although is None else shown_although.strip(),
    )
    if problems := _problems(new):
        raise StoreError(
            f"this remark is not kept: {'; '.join(problems)}.\n"
            f"  Allowed: up to {MOST_TAGS} tags of 1 to 32 letters, digits and _ . : + / -, "
            f"and a note of up to {LONGEST_NOTE} characters.\n  Shorten or correct what is named."
        )
    return new


def read_remark(place: Place, path: str) -> Remark:
    """Return the remark in the folder of a run; an empty one where there is none.

    Raises:
        StoreError: when it cannot be read; writing another one replaces it.
    """
    try:
        data = place.read(f"{path}/{REMARK}")
    except (FileNotFoundError, NotADirectoryError):
        return Remark()
    except OSError as err:
        raise StoreError(f"the remark on {path} cannot be read: {err.strerror or err}") from err
    return remark_of_bytes(data, path)


def write_remark(place: Place, path: str, remark: Remark) -> None:
    """Write a remark into the folder of a run, or remove it when it says nothing.

    Raises:
        StoreError: when that cannot be written; the old one stays then.
    """
    file = f"{path}/{REMARK}"
    try:
        if remark:
            text = json.dumps(asdict(remark), ensure_ascii=False, indent=1)
            place.replace(file, text.encode("utf-8"))
        else:
            place.remove(file)
    except OSError as err:
        raise StoreError(
            f"the remark on {path} cannot be written to {place.url}: {err.strerror or err}.\n"
            "  Make space or choose another store (MECHLAB_CACHE), then try again."
        ) from err


def remark_of_bytes(data: bytes, path: str) -> Remark:
    """Read a `remark.json`, which nobody has checked.

    Raises:
        StoreError: when it is not as `write_remark` writes it.
    """
    try:
        held = json.loads(data) if len(data) <= _MOST_BYTES else {}
        return changed(
            Remark(), tags=held["tags"], note=held["note"], shown_although=held["shown_although"]
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, StoreError) as err:
        raise StoreError(f"the remark on {path} is damaged; write another one.") from err


def _problems(remark: Remark) -> list[str]:
    wrong = [repr(tag)[:60] for tag in remark.tags if not _TAG.fullmatch(tag)]
    found = [f"no tags: {', '.join(wrong[:5])}"] if wrong else []
    if len(remark.tags) > MOST_TAGS:
        found.append(f"{len(remark.tags)} tags")
    texts = {
        "note": (remark.note, LONGEST_NOTE),
        "reason": (remark.shown_although, _LONGEST_REASON),
    }
    for name, (text, most) in texts.items():
        if len(text) > most:
            found.append(f"a {name} of {len(text)} characters")
        elif any(unicodedata.category(one) in ("Cc", "Cs") for one in text.translate(_BREAKS)):
            found.append(f"a {name} with control characters")
    return found
