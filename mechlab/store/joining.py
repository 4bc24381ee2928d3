"""Join the results of single prompts into the result of their set.

Prompts differ in length. Axes are padded at the end to the longest: numbers with NaN (integers
become floats where padding is needed), text with "", truth values with False. A prompt without a
`group`, among others that have one, stands alone under its own label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.errors import StoreError
from mechlab.results import WORK

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["join_prompts"]

Array = np.ndarray[Any, Any]


def join_prompts(
    parts: Sequence[xr.Dataset], labels: Sequence[str], prompts_digest: str
) -> xr.Dataset:
    """Return one Dataset with the axis `prompt` in the order of `parts`.

    Args:
        parts: one result per prompt, each with `prompt` of length 1 and the same variables.
        labels: the coordinate `prompt` of the whole.
        prompts_digest: of the whole set.

    Raises:
        StoreError: when the parts do not have the same variables, or disagree where no axis
            `prompt` tells them apart.
    """
    import xarray as xr

    groups = _groups(parts, labels)
    parts = [part.drop_vars("group", errors="ignore") for part in parts]
    first = parts[0]
    sizes = _joint_sizes(parts)
    joined = {name: _join(str(name), parts, sizes) for name in first.variables if name != "prompt"}
    prompt = xr.Variable("prompt", np.array(labels, dtype=str), first.coords["prompt"].attrs)
    everything = {"prompt": prompt, **{str(name): variable for name, variable in joined.items()}}
    return xr.Dataset(
        {str(name): everything[str(name)] for name in first.data_vars},
        {str(name): everything[str(name)] for name in first.coords} | groups,
        _joint_attributes(parts, prompts_digest),
    )


def _groups(parts: Sequence[xr.Dataset], labels: Sequence[str]) -> dict[str, xr.Variable]:
    """Return the coordinate `group`, if any part has it."""
    import xarray as xr

    held = [part.coords.get("group") for part in parts]
    if all(one is None for one in held):
        return {}
    names = [
        label if one is None else str(one.values.item())
        for one, label in zip(held, labels, strict=True)
    ]
    return {"group": xr.Variable("prompt", np.array(names, dtype=str))}


def _joint_sizes(parts: Sequence[xr.Dataset]) -> dict[str, int]:
    first = parts[0]
    for part in parts:
        same = list(part.variables) == list(first.variables) and all(
            part[name].dims == first[name].dims for name in first.variables
        )
        if part.sizes.get("prompt") != 1 or "prompt" not in part.coords or not same:
            raise StoreError(
                "results of single prompts cannot be joined: each needs the axis and coordinate "
                "prompt of length 1, and all need the same variables of the same axes.\n"
                f"  Received {dict(part.sizes)} with {[*map(str, part.variables)]}, "
                f"and {dict(first.sizes)} with {[*map(str, first.variables)]}.\n"
                "  Correct the method, or declare it with per_prompt=False."
            )
    longest = {str(dim): max(part.sizes[dim] for part in parts) for dim in first.sizes}
    return longest | {"prompt": len(parts)}


def _join(name: str, parts: Sequence[xr.Dataset], sizes: Mapping[str, int]) -> xr.Variable:
    import xarray as xr

    first = parts[0].variables[name]
    arrays = [part.variables[name].values for part in parts]
    dims = [str(dim) for dim in first.dims]
    if "prompt" not in dims:
        return xr.Variable(dims, _shared(name, arrays), first.attrs)
    shape = [sizes[dim] for dim in dims]
    joined = _blank(arrays, shape, axis := dims.index("prompt"))
    for row, array in enumerate(arrays):
        corner: list[slice] = [slice(length) for length in array.shape]
        corner[axis] = slice(row, row + 1)
        joined[tuple(corner)] = array
    return xr.Variable(dims, joined, first.attrs)


def _blank(arrays: Sequence[Array], shape: Sequence[int], axis: int) -> Array:
    dtype = np.result_type(*arrays)
    others = [length for place, length in enumerate(shape) if place != axis]
    padded = any([n for i, n in enumerate(array.shape) if i != axis] != others for array in arrays)
    if padded and dtype.kind in "iu":
        dtype = np.dtype(np.float64)
    return np.full(shape, {"f": np.nan, "c": np.nan, "U": ""}.get(dtype.kind, 0), dtype=dtype)


def _shared(name: str, arrays: Sequence[Array]) -> Array:
    """Return what all parts share: the longest, of which the others are the beginning."""
    longest = max(arrays, key=lambda array: array.size)
    for array in arrays:
        beginning = longest[tuple(slice(length) for length in array.shape)]
        if beginning.shape != array.shape or not np.array_equal(
            beginning, array, equal_nan=array.dtype.kind in "fc"
        ):
            raise StoreError(
                f"results of single prompts disagree in {name!r}, which has no axis prompt.\n"
                "  Allowed: equal values, or more of the same on a longer axis.\n"
                "  Give it the axis prompt, or declare the method with per_prompt=False."
            )
    return longest


def _joint_attributes(parts: Sequence[xr.Dataset], prompts_digest: str) -> dict[str, Any]:
    names = dict.fromkeys(name for part in parts for name in part.attrs)
    joined = {n: _agreed([part.attrs[n] for part in parts if n in part.attrs]) for n in names}
    amounts = {name: sum(part.attrs.get(name, 0) for part in parts) for name in WORK}
    started = min(str(part.attrs.get("started", "")) for part in parts)
    joined |= {name: _rounded(amount) for name, amount in amounts.items() if name in joined}
    return joined | {"prompts_digest": prompts_digest, "started": started}


def _rounded(amount: float) -> float:
    """Return a sum of milliseconds or of whole numbers without the dust of the addition."""
    return amount if isinstance(amount, int) else round(amount, 3)


def _agreed(values: Sequence[Any]) -> Any:
    """Return the one value, or all different ones as text (parts made on other devices, say)."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else " | ".join(map(str, different))
