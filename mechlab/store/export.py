"""Write a result for other programs: zarr folder or zip, long CSV, JSON.

A CSV has one row per number: the variable's name, its axes, the labels along them, the value. Text
that a spreadsheet would take for a formula is prefixed with an apostrophe. Cells that were not
computed are left out of the CSV and are `null` in JSON.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator
from io import BytesIO, StringIO
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.errors import StoreError
from mechlab.store.encoding import to_files

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["export_result"]

_SUFFIXES = (".zarr", ".zip", ".csv", ".json")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export_result(result: xr.Dataset, path: Path, run_id: str, *, overwrite: bool) -> Path:
    """Write `result` in the format that the extension names; nothing half-written stays behind.

    Raises:
        StoreError: when the extension is unknown, something is there already, or it cannot be
            written.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise StoreError(
            f"cannot export to {path}: unknown extension {path.suffix!r}.\n"
            f"  Allowed: {', '.join(_SUFFIXES)}.\n  Choose one of these."
        )
    if path.exists() and (not overwrite or suffix == ".zarr"):
        raise StoreError(
            f"cannot export to {path}: it is there already.\n"
            "  Allowed: a new name, or overwrite=True for files.\n  Choose another name."
        )
    content = _content(result, suffix, run_id)
    new = path.with_name(f".{path.name}-{token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(new, content)
        new.replace(path)
    except OSError as err:
        raise StoreError(f"cannot export to {path}: {err.strerror}. Choose another place.") from err
    return path


def _content(result: xr.Dataset, suffix: str, run_id: str) -> bytes | dict[str, bytes]:
    if suffix == ".zarr":
        return to_files(result)
    if suffix == ".zip":
        return _zip(result)
    return _csv(result, run_id) if suffix == ".csv" else _json(result)


def _write(path: Path, content: bytes | dict[str, bytes]) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    for name, data in content.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def _zip(result: xr.Dataset) -> bytes:
    """Return a zip that zarr's ZipStore and xarray open directly."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:  # chunks are compressed
        for name, data in to_files(result).items():
            archive.writestr(name, data)
    return stream.getvalue()


def _json(result: xr.Dataset) -> bytes:
    def described(names: Any) -> dict[str, Any]:
        return {
            str(name): {
                "dims": list(result[name].dims),
                "attrs": result[name].attrs,
                "data": _without_nan(result[name].values),
            }
            for name in names
        }

    whole = {
        "attrs": result.attrs,
        "dims": {str(dim): size for dim, size in result.sizes.items()},
        "coords": described(result.coords),
        "data_vars": described(result.data_vars),
    }
    return json.dumps(whole, ensure_ascii=False, allow_nan=False).encode("utf-8")


def _without_nan(values: np.ndarray[Any, Any]) -> Any:
    if values.dtype.kind != "f":
        return values.tolist()
    plain = values.astype(object)
    plain[~np.isfinite(values)] = None
    return plain.tolist()


def _csv(result: xr.Dataset, run_id: str) -> bytes:
    labels = [str(name) for name in result.coords if name not in result.dims]
    columns = ["run", "variable", *map(str, result.dims), *labels, "value"]
    stream = StringIO(newline="")
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for name in result.data_vars:
        for row in _rows(result[name]):
            writer.writerow({"run": run_id, "variable": name, **row})
    return stream.getvalue().encode("utf-8")


def _rows(array: xr.DataArray) -> Iterator[dict[str, Any]]:
    labels = {str(name): coord for name, coord in array.coords.items()}
    for place in np.ndindex(array.shape):
        value = array.values[place].item()
        if isinstance(value, float) and np.isnan(value):
            continue
        at = {str(dim): index for dim, index in zip(array.dims, place, strict=True)}
        named = {
            name: coord.values[tuple(at[str(dim)] for dim in coord.dims)].item()
            for name, coord in labels.items()
        }
        row = {**at, **named, "value": value}
        yield {name: _safe(cell) for name, cell in row.items()}


def _safe(cell: object) -> object:
    """Return `cell` so that no spreadsheet takes it for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
