"""What all statistics share: cells side by side, clusters as numbers, sums per cluster."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError

__all__ = ["Array", "Cells", "cluster_numbers", "cluster_sums", "refuse"]

Array = np.ndarray[Any, Any]


class Cells:
    """An array as a table of entries and cells, and the way back.

    Attributes:
        values: `[entry, cell]`, NaN where an entry has no value.
        number: cluster of each entry, from 0, `[entry]`.
        clusters: how many there are.
    """

    def __init__(
        self, array: xr.DataArray, dim: str, cluster: str | Sequence[object] | None
    ) -> None:
        """Lay the cells of all other axes side by side.

        Raises:
            OptionError: when the clusters do not fit the axis.
        """
        flat = array.transpose(dim, ...).astype(float)
        self._frame = flat.isel({dim: 0}, drop=True)
        self.values: Array = flat.values.reshape(flat.sizes[dim], -1)
        self.number = cluster_numbers(array, dim, cluster)
        self.clusters = int(self.number.max()) + 1

    def array(self, cells: Array) -> xr.DataArray:
        """Return one number per cell in the axes of the array, without the averaged one."""
        return self._frame.copy(data=cells.reshape(self._frame.shape))

    def held(self) -> Array:
        """Return how many clusters have a value in each cell, `[cell]`."""
        _, counts = cluster_sums(self.values, self.number, self.clusters)
        return np.asarray((counts > 0).sum(axis=0))


def cluster_sums(values: Array, number: Array, clusters: int) -> tuple[Array, Array]:
    """Return sums and counts of the values per cluster, each `[cluster, cell]`, NaN left out."""
    member = np.zeros((clusters, len(number)))
    member[number, np.arange(len(number))] = 1.0
    there = ~np.isnan(values)
    return member @ np.where(there, values, 0.0), member @ there


def refuse(function: str, problems: Sequence[str]) -> None:
    """Raise one error for all problems, if there are any.

    Raises:
        OptionError: listing them.
    """
    if problems:
        raise OptionError(f"{function} cannot use {'; '.join(problems)}. Correct these.")


def wrong_dim(array: xr.DataArray, dim: str) -> list[str]:
    """Return what is wrong with the axis, if anything."""
    if dim in array.dims and array.sizes[dim]:
        return []
    return [f"dim={dim!r}, allowed: an axis with entries, of {tuple(array.dims)}"]


def wrong_count(name: str, value: object, at_least: int = 1) -> list[str]:
    """Return what is wrong with a whole number, if anything."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if whole and value >= at_least:  # type: ignore[operator]
        return []
    return [f"{name}={value!r}, allowed: {at_least} or more"]


def wrong_choice(name: str, value: object, allowed: Sequence[str]) -> list[str]:
    """Return what is wrong with a choice, if anything."""
    if value in allowed:
        return []
    return [f"{name}={value!r}, allowed: {', '.join(map(repr, allowed))}"]


def cluster_numbers(
    array: xr.DataArray | xr.Dataset, dim: str, cluster: str | Sequence[object] | None
) -> Array:
    """Return the cluster of each entry of `dim`, from 0; entries labelled `None` stand alone.

    Raises:
        OptionError: a name that is no coordinate along `dim`, or labels that do not fit it.
    """
    if cluster is None:
        return np.arange(array.sizes[dim])
    if isinstance(cluster, str):
        if cluster not in array.coords or array.coords[cluster].dims != (dim,):
            raise OptionError(
                f"cluster={cluster!r} is not a coordinate of ({dim}).\n"
                f"  Allowed: {', '.join(n for n in _along(array, dim)) or 'none on this array'}, "
                f"or one label per {dim}.\n  Assign the coordinate, or give the labels."
            )
        cluster = array.coords[cluster].values.tolist()
    if len(cluster) != array.sizes[dim]:
        raise OptionError(
            f"cluster has {len(cluster)} labels for {array.sizes[dim]} entries of {dim}.\n"
            "  Allowed: one label per entry.\n  Give the labels of this array."
        )
    known: dict[object, int] = {}
    keys = [
        (True, index) if label is None else (False, label) for index, label in enumerate(cluster)
    ]
    return np.array([known.setdefault(key, len(known)) for key in keys])


def _along(array: xr.DataArray | xr.Dataset, dim: str) -> list[str]:
    return [repr(name) for name, coord in array.coords.items() if coord.dims == (dim,)]
