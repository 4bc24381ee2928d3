"""`icl_score` and `copy_loss`: how much better a model predicts what comes late, or again."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mechlab import engine
from mechlab.engine.options import HINTS
from mechlab.errors import OptionError, PromptError
from mechlab.methods.induction.ablating import Ablation, Average, Names, prepared
from mechlab.methods.induction.cells import mean_of_known, sem
from mechlab.methods.induction.outputs import losses, set_coordinates
from mechlab.methods.induction.rows import Laid, lay_out, lay_out_texts
from mechlab.progress import ProgressCallback
from mechlab.prompts import PromptSet, Text, TokenList, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["copy_loss", "icl_score"]

Array = np.ndarray[Any, Any]
Window = tuple[tuple[int, int], tuple[int, int]]
STANDARD: Window = ((450, 550), (40, 60))
"""Windows around the published indices 500 and 50, both ends included."""


@analysis(version=1, prompt_kind="text", default_plot="lines", per_prompt=False)
def icl_score(
    model: "Model",
    prompts: PromptSet[Any] | Sequence[Text] | Text,
    *,
    hi: int = 500,
    lo: int = 50,
    window: Literal["standard"] | Window | None = None,
    ablate: Names | Mapping[str, Names] | None = None,
    ablation: Ablation = "zero",
    reference: PromptSet[Any] | None = None,
    average: Average = "over_positions",
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Measure in-context learning: loss at a late token minus loss at an early one.

    Olsson et al. 2022 (arXiv 2209.11895), "In-context learning score": loss of the 500th token of a
    text minus loss of the 50th, negative where the context helps. A change may come from either
    loss, so both are there. A single index is noisy (several nats per text); a window averages.

    Args:
        model: a decoder with attention.
        prompts: texts of `ml.prompts.texts`, longer than the last index read; only as much as is
            needed is read.
        hi: late index, a token of the text counted from 0, BOS not counted.
        lo: early index; from 1 where the model puts no BOS in front.
        window: ranges of indices around `hi` and `lo`, both ends included, whose mean losses give
            the windowed score; `standard` is ((450, 550), (40, 60)).
        ablate: as for `output_crp`.
        ablation: as for `induction_scores`.
        reference: as for `induction_scores`.
        average: as for `induction_scores`.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        progress: called after each batch; may raise `Cancelled`.

    Returns:
        Dataset, in nats, with `loss_hi`, `loss_lo`, `score` (their difference) and `effect` (score
        minus that of `intact`), each `[prompt, head_set]`; `loss_hi_windowed`, `loss_lo_windowed`,
        `score_windowed` of the same axes, NaN without `window`; `score_mean`, `score_sem`,
        `score_windowed_sem` `[head_set]`, over texts. Coordinates of `head_set`: `members`, `k`.

    Raises:
        OptionError: indices out of order, windows that are none.
        SiteError: a model without attention, heads that it does not have.
        PromptError: texts that are too short or cannot be tokenised, indices beyond the context.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.require_heads(model, "models with attention")
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    texts = as_prompt_set(prompts, kind="text")
    ranges = _ranges(hi, lo, window, first=0 if model.prepend_bos else 1)
    last = max(stop for _, stop in ranges.values())
    laid = lay_out_texts(model, texts, at_least=last + 1, cut=True)
    runner, sets = prepared(model, ablate, ablation, reference, average, ["resid_post"])
    runner.check_width(laid)
    wanted = sorted({i for start, stop in ranges.values() for i in range(start, stop + 1)})
    queries = [[index + one.front - 1 for index in wanted] for one in laid]
    found = losses(runner, sets, laid, queries, max_batch=max_batch, report=progress)
    table = np.stack([np.stack(own) for own in found], axis=1)  # prompt, head_set, index
    return new_result(
        _icl_variables(table, wanted, ranges),
        {"prompt": list(texts.labels), **set_coordinates(sets)},
        method="icl_score",
        version=1,
        model=model,
        prompts=texts,
        options=options,
        seed=None,
        started=started,
    ).assign_attrs(ablation=ablation, index="token of the text, from 0, BOS not counted")


def _ranges(hi: int, lo: int, window: object, *, first: int) -> dict[str, tuple[int, int]]:
    """Return first and last index of everything that is averaged."""
    engine.check_whole("hi", hi, at_least=0)
    engine.check_whole("lo", lo, at_least=0)
    found = {"loss_hi": (hi, hi), "loss_lo": (lo, lo)}
    given = STANDARD if window == "standard" else window
    if given is not None:
        try:
            (a, b), (c, d) = given  # type: ignore[misc]
        except (TypeError, ValueError):
            a = b = c = d = -1
        for one in (a, b, c, d):
            engine.check_whole("window", one)
        found |= {"loss_hi_windowed": (a, b), "loss_lo_windowed": (c, d)}
    wrong = [f"{name}: {pair}" for name, pair in found.items() if not first <= pair[0] <= pair[1]]
    if lo >= hi or wrong:
        raise OptionError(
            f"hi={hi}, lo={lo}, window={window!r}"
            + (f" (not in order: {'; '.join(wrong)})" if wrong else "")
            + f". Allowed: lo below hi, both from {first}, and a window ((450, 550), (40, 60)) or "
            "'standard'. Correct them."
        )
    return found


def _icl_variables(
    table: Array, wanted: Sequence[int], ranges: Mapping[str, tuple[int, int]]
) -> dict[str, Any]:
    cell, unit = ("prompt", "head_set"), {"units": "nats"}
    index = np.array(wanted)
    made = {
        name: table[..., (index >= start) & (index <= stop)].mean(axis=-1)
        for name, (start, stop) in ranges.items()
    }
    empty = np.full(table.shape[:2], np.nan)
    for name in ("loss_hi_windowed", "loss_lo_windowed"):
        made.setdefault(name, empty)
    made["score"] = made["loss_hi"] - made["loss_lo"]
    made["score_windowed"] = made["loss_hi_windowed"] - made["loss_lo_windowed"]
    made["effect"] = made["score"] - made["score"][:, :1]
    over = {
        "score_mean": made["score"].mean(axis=0),
        "score_sem": sem(made["score"]),
        "score_windowed_sem": sem(made["score_windowed"]),
    }
    return {name: (cell, values, unit) for name, values in made.items()} | {
        name: ("head_set", values, unit) for name, values in over.items()
    }


@analysis(version=1, prompt_kind="rows", default_plot="lines", per_prompt=False)
def copy_loss(
    model: "Model",
    prompts: PromptSet[Any] | Sequence[TokenList | Text] | TokenList | Text,
    *,
    copies: int | None = None,
    first_token: bool = True,
    ablate: Names | Mapping[str, Names] | None = None,
    ablation: Ablation = "zero",
    reference: PromptSet[Any] | None = None,
    average: Average = "over_positions",
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Measure the loss on each copy of what is read again: behavioural copying.

    Hernandez et al. 2022 (arXiv 2205.10487) repeat a paragraph; Olsson et al. 2022 random tokens.

    Args:
        model: a decoder with attention.
        prompts: lists of `ml.prompts.repeated_tokens`, which say how often they are read; or texts.
        copies: how often each text is read, 2 or more; not for lists.
        first_token: whether the first token of each copy counts. In the second copy nothing that
            was read announces it.
        ablate: as for `output_crp`.
        ablation: as for `induction_scores`.
        reference: as for `induction_scores`.
        average: as for `induction_scores`.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        progress: called after each batch; may raise `Cancelled`.

    Returns:
        Dataset with `loss[prompt, head_set, copy]` in nats, mean over the copy's tokens (the first
        token of all is left out where nothing stands before it); `probability` of the right token
        and `effect`, the loss minus that of `intact`, of the same axes; `gain[prompt, head_set]`,
        loss of the first copy minus the mean loss of the later ones; `loss_by_position[head_set,
        copy, input_position]`, mean over prompts. `copy` counts from 1. Coordinates of `head_set`:
        `members`, `k`.

    Raises:
        OptionError: `copies` of lists, or none of texts.
        SiteError: a model without attention, heads that it does not have.
        PromptError: lists that are not read a whole number of times, or different numbers; prompts
            longer than the context; all at once.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.require_heads(model, "models with attention")
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    engine.check_choice("first_token", str(first_token), ("True", "False"))
    chosen = as_prompt_set(prompts, kind="rows")
    laid, times = _copied(model, chosen, copies)
    runner, sets = prepared(model, ablate, ablation, reference, average, ["resid_post"])
    runner.check_width(laid)
    queries = [range(max(0, one.front - 1), len(one.tokens) - 1) for one in laid]
    found = losses(runner, sets, laid, queries, max_batch=max_batch, report=progress)
    table = _by_copy(found, laid, times)  # prompt, head_set, copy, input_position
    if not first_token:
        table[..., 0] = np.nan
    return new_result(
        _copy_variables(table),
        {
            "prompt": list(chosen.labels),
            **set_coordinates(sets),
            "copy": np.arange(1, times + 1),
            "input_position": np.arange(table.shape[-1]),
        },
        method="copy_loss",
        version=1,
        model=model,
        prompts=chosen,
        options=options,
        seed=None,
        started=started,
    ).assign_attrs(ablation=ablation)


def _copied(model: "Model", prompts: PromptSet[Any], copies: int | None) -> tuple[list[Laid], int]:
    """Return rows, and how often each is read."""
    if prompts.kind == "text":
        engine.check_whole("copies", copies, at_least=2)
        assert copies is not None
        return lay_out_texts(model, prompts, copies=copies), copies
    if copies is not None:
        raise OptionError(
            f"copies={copies} of lists, which say themselves how often they are read. Allowed: "
            "copies of texts. Leave it out."
        )
    counts = {one.copies for one in prompts}
    if 0 in counts or len(counts) > 1:
        odd = [f"#{i} ({one.copies or 'no'} copies)" for i, one in enumerate(prompts)]
        raise PromptError(
            f"lists are not read the same whole number of times: {', '.join(odd[:10])}.\n"
            "  Allowed: lists of ml.prompts.repeated_tokens of one call.\n  Measure them apart."
        )
    return lay_out(model, prompts), counts.pop()


def _by_copy(found: Sequence[Sequence[Array]], laid: Sequence[Laid], times: int) -> Array:
    """Return losses by copy and place in it, NaN where there is none."""
    longest = max(one.length for one in laid)
    table = np.full((len(laid), len(found), times, longest), np.nan)
    for number, own in enumerate(found):
        for index, (values, one) in enumerate(zip(own, laid, strict=True)):
            # Without a BOS nothing predicts the first token.
            whole = np.concatenate([np.full(one.length * times - len(values), np.nan), values])
            table[index, number, :, : one.length] = whole.reshape(times, one.length)
    return table


def _copy_variables(table: Array) -> dict[str, Any]:
    cell, unit = ("prompt", "head_set", "copy"), {"units": "nats"}
    loss, probability = mean_of_known(table, -1), mean_of_known(np.exp(-table), -1)
    return {
        "loss": (cell, loss, unit),
        "probability": (cell, probability, {"units": "probability"}),
        "effect": (cell, loss - loss[:, :1], unit),
        "gain": (cell[:2], loss[..., 0] - loss[..., 1:].mean(axis=-1), unit),
        "loss_by_position": (
            ("head_set", "copy", "input_position"),
            mean_of_known(table, 0),
            unit,
        ),
    }
