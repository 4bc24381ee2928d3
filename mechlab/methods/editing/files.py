"""A Dataset as one safetensors file: numbers as tensors, everything else as JSON in the header.

Nothing in it can run code when it is read. The file is replaced in one step, so that a kill leaves
the old one or the new one.
"""

import json
import os
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
import xarray as xr
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mechlab.errors import StoreError

__all__ = ["packed", "read_dataset", "write_dataset"]

_SCHEMA = 1


def write_dataset(dataset: xr.Dataset, path: Path, kind: str) -> None:
    """Write a Dataset of numbers, truth values and text.

    Args:
        dataset: what to write.
        path: the file.
        kind: what it is, checked when it is read.

    Raises:
        StoreError: when the file cannot be written.
    """
    _replace(path, packed(dataset, kind))


def packed(dataset: xr.Dataset, kind: str) -> bytes:
    """Return the contents of such a file."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    about: dict[str, Any] = {}
    for name, variable in dataset.variables.items():
        values = np.asarray(variable.values)
        entry: dict[str, Any] = {"dims": list(variable.dims), "attrs": dict(variable.attrs)}
        entry["coordinate"] = name in dataset.coords
        if values.dtype.kind == "U":
            entry["text"], entry["shape"] = values.ravel().tolist(), list(values.shape)
        else:
            arrays[str(name)] = np.ascontiguousarray(values).reshape(values.shape)
        about[str(name)] = entry
    header = {"schema": _SCHEMA, "kind": kind, "variables": about, "attrs": dict(dataset.attrs)}
    return save(arrays, {"mechlab": json.dumps(header, ensure_ascii=False)})


def read_dataset(path: Path, kind: str) -> xr.Dataset:
    """Read what `write_dataset` wrote.

    Raises:
        StoreError: when there is no such file, it is damaged, or holds something else.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("mechlab", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as err:
        raise _unreadable(path, kind, str(err)) from err
    if header.get("kind") != kind or header.get("schema") != _SCHEMA:
        raise _unreadable(path, kind, f"it holds {header.get('kind') or 'something else'}")
    variables = {
        name: xr.Variable(entry["dims"], _values(arrays, name, entry), entry["attrs"])
        for name, entry in header["variables"].items()
    }
    coords = {name for name, entry in header["variables"].items() if entry["coordinate"]}
    return xr.Dataset(
        {name: v for name, v in variables.items() if name not in coords},
        {name: v for name, v in variables.items() if name in coords},
        header["attrs"],
    )


def _values(arrays: dict[str, Any], name: str, entry: dict[str, Any]) -> np.ndarray[Any, Any]:
    if "text" in entry:
        return np.array(entry["text"], dtype=str).reshape(entry["shape"])
    found: np.ndarray[Any, Any] = arrays[name]
    return found


def _unreadable(path: Path, kind: str, reason: str) -> StoreError:
    return StoreError(
        f"{path.name} cannot be read as {kind}: {reason}.\n"
        f"  Allowed: a file that was saved as {kind}.\n  Save it again, or name the right file."
    )


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as err:
        temporary.unlink(missing_ok=True)
        raise StoreError(
            f"{path.name} cannot be written: {err.strerror or err}.\n"
            "  Allowed: a file in a folder that exists and may be written.\n"
            "  Make the folder or space, or choose another place."
        ) from err
