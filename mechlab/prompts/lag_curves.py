"""Reader for lag curves of heads: a long table, or the arrays that Ji-An et al. 2024 published."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.errors import PromptError
from mechlab.prompts.records import read_records

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_lag_curves"]

_COLUMNS = ("layer", "head", "lag", "value")
_PUBLISHED = {"matching_score": "prefix_matching", "copying_score": "copying"}
_FIRST_LAG = {11: -5, 16: -8, 17: -8}
"""First lag by number of lags, where a file does not tell: 16 are the published -8 to 7."""


def read_lag_curves(path: str | os.PathLike[str]) -> "xr.Dataset":
    """Read lag curves of heads from a file.

    Args:
        path: a .csv or .tsv file with the columns layer, head, lag, value, one row per cell; or a
            .npz file with `lag_curve` `[layer, head, lag]`, perhaps `lag` (else 11 lags are -5 to
            5, 16 are -8 to 7, 17 are -8 to 8), `matching_score` and `copying_score`.

    Returns:
        Dataset with `curve[layer, head, lag]`, NaN where nothing is given, and of a .npz file
        `prefix_matching` and `copying` `[layer, head]` as far as they are there.

    Raises:
        PromptError: when the file cannot be read, naming all rows that are wrong.
    """
    path = Path(path)
    return _published(path) if path.suffix == ".npz" else _long(path)


def _published(path: Path) -> "xr.Dataset":
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays: dict[str, Any] = {name: held[name] for name in held.files}
    except (OSError, ValueError, EOFError) as error:
        raise PromptError(
            f"{path} cannot be read: {error}.\n  Allowed: a .npz file without Python objects.\n"
            "  Check that it is the right file."
        ) from error
    curve = arrays.get("lag_curve", np.empty(0))
    count = curve.shape[-1] if curve.ndim == 3 else 0
    first = _FIRST_LAG.get(count)
    lags = arrays.get("lag", None if first is None else np.arange(first, first + count))
    if curve.ndim != 3 or np.shape(np.asarray(lags)) != (count,):
        raise PromptError(
            f"{path} holds {', '.join(f'{n} {np.shape(a)}' for n, a in arrays.items())}.\n"
            "  Expected lag_curve of (layer, head, lag), with lag where there are neither 11 nor "
            "16 nor 17.\n  Add these arrays."
        )
    scores = {
        ours: (("layer", "head"), arrays[name])
        for name, ours in _PUBLISHED.items()
        if name in arrays and np.shape(arrays[name]) == curve.shape[:2]
    }
    return _dataset(curve, np.asarray(lags), scores)


def _long(path: Path) -> "xr.Dataset":
    problems: list[str] = []
    cells: dict[tuple[int, int, int], float] = {}
    for record in read_records(path):
        row = {str(k).strip().casefold(): str(v).strip() for k, v in record.fields.items()}
        found = None if record.problem else _cell(row)
        if found is None:
            told = ", ".join(f"{name} {row.get(name)!r}" for name in _COLUMNS)
            problems.append(f"line {record.line}: {record.problem or told}")
        elif (key := found[0]) in cells:
            problems.append(f"line {record.line}: L{key[0]}H{key[1]}, lag {key[2]} a second time")
        else:
            cells[key] = found[1]
    if problems or not cells:
        more = f"\n    and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise PromptError(
            f"{path} holds no lag curves:\n    " + "\n    ".join(problems[:20] or ["no row"])
            + f"{more}\n  Expected the columns {', '.join(_COLUMNS)}, numbers all.\n"
            "  Correct these rows."
        )  # fmt: skip
    lags = np.array(sorted({key[2] for key in cells}))
    shape = (1 + max(k[0] for k in cells), 1 + max(k[1] for k in cells), len(lags))
    curve = np.full(shape, np.nan)
    for (layer_, head_, lag_), value in cells.items():
        curve[layer_, head_, np.searchsorted(lags, lag_)] = value
    return _dataset(curve, lags, {})


def _cell(row: Mapping[str, str]) -> tuple[tuple[int, int, int], float] | None:
    """Return layer, head and lag, and the value (NaN for one that is missing), if they are some."""
    try:
        layer, head, lag = (int(row[name]) for name in _COLUMNS[:3])
        value = float(row["value"] or "nan")
    except (KeyError, ValueError):
        return None
    return None if min(layer, head) < 0 or math.isinf(value) else ((layer, head, lag), value)


def _dataset(curve: Any, lags: Any, scores: dict[str, Any]) -> "xr.Dataset":
    import xarray as xr

    axes = ("layer", "head", "lag")
    return xr.Dataset(
        {"curve": (axes, np.asarray(curve, dtype=np.float64)), **scores},
        {"layer": np.arange(curve.shape[0]), "head": np.arange(curve.shape[1]), "lag": lags},
    )
