"""Averages of traces over facts, with their uncertainty."""

from collections.abc import Sequence
from typing import Literal

import xarray as xr

from mechlab.errors import OptionError
from mechlab.results import by_token_role
from mechlab.statistics import bootstrap_interval

__all__ = ["average_indirect_effect"]


def average_indirect_effect(
    trace: xr.Dataset,
    *,
    average: Literal["pooled", "per_prompt"] = "pooled",
    cluster: str | Sequence[object] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Average the effects of a trace over facts, by token role (Meng et al. 2022, section 2).

    Differs from the paper: every restored probability is compared with its own fact's corrupted
    one before averaging; the published figures subtract the mean over all facts afterwards. The two
    agree for roles that each fact has once, such as the last subject token.

    Args:
        trace: result of `causal_trace`; skipped facts are left out.
        average: `pooled` counts every token once, as published; `per_prompt` every fact once.
        cluster: facts drawn together by the bootstrap: a coordinate of `prompt`, or labels.
        confidence: of the bootstrap intervals over facts.
        resamples: bootstrap samples.
        seed: of the bootstrap.

    Returns:
        Dataset with `average_indirect_effect[site, layer, token_role]` and the number
        `average_total_effect`, each with `_low` and `_high`, in units of probability; `n` is the
        number of facts.

    Raises:
        OptionError: when `trace` is not a causal trace, or no fact in it was traced.
    """
    if (
        not {"indirect_effect", "total_effect"} <= set(trace.data_vars)
        or "status" not in trace.coords
    ):
        raise OptionError(
            f"average_indirect_effect got variables {sorted(map(str, trace.data_vars))}. "
            "Allowed: a result of causal_trace. Pass the Dataset itself."
        )
    known = trace.isel(prompt=(trace.status == "ok").values)
    if known.sizes["prompt"] == 0:
        raise OptionError(
            f"none of {trace.sizes['prompt']} facts was traced, so there is nothing to average. "
            f"First reason: {str(trace.status.values[0])}."
        )
    if cluster is not None and not isinstance(cluster, str):
        if len(cluster) != trace.sizes["prompt"]:
            raise OptionError(
                f"cluster has {len(cluster)} labels for {trace.sizes['prompt']} facts. "
                "Allowed: one label per fact of the trace, skipped ones included. Give as many."
            )
        cluster = [c for c, ok in zip(cluster, trace.status.values == "ok", strict=True) if ok]
    roles = by_token_role(known.indirect_effect, average)
    found = {}
    for name, array in (("indirect", roles), ("total", known.total_effect)):
        interval = bootstrap_interval(
            array, cluster=cluster, confidence=confidence, resamples=resamples, seed=seed
        )
        found[f"average_{name}_effect"] = array.mean("prompt")
        found[f"average_{name}_effect_low"] = interval.low
        found[f"average_{name}_effect_high"] = interval.high
    found["n"] = xr.DataArray(known.sizes["prompt"])
    return xr.Dataset(found, attrs={"average": average, "confidence": confidence})
