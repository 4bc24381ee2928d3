"""What all statistics share: cells side by side, clusters as numbers, sums per cluster."""

import math
from collections.abc import Hashable, Iterable, Sequence
from numbers import Integral, Real
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

    def scaled(self) -> tuple[Array, Array]:
        """Return the values with each cell near 1, and the powers of two that it was divided by.

        Squares of very large or small numbers then neither overflow nor vanish; a power of two
        costs no digit.
        """
        largest = np.abs(np.where(np.isnan(self.values), 0.0, self.values)).max(axis=0, initial=0.0)
        power = np.where(largest > 0, np.frexp(largest)[1], 0)
        return np.ldexp(self.values, -power), np.ldexp(1.0, power)

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


def wrong_array(array: object, dim: object) -> list[str]:
    """Return what is wrong with an array or the axis to average, if anything.

    A missing value is NaN and is left out; an infinite one is a value, and no average of it says
    anything about the others.
    """
    if not isinstance(array, xr.DataArray):
        return [f"{type(array).__name__}, allowed: an xarray.DataArray (one variable of a result)"]
    if array.dtype.kind not in "biuf":
        return [f"an array of {array.dtype}, allowed: real numbers or truth values"]
    if infinite := int(np.isinf(array.values.astype(float)).sum()):
        problem = f"{infinite} infinite values, allowed: finite numbers, and NaN for missing ones"
        return [problem, *wrong_dim(array, dim)]
    return wrong_dim(array, dim)


def wrong_dim(array: xr.DataArray, dim: object) -> list[str]:
    """Return what is wrong with the axis, if anything."""
    if isinstance(dim, str) and dim in array.dims and array.sizes[dim]:
        return []
    return [f"dim={dim!r}, allowed: an axis with entries, of {tuple(array.dims)}"]


def wrong_count(name: str, value: object, at_least: int = 1) -> list[str]:
    """Return what is wrong with a whole number, if anything."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if whole and value >= at_least:  # type: ignore[operator]
        return []
    return [f"{name}={value!r}, allowed: whole numbers from {at_least}"]


def wrong_level(confidence: object, resamples: object) -> list[str]:
    """Return what is wrong with a confidence and the number of samples that has to bear it."""
    problems = wrong_count("resamples", resamples)
    number = isinstance(confidence, Real) and not isinstance(confidence, bool)
    if not number or not 0 < confidence < 1:  # type: ignore[operator]
        return [*problems, f"confidence={confidence!r}, allowed: a number between 0 and 1"]
    needed = math.ceil(2 / (1 - float(confidence)) - 1e-6)  # type: ignore[arg-type]
    if not problems and resamples < needed:  # type: ignore[operator]
        problems = [
            f"resamples={resamples!r}, allowed: {needed} or more at confidence={confidence} (the "
            "ends are the rarest of the samples)"
        ]
    return problems


def wrong_choice(name: str, value: object, allowed: Sequence[str]) -> list[str]:
    """Return what is wrong with a choice, if anything."""
    if isinstance(value, str) and value in allowed:
        return []
    return [f"{name}={value!r}, allowed: {', '.join(map(repr, allowed))}"]


def cluster_numbers(
    array: xr.DataArray | xr.Dataset, dim: str, cluster: str | Sequence[object] | None
) -> Array:
    """Return the cluster of each entry of `dim`, from 0; those labelled `None` or NaN stand alone.

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
    cluster = _labels(cluster, dim)
    if len(cluster) != array.sizes[dim]:
        raise OptionError(
            f"cluster has {len(cluster)} labels for {array.sizes[dim]} entries of {dim}.\n"
            "  Allowed: one label per entry.\n  Give the labels of this array."
        )
    known: dict[object, int] = {}
    keys = [
        (True, index) if label is None or label != label else (False, label)
        for index, label in enumerate(cluster)
    ]
    return np.array([known.setdefault(key, len(known)) for key in keys])


def _labels(cluster: object, dim: str) -> list[Hashable]:
    """Return labels as a list.

    Raises:
        OptionError: what has no order, or labels that cannot be compared.
    """
    ordered = isinstance(cluster, Iterable) and not isinstance(cluster, set | frozenset | dict)
    labels = getattr(cluster, "tolist", lambda: list(cluster))() if ordered else []  # type: ignore[call-overload]
    if not ordered or not all(isinstance(label, Hashable) for label in labels):
        raise OptionError(
            f"cluster={cluster!r:.60} is no list of labels.\n  Allowed: a coordinate's name, or "
            f"one text or number per {dim}.\n  Give the labels in the order of the array."
        )
    return list(labels)


def _along(array: xr.DataArray | xr.Dataset, dim: str) -> list[str]:
    return [repr(name) for name, coord in array.coords.items() if coord.dims == (dim,)]
