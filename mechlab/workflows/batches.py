"""Many edits at once with MEMIT, batches of several sizes measured side by side."""

import time
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.engine import check_whole
from mechlab.errors import OptionError
from mechlab.methods.editing import KeyStatistics, memit
from mechlab.methods.editing.corpora import Corpus, check_corpus
from mechlab.methods.editing.modules import EditSite, check_layers, default_site, projection
from mechlab.methods.editing.rank_one import collect
from mechlab.methods.editing.rows import check_targets
from mechlab.methods.editing.sentences import check_sentences
from mechlab.methods.editing.stacking import stacked
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import EditCase, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result
from mechlab.workflows.aftermath import Aftermath, check_watch
from mechlab.workflows.edit_plan import (
    check_given_statistics,
    check_setting_names,
    check_unedited,
    counted,
)

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["batch_edits"]


@analysis(version=1, prompt_kind="edit", default_plot="lines", per_prompt=False)
def batch_edits(
    model: "Model",
    cases: PromptSet[Any] | Sequence[EditCase] | EditCase,
    *,
    layers: Sequence[int],
    sizes: Sequence[int] | None = None,
    site: EditSite | None = None,
    key_statistics: KeyStatistics | None = None,
    corpus: Corpus = "atlas",
    tokens: int = 100_000,
    settings: Mapping[str, Any] | None = None,
    texts: Sequence[str] | None = None,
    paraphrases: int = 2,
    neighbourhood: int = 100,
    collapse_nll: float = 1.0,
    seed: int = 0,
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Write the first cases of a set at once with MEMIT, for several sizes of the batch.

    Meng et al. 2023 (arXiv 2210.07229), figure of scaling: each size is one edit of the unedited
    model. Compare with `ml.sequential_edits`, whose measures it has.

    Args:
        model: a model with raw weights and no edit in force; left bitwise as found.
        cases: what to edit, and the prompts to watch.
        layers: zero-based blocks that an edit is spread over.
        sizes: numbers of edits, ascending; default all cases.
        site: as in `ml.memit`.
        key_statistics: of all the layers; counted over `corpus` when `None`.
        corpus: as in `ml.key_statistics`.
        tokens: as there.
        settings: further options of `ml.memit`, such as `{"moment_weight": 1000.0, "clamp": 4.0}`.
        texts: as in `ml.sequential_edits`, as are all further options.
        paraphrases: see there.
        neighbourhood: see there.
        collapse_nll: see there.
        seed: of contexts, key statistics and held-out texts.
        max_batch: rows that run side by side when measuring.
        progress: called after each size with a partial result; may raise `Cancelled`.

    Returns:
        Dataset of (step), the size of the batch, 0 for the unedited model: `efficacy`,
        `paraphrase`, `neighbourhood`, `drift`, `nll_rise`, `cumulative_norm`, `relative_norm`,
        `collapsed` and `held` (step, edit) as `ml.sequential_edits` has them; `residual_error`
        (step), the share of the wanted change of the residual that is missing, mean over edits.
        `efficacy_latest` and `retention` compare with the next smaller size.

    Raises:
        OptionError, PromptError, ModelError: as `ml.memit`, before anything is run.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    given = as_prompt_set(cases, kind="edit")
    check_unedited(model)
    watch = {
        "paraphrases": paraphrases, "neighbourhood": neighbourhood, "collapse_nll": collapse_nll,
        "seed": seed,
    }  # fmt: skip
    requests = [case.request for case in given]
    wanted = [len(given)] if sizes is None else list(sizes)
    chosen: EditSite = default_site(model) if site is None else site
    collect(
        (
            lambda: _check_sizes(wanted, len(given)),
            lambda: check_layers(model, layers),
            lambda: projection(model, 0, chosen),
            lambda: check_corpus(corpus),
            lambda: check_whole("tokens", tokens, at_least=1),
            lambda: check_setting_names(settings or {}, "memit", signature(memit).parameters),
            lambda: check_watch(texts=texts, max_batch=max_batch, **watch),  # type: ignore[arg-type]
            lambda: check_given_statistics(model, key_statistics, layers, chosen),
            lambda: check_sentences(model, requests, settings or {}),
        ),
        [],
    )
    check_targets(model, requests)
    statistics = key_statistics or counted(model, layers, corpus, tokens, seed, chosen)
    after = Aftermath(
        model, given, [0, *wanted], texts=texts, max_batch=max_batch, **watch  # type: ignore[arg-type]
    )  # fmt: skip
    errors = np.full(len(wanted) + 1, np.nan)
    options = watch | {
        "layers": sorted(layers), "sizes": wanted, "site": chosen, "texts": after.texts,
        "settings": dict(settings or {}), "key_statistics": statistics.digest,
    }  # fmt: skip
    how = {"layers": layers, "key_statistics": statistics, "site": chosen, "seed": seed}

    def dataset() -> xr.Dataset:
        return new_result(
            after.variables() | {"residual_error": ("step", errors, {"units": "share"})},
            after.coordinates(), method="batch_edits", version=1, model=model, prompts=given,
            options=options, seed=seed, started=started,
        ).assign_attrs(**after.about(), edit_site=chosen)  # fmt: skip

    for column in _measured(after, how | dict(settings or {}), errors):
        if progress is not None:
            progress(Progress(column, len(wanted), "batches", dataset()))
    return dataset()


def _measured(after: Aftermath, how: Mapping[str, Any], errors: Any) -> Iterator[int]:
    """Edit and measure, size by size, and yield how many sizes are done."""
    after.measure(0, 0.0, 0.0)
    for column, size in enumerate(after.steps[1:], start=1):
        edit = memit(after.model, [case.request for case in after.cases[:size]], **how)
        errors[column] = float(edit.details.error.isel(delta=-1).mean())
        with stacked(after.model) as stack:
            stack.add(edit)
            after.measure(column, stack.norm, stack.weight_norm)
        yield column


def _check_sizes(sizes: Sequence[object], most: int) -> None:
    whole = all(isinstance(size, int) and not isinstance(size, bool) for size in sizes)
    if not sizes or not whole or [*sizes] != sorted({*sizes} & {*range(1, most + 1)}):  # type: ignore[type-var]
        raise OptionError(
            f"sizes={sizes!r:.80} of {most} cases. Allowed: whole numbers from 1 to {most}, "
            "ascending, each once. Correct them, or give more cases."
        )
