"""A Dataset as the files of a zarr group, and back.

Files are built in memory, so that their checksums are those of what was meant to be written, and a
local disk and an object store get the same bytes. Text of fixed width has no stable form in zarr
format 3; it is written as text of variable width and comes back with the width it had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.results import plain_labels

if TYPE_CHECKING:  # imported when data is read or written: records alone need none of it
    import xarray as xr
    from zarr.core.buffer import Buffer

__all__ = ["checksums", "from_files", "in_order", "to_files"]

_ONE_CHUNK = 64 * 2**20
"""Arrays up to this size are one zarr chunk; many small files are slow everywhere."""


def to_files(dataset: xr.Dataset) -> dict[str, bytes]:
    """Return the files of a zarr group (format 3, not consolidated) by relative path."""
    import xarray as xr
    from zarr.storage import MemoryStore

    held: dict[str, Buffer] = {}
    loose = {name: _loose(variable) for name, variable in dataset.variables.items()}
    xr.Dataset(
        {name: loose[name] for name in dataset.data_vars},
        {name: loose[name] for name in dataset.coords},
        dataset.attrs,
    ).to_zarr(MemoryStore(held), mode="w", zarr_format=3, consolidated=False)
    return {path: buffer.to_bytes() for path, buffer in held.items()}


def from_files(files: Mapping[str, bytes], order: Mapping[str, list[str]]) -> xr.Dataset:
    """Return the Dataset that `to_files` was given, loaded; `order` as `order_of` returned it."""
    import xarray as xr
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    buffer = default_buffer_prototype().buffer
    held: dict[str, Buffer] = {path: buffer.from_bytes(data) for path, data in files.items()}
    found = xr.open_zarr(MemoryStore(held), consolidated=False, chunks=None).load()
    return in_order(found, order)


def in_order(found: xr.Dataset, order: Mapping[str, list[str]]) -> xr.Dataset:
    """Return a Dataset as read from zarr with labels, order and encoding as before writing."""
    import xarray as xr

    variables = {name: found.variables[name] for name in [*order["coords"], *order["data_vars"]]}
    ordered = xr.Dataset(
        {name: variables[name] for name in order["data_vars"]},
        {name: variables[name] for name in order["coords"]},
        found.attrs,
    )
    return plain_labels(ordered.drop_encoding())


def checksums(files: Mapping[str, bytes]) -> dict[str, tuple[int, str]]:
    """Return size and sha256 of each file."""
    return {path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in files.items()}


def _loose(variable: xr.Variable) -> xr.Variable:
    # Row by row: zarr writes text that lies column by column in the wrong order.
    import xarray as xr

    data: Any = np.asarray(variable.values, order="C")
    if variable.dtype.kind == "U":
        data = data.astype(np.dtypes.StringDType(), order="C")
    whole = 0 < data.nbytes <= _ONE_CHUNK and data.ndim
    encoding = {"chunks": data.shape} if whole else {}
    return xr.Variable(variable.dims, data, variable.attrs, encoding)
