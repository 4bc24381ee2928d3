"""Recall sequences as the measures and the model read them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError

__all__ = ["Sequences", "read_sequences"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Sequences:
    """Checked recalls.

    Attributes:
        places: zero-based serial positions `[list, output]`; anything where not `valid`.
        valid: `[list, output]`, true for an item of the list that is recalled for the first time.
            Repeats and intrusions are not, and nothing is after the end.
        subjects: their names, in order of appearance.
        subject_of: index of the subject, `[list]`.
        length: items per list.
    """

    places: Array
    valid: Array
    subjects: Array
    subject_of: Array
    length: int

    def without_invalid(self) -> Array:
        """Return the valid recalls of each list moved together, `[list, length]`, then -1."""
        order = np.argsort(~self.valid, axis=1, kind="stable")
        moved = np.take_along_axis(np.where(self.valid, self.places, -1), order, axis=1)
        made = np.full((len(moved), self.length), -1)
        width = min(self.length, moved.shape[1])
        made[:, :width] = moved[:, :width]  # no list has more valid recalls than items
        return made

    def by_subject(self, cells: Array, size: int) -> Array:
        """Count cells `[list, ...]` (below 0: nothing) for each subject, `[subject, size]`."""
        owner = self.subject_of.reshape(-1, *[1] * (cells.ndim - 1))
        flat = (owner * size + cells)[cells >= 0]
        counted = np.bincount(flat, minlength=len(self.subjects) * size)
        made: Array = counted.reshape(len(self.subjects), size)
        return made


def read_sequences(recalls: xr.DataArray) -> Sequences:
    """Check recalls and mark which of them count.

    Args:
        recalls: as `ml.prompts.recall_sequences` makes them.

    Raises:
        OptionError: when the array is of another form, naming all lists with entries that are no
            serial positions, or with recalls after their end.
    """
    length = recalls.attrs.get("list_length") if isinstance(recalls, xr.DataArray) else None
    if length is None or set(recalls.dims) != {"list", "output_position"}:
        raise OptionError(
            "recalls are no DataArray of list and output_position with the attribute list_length. "
            "Allowed: what ml.prompts.recall_sequences, ml.prompts.read_free_recall and "
            "ml.CMR.simulate return. Make them with one of these."
        )
    values = recalls.transpose("list", "output_position").values
    integral = np.issubdtype(values.dtype, np.integer)
    inside = (values >= -1) & (values <= length)
    ended = np.maximum.accumulate(values == -1, axis=1) & (values != -1)
    wrong = np.flatnonzero((~inside | ended).any(axis=1))
    if not integral or len(wrong) or not values.size:
        told = f"lists {wrong[:20].tolist()} ({len(wrong)} in all)" if len(wrong) else values.dtype
        raise OptionError(
            f"recalls hold entries that are no serial positions, or recalls after the end: {told}. "
            f"Allowed: whole numbers from 1 to {length}, 0 for an intrusion, -1 after the last "
            "recall. Correct them."
        )
    names = recalls["subject"].values if "subject" in recalls.coords else np.full(len(values), "")
    subjects, first, owner = np.unique(names, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    return Sequences(
        places=values - 1,
        valid=_first_time(values - 1, int(length)),
        subjects=subjects[order],
        subject_of=np.argsort(order)[owner.ravel()],
        length=int(length),
    )


def _first_time(places: Array, length: int) -> Array:
    """Return where an item of the list is recalled that was not recalled before."""
    valid = np.zeros(places.shape, dtype=bool)
    seen = np.zeros((len(places), length), dtype=bool)
    rows = np.arange(len(places))
    for output, item in enumerate(places.T):
        valid[:, output] = (item >= 0) & ~seen[rows, item]
        seen[rows[item >= 0], item[item >= 0]] = True
    return valid
