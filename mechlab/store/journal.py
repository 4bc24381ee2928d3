"""A journal on disk: finished batches of a computation that is under way.

Each batch is one `.npy` file, replaced atomically and read without pickle, so that a kill at any
moment loses at most the batch in flight.
"""

import hashlib
import io
from typing import Any

import numpy as np

from mechlab.errors import StoreError
from mechlab.store.places import Place

__all__ = ["FileJournal"]


class FileJournal:
    """The `Journal` that the store hands to methods; its folder goes when the entry is complete."""

    def __init__(self, place: Place, path: str) -> None:
        """Keep batches in the folder `path` of `place`."""
        self._place = place
        self._path = path

    def get(self, key: str) -> np.ndarray[Any, Any] | None:
        """Return the numbers kept under `key`; `None` when there are none or they are damaged."""
        try:
            data = self._place.read(self._file(key))
            values: np.ndarray[Any, Any] = np.load(io.BytesIO(data), allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError, OSError):
            return None
        return values

    def put(self, key: str, values: np.ndarray[Any, Any]) -> None:
        """Keep `values` under `key`.

        Raises:
            StoreError: when the store cannot be written.
        """
        stream = io.BytesIO()
        np.save(stream, np.asarray(values), allow_pickle=False)
        try:
            self._place.replace(self._file(key), stream.getvalue())
        except FileNotFoundError:  # another process has just completed the entry and cleared this
            return
        except OSError as err:
            raise StoreError(
                f"the store {self._place.url} cannot be written: {err.strerror or err}.\n"
                "  What was finished before is kept.\n"
                "  Make space or choose another store (MECHLAB_CACHE), then run again."
            ) from err

    def remove(self) -> None:
        """Forget everything; called when the entry is complete."""
        self._place.remove(self._path)

    def _file(self, key: str) -> str:
        return f"{self._path}/{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
