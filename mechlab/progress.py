"""How long work reports itself: `Progress` values, and the journal that lets it resume.

Both are plain protocols on the lowest floor, so that the engine, the store, the job table and the
command line can speak of progress without importing one another.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

__all__ = ["Journal", "Progress", "ProgressCallback"]


@dataclass(frozen=True)
class Progress:
    """One report between two batches.

    Attributes:
        done: units finished so far (rows for the engine, prompts for the store).
        total: units in all.
        unit: what is counted, in words (`"rows"`, `"prompts"`).
        partial: what is known so far, NaN where not computed yet; `None` when nothing can be shown.
    """

    done: int
    total: int
    unit: str = "rows"
    partial: "xr.Dataset | None" = None


ProgressCallback = Callable[[Progress], None]
"""Called between batches, never inside a forward pass; may raise `Cancelled` to stop."""


class Journal(Protocol):
    """Where finished batches are kept while a run is under way, so that a killed run can resume."""

    def get(self, key: str) -> "np.ndarray | None":
        """Return the numbers kept under `key`, or `None`."""
        ...

    def put(self, key: str, values: "np.ndarray") -> None:
        """Keep `values` under `key`; must be safe against a kill at any moment."""
        ...
