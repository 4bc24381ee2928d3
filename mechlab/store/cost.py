"""What a trace would cost, told from its size and from the speed of stored ones."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mechlab.store.records import Entry

__all__ = ["TraceCost", "trace_cost"]

_AXES = ("prompt", "site", "layer", "pos", "sample")


@dataclass(frozen=True)
class TraceCost:
    """Size of a causal trace that has not been run."""

    runs: int
    """Restored runs: sites × layers × traced tokens × corrupted runs."""
    seconds: float | None
    """Expected time at the speed of the newest stored trace, `None` before there is one."""


def trace_cost(
    stored: Iterable[Entry], *, sites: int, layers: int, tokens: int, samples: int
) -> TraceCost:
    """Return what a causal trace would cost, without loading a model.

    Args:
        stored: stored traces of the same model, newest first, as `Store.find` returns them.
        sites: number of sites.
        layers: number of layers traced.
        tokens: number of tokens traced, over all facts.
        samples: corrupted runs per fact.
    """
    runs = sites * layers * tokens * samples
    speeds = (
        math.prod(int(entry.sizes.get(axis, 1)) for axis in _AXES) / entry.wall_seconds
        for entry in stored
        if entry.method == "causal_trace" and entry.wall_seconds > 0
    )
    speed = next(speeds, None)
    return TraceCost(runs, runs / speed if speed else None)
