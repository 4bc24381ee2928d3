"""`output_crp`: which token of the list the model says next, by distance from the probe's place."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechlab import engine
from mechlab.engine.options import HINTS
from mechlab.methods.induction.ablating import Ablation, Average, Names, prepared
from mechlab.methods.induction.cells import mean_of_known, sem
from mechlab.methods.induction.lags import check_lags
from mechlab.methods.induction.outputs import read_outputs, set_coordinates
from mechlab.methods.induction.rows import Laid, lay_out
from mechlab.methods.induction.scores import refuse_unrepeated
from mechlab.progress import ProgressCallback
from mechlab.prompts import PromptSet, TokenList, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["output_crp"]

Array = np.ndarray[Any, Any]


@analysis(version=1, prompt_kind="tokens", default_plot="lines", per_prompt=False)
def output_crp(
    model: "Model",
    prompts: PromptSet[Any] | Sequence[TokenList] | TokenList,
    *,
    max_lag: int = 5,
    ablate: Names | Mapping[str, Names] | None = None,
    ablation: Ablation = "zero",
    reference: PromptSet[Any] | None = None,
    average: Average = "over_positions",
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Measure what a model recalls after a token of a list that it has read: the output lag-CRP.

    Mistry et al. 2025 (arXiv 2502.06902): the probability that the token after a probe is the
    list's token at some lag from where the probe stood. A model with induction heads recalls at
    lag +1, the serial recall of free-recall studies.

    Args:
        model: a decoder with attention.
        prompts: lists of `ml.prompts.single_probe_lists`, or of `ml.prompts.repeated_tokens` (the
            first repetition is read). Lists of one `group` count as one for SEM.
        max_lag: largest lag on either side.
        ablate: heads that are ablated together, or a mapping from names to such sets, each an entry
            of the axis `head_set` after `intact`.
        ablation: as for `induction_scores`.
        reference: as for `induction_scores`.
        average: as for `induction_scores`.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        progress: called after each batch; may raise `Cancelled`.

    Returns:
        Dataset with `probability[prompt, head_set, lag]`, mean over the list's probes that have a
        token at that lag, of the raw next-token probabilities; `share` of the same axes, each
        divided by the probability of all tokens of the list together (an empty share of nothing is
        NaN); `effect`, `probability` minus that of `intact`; `source_probability[prompt,
        head_set]`; `serial_position[head_set, input_position]`, the mean probability of the token
        at each place of the list, whatever was probed; `mean`, `sem_prompts` over lists and
        `sem_tokens` over probes, `[head_set, lag]`. Coordinates of `head_set`: `members`, `k`.

    Raises:
        OptionError: an option out of range, such as lags beyond the list.
        SiteError: a model without attention, heads that it does not have.
        PromptError: lists without a repeat, longer than the context, or beyond the pool.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.require_heads(model, "models with attention")
    lists = as_prompt_set(prompts, kind="tokens")
    check_lags(max_lag, lists)
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    laid = lay_out(model, lists)
    refuse_unrepeated(lists)
    runner, sets = prepared(model, ablate, ablation, reference, average, ["resid_post"])
    runner.check_width(laid)

    def on_source(index: int, logs: Tensor, _: Sequence[int]) -> Tensor:
        ids = [laid[index].tokens[place] for place in laid[index].source]
        return logs[:, torch.tensor(ids, device=logs.device)].exp()

    queries = [[query for query, _ in one.probes] for one in laid]
    found = read_outputs(
        runner, sets, laid, queries, on_source, max_batch=max_batch, report=progress
    )
    return new_result(
        _variables(found, laid, max_lag, lists.groups),
        {
            "prompt": list(lists.labels),
            **set_coordinates(sets),
            "lag": np.arange(-max_lag, max_lag + 1),
            "input_position": np.arange(max(one.length for one in laid)),
        },
        method="output_crp",
        version=1,
        model=model,
        prompts=lists,
        options=options,
        seed=None,
        started=started,
    ).assign_attrs(ablation=ablation)


def _variables(
    found: Sequence[Sequence[Array]], laid: Sequence[Laid], max_lag: int, groups: Sequence[str]
) -> dict[str, Any]:
    """Arrange probabilities on the list, per set and prompt `[probe, place]`."""
    cell, unit = ("prompt", "head_set", "lag"), {"units": "probability"}
    tables = [
        [_by_lag(table, one, max_lag) for table, one in zip(own, laid, strict=True)]
        for own in found
    ]
    total = np.array([[t.sum(axis=1).mean() for t in own] for own in found]).T
    probability = np.array([[mean_of_known(t) for t in own] for own in tables]).swapaxes(0, 1)
    share = np.array(
        [[mean_of_known(_share(t, whole)) for t, whole in zip(own, all_, strict=True)]
         for own, all_ in zip(tables, found, strict=True)]
    ).swapaxes(0, 1)  # fmt: skip
    tokens = [np.concatenate(own) for own in tables]
    names = list(dict.fromkeys(groups))
    number = np.array([names.index(group) for group in groups])
    by_group = np.stack(
        [
            np.stack([mean_of_known(np.concatenate([own[i] for i in np.flatnonzero(number == g)]))
                      for own in tables])
            for g in range(len(names))
        ]
    )  # fmt: skip
    set_cell = ("head_set", "lag")
    return {
        "probability": (cell, probability, unit),
        "share": (cell, share, {"units": "share of the probability of the list"}),
        "effect": (cell, probability - probability[:, :1], unit),
        "source_probability": (("prompt", "head_set"), total, unit),
        "serial_position": (("head_set", "input_position"), _serial(found, laid), unit),
        "mean": (set_cell, np.stack([mean_of_known(own) for own in tokens]), unit),
        "sem_prompts": (set_cell, sem(by_group), unit),
        "sem_tokens": (set_cell, np.stack([sem(own) for own in tokens]), unit),
    }


def _by_lag(table: Array, one: Laid, max_lag: int) -> Array:
    """Return `[probe, lag]`, NaN where the list has no token at that lag."""
    lags = np.arange(-max_lag, max_lag + 1)
    place = np.array([place for _, place in one.probes])[:, None] + lags
    inside = (place >= 0) & (place < one.length)
    picked = np.take_along_axis(table, np.where(inside, place, 0), axis=1)
    return np.where(inside, picked, np.nan)


def _share(by_lag: Array, whole: Array) -> Array:
    total = whole.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, by_lag / total, np.nan)


def _serial(found: Sequence[Sequence[Array]], laid: Sequence[Laid]) -> Array:
    """Return `[head_set, place]`, mean over the probes of all lists."""
    longest = max(one.length for one in laid)
    padded = [
        np.concatenate(
            [np.pad(t, ((0, 0), (0, longest - t.shape[1])), constant_values=np.nan) for t in own]
        )
        for own in found
    ]
    return np.stack([mean_of_known(own) for own in padded])
