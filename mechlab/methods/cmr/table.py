"""The CRP of the simplified model over its grid: made by `crp_table`, shipped with mechlab."""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mechlab.canonical import digest
from mechlab.errors import OptionError
from mechlab.methods.cmr.simplified import Cell, exact_crp, simulated_crp
from mechlab.progress import Progress, ProgressCallback

__all__ = ["TableSettings", "crp_table", "read_table", "save_table", "shipped_table"]

GRID = {
    "beta_enc": tuple(round(0.05 * step, 2) for step in range(1, 21)),
    "beta_rec": tuple(round(0.05 * step, 2) for step in range(21)),
    "gamma_ft": tuple(round(0.1 * step, 1) for step in range(11)),
}
"""The published grid, 20 x 21 x 11 cells."""


@dataclass(frozen=True)
class TableSettings:
    """How a table is made.

    Attributes:
        items: list length.
        starts: recalls start from the contexts of items 0, 1, …, this many.
        recalls: simulated recalls per start; the published table counts 1,000.
        samples: items drawn per recall at most. The public code says 100, the published table
            agrees with 50.
        max_lag: largest lag in the table.
        seed: of all draws; each cell has draws of its own.
    """

    items: int = 100
    starts: int = 20
    recalls: int = 40
    samples: int = 50
    max_lag: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            OptionError: naming every number out of range.
        """
        least = {"items": 2, "starts": 2, "recalls": 1, "samples": 1, "max_lag": 1, "seed": 0}
        wrong = [
            f"{name}={value!r} (from {least[name]})"
            for name, value in asdict(self).items()
            if type(value) is not int or value < least[name]
        ]
        if not wrong and not max(self.starts, self.max_lag + 1) <= self.items:
            wrong = [f"items={self.items} below starts={self.starts} or max_lag={self.max_lag}"]
        if wrong:
            raise OptionError(
                f"settings of a CRP table: {', '.join(wrong)}. Allowed: whole numbers as said. "
                "Correct them, or take the shipped table."
            )

    @property
    def digest(self) -> str:
        """Sha256 of the settings and the grid; a table carries it."""
        return digest({**asdict(self), "grid": {name: list(GRID[name]) for name in GRID}})


def crp_table(
    settings: TableSettings | None = None, *, progress: ProgressCallback | None = None
) -> xr.Dataset:
    """Compute the CRP by lag in every cell of the grid (Ji-An et al. 2024, public code).

    Cells with `gamma_ft = 0` and `beta_rec` 0 or 1 are exact, the others simulated; `exact` says
    which. Lags are not normalised by what was available, lag 0 is kept, and lags beyond `max_lag`
    count as transitions before what is left is normalised to sum 1.

    Args:
        settings: `TableSettings`; the default takes a quarter of an hour on one core.
        progress: called after each row of cells; may raise `Cancelled`.

    Returns:
        `crp[beta_enc, beta_rec, gamma_ft, lag]` (probability), `crp_sem` of the same axes (standard
        error over starts, 0 where exact), and `exact[beta_enc, beta_rec, gamma_ft]`.
    """
    settings = TableSettings() if settings is None else settings
    shape = tuple(len(values) for values in GRID.values())
    lags = np.arange(-settings.max_lag, settings.max_lag + 1)
    mean, error = (np.zeros((*shape, len(lags)), dtype=np.float32) for _ in range(2))
    exact = np.zeros(shape, dtype=bool)
    for number, index in enumerate(np.ndindex(*shape)):
        cell = Cell(*(values[i] for values, i in zip(GRID.values(), index, strict=True)))
        known = exact_crp(cell, settings.max_lag)
        if known is not None:
            mean[index], exact[index] = known, True
        else:
            mean[index], error[index] = simulated_crp(
                cell,
                settings.max_lag,
                items=settings.items,
                starts=settings.starts,
                recalls=settings.recalls,
                samples=settings.samples,
                random=np.random.default_rng([settings.seed, number]),
            )
        if progress is not None and (number + 1) % shape[-1] == 0:
            progress(Progress(number + 1, exact.size, "cells"))
    return _dataset(mean, error, exact, lags, settings)


def _dataset(mean: Any, error: Any, exact: Any, lags: Any, settings: TableSettings) -> xr.Dataset:
    axes = tuple(GRID)
    about = {f"setting_{name}": value for name, value in asdict(settings).items()}
    return xr.Dataset(
        {
            "crp": ((*axes, "lag"), mean, {"units": "probability"}),
            "crp_sem": ((*axes, "lag"), error, {"units": "probability"}),
            "exact": (axes, exact),
        },
        {**{name: list(values) for name, values in GRID.items()}, "lag": lags},
        {"digest": settings.digest, **about},
    )


@lru_cache(maxsize=1)
def shipped_table() -> xr.Dataset:
    """Return the table that comes with mechlab; its settings are in its attributes."""
    return read_table(BytesIO(files("mechlab.methods.cmr").joinpath("crp_table.npz").read_bytes()))


def read_table(file: Path | BytesIO) -> xr.Dataset:
    """Read what `save_table` wrote."""
    with np.load(file, allow_pickle=False) as held:
        settings = TableSettings(**json.loads(str(held["settings"])))
        lags = np.arange(-settings.max_lag, settings.max_lag + 1)
        return _dataset(held["crp"], held["crp_sem"], held["exact"], lags, settings)


def save_table(table: xr.Dataset, path: Path) -> None:
    """Write a table in the form of the shipped one: `save_table(crp_table(), path)` makes it."""
    settings = {
        name.removeprefix("setting_"): value
        for name, value in table.attrs.items()
        if name.startswith("setting_")
    }
    np.savez_compressed(
        path,
        crp=table.crp.values,
        crp_sem=table.crp_sem.values,
        exact=table.exact.values,
        settings=np.array(json.dumps(settings)),
    )
