"""Intervals of means over prompts, or why there are none."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from mechlab.statistics import bootstrap_interval

__all__ = ["FEWEST", "intervals"]

FEWEST = 4
"""With fewer independent prompts a bootstrap interval is too short by several per cent."""


def intervals(
    values: Mapping[str, xr.DataArray],
    groups: Sequence[str],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> tuple[dict[str, Any], str]:
    """Return `<name>_low` and `<name>_high` of each mean over prompts, and their status.

    Args:
        values: variables with the axis `prompt`.
        groups: which prompts are not independent of one another.
        confidence: of the intervals.
        resamples: bootstrap samples.
        seed: of the bootstrap.

    Raises:
        OptionError: confidence, resamples or seed out of range.
    """
    independent = len(set(groups))
    made: dict[str, Any] = {}
    for name, array in values.items():
        bounds = bootstrap_interval(
            array,
            cluster=list(groups),
            confidence=confidence,
            resamples=resamples,
            seed=seed,
        )
        for side in ("low", "high"):
            found = bounds[side]
            if independent < FEWEST:
                found = found.where(False)
            made[f"{name}_{side}"] = (found.dims, np.asarray(found.values), dict(array.attrs))
    if independent < FEWEST:
        return made, f"no interval: {independent} independent prompts, at least {FEWEST} are needed"
    return made, "ok"
