"""The engine's one function.

The promise, kept by tests: rows in a batch == rows one by one == the model's forward with hooks.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from mechlab.engine.rows import Base, Readings, Row
from mechlab.engine.sweep import Partial, Sweep
from mechlab.engine.verify import verify
from mechlab.errors import OptionError
from mechlab.metrics import Metric, kl_divergence, named_metric
from mechlab.progress import Journal, ProgressCallback

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["run"]

Mode = Literal["auto", "wavefront", "packed", "plain"]


def run(
    model: "Model",
    bases: Sequence[Base],
    rows: Sequence[Row],
    *,
    read: str | Metric = "probability",
    answers: Sequence[Sequence[int]] | None = None,
    banks: Mapping[str, Tensor] | None = None,
    mode: Mode = "auto",
    suffix: Literal["auto"] | bool = "auto",
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
    partial: Partial | None = None,
    journal: Journal | None = None,
) -> Readings:
    """Run base runs and counterfactual rows and read one number (or the logits) from each.

    Args:
        model: the model; verified before its first use, left bitwise as found.
        bases: prompts to run once each.
        rows: counterfactuals on these bases.
        read: a metric's name, a metric function, or `"logits"`.
        answers: token ids per base, as the metric needs them; a row uses those of its base.
        banks: values that `Insert` writes, `[index, pos, ...]`, by name.
        mode: `wavefront` resumes at the first touched layer; `packed` runs whole forwards with many
            rows side by side; `plain` runs one whole forward per row, unpadded: the reference.
            `auto` is the wavefront where the model passed its self-check, else `plain`.
        suffix: whether the wavefront leaves out the positions before a batch's first touched one;
            `auto` does so on models with attention. Recurrent models cannot.
        max_batch: upper bound on rows per batch.
        progress: called between batches; may raise `Cancelled`.
        partial: makes the `partial` of progress reports from the readings so far (NaN: not run).
        journal: where finished batches are kept, so that a killed run resumes.

    Returns:
        Readings of bases and rows, in the order given.

    Raises:
        SiteError: sites that do not exist, are unverified, are out of range, or never fired.
        OptionError: indices or options out of range.
        PromptError: prompts that cannot be tokenised (all offenders at once).
        Cancelled: when `progress` asked to stop.
    """
    checked_mode = _checked_mode(model, mode, suffix)
    metric = None if read == "logits" else named_metric(read)
    if metric is not None and metric is not kl_divergence and answers is None:
        raise OptionError(f"read={read!r} needs `answers`: token ids for each base run.")
    if answers is not None and len(answers) != len(bases):
        raise OptionError(f"{len(answers)} answers for {len(bases)} base runs; give one per base.")
    with model.lock, torch.no_grad():
        if model.checks is None and mode == "auto":
            verify(model)
            checked_mode = _checked_mode(model, mode, suffix)
        sweep = Sweep(
            model, bases, rows, metric, answers, banks or {}, checked_mode, suffix, max_batch
        )
        return sweep.run(progress, partial, journal)


def _checked_mode(model: "Model", mode: Mode, suffix: Literal["auto"] | bool) -> str:
    if mode not in ("auto", "wavefront", "packed", "plain"):
        raise OptionError(f"unknown mode {mode!r}. Modes: auto, wavefront, packed, plain.")
    if suffix is True and not model.has_attention:
        raise OptionError(
            f"suffix=True: {model.name} is recurrent; its state cannot be skipped over."
        )
    if mode != "auto":
        return mode
    return "wavefront" if model.checks is None or model.checks.engine_agrees else "plain"
