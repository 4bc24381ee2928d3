"""One edit per fact and layer, each made and measured on its own (`edit_sweep`)."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

from mechlab.engine import check_whole
from mechlab.methods.editing import KeyStatistics
from mechlab.methods.editing.corpora import Corpus
from mechlab.methods.editing.modules import EditSite
from mechlab.methods.editing.rank_one import Variant
from mechlab.methods.evaluation.measures import Protocol
from mechlab.methods.evaluation.table import check_objects
from mechlab.progress import Journal, Progress, ProgressCallback
from mechlab.prompts import EditCase, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result
from mechlab.workflows.edit_plan import EditPlan, check_unedited
from mechlab.workflows.sweeping import Sweep, plan_options

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["edit_sweep"]


@analysis(version=1, prompt_kind="edit", default_plot="lines", per_prompt=False)
def edit_sweep(
    model: "Model",
    cases: PromptSet[Any] | Sequence[EditCase] | EditCase,
    *,
    layers: Sequence[int] | None = None,
    variant: Variant = "r-rome",
    site: EditSite | None = None,
    key_statistics: KeyStatistics | None = None,
    corpus: Corpus = "atlas",
    tokens: int = 100_000,
    settings: Mapping[str, Any] | None = None,
    protocol: Protocol = "counterfact",
    reference: xr.Dataset | None = None,
    seed: int = 0,
    max_batch: int | None = None,
    journal: Journal | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Edit each fact in each layer, one edit at a time, and measure every one.

    Args:
        model: a model with raw weights and no edit in force; left bitwise as found.
        cases: what to edit and what to look at (`ml.as_edit_cases`, `ml.prompts.edit_cases`).
        layers: zero-based blocks; default all.
        variant: as in `ml.rank_one_edit`.
        site: which projection; the architecture's default when `None`.
        key_statistics: of all the layers; counted over `corpus` when `None`.
        corpus: as in `ml.key_statistics`.
        tokens: as there.
        settings: further options of `ml.rank_one_edit`, such as `{"clamp": 20.0, "steps": 30}`;
            by default what `ml.edit_settings` knows of the model, but for its layer.
        protocol: as in `ml.evaluate_edit`.
        reference: predictions on held-out texts (`ml.next_token_reference`), for the drift.
        seed: of contexts and key statistics.
        max_batch: prompts that run side by side.
        journal: keeps finished edits, so that a killed run resumes.
        progress: called after each edit with a partial result; may raise `Cancelled`.

    Returns:
        Dataset of (case, layer) with what `ml.evaluate_edit` measures (`efficacy`, `paraphrase`,
        `neighbourhood`, … and each `..._magnitude`), `case_score` (harmonic mean of these three of
        the case), `probability_new` and `probability_true` after the rewrite prompt,
        `rewrite_score` (rise of the new object's probability as a share of what was possible),
        `drift` (nats, NaN without a reference), and of the edit `division_factor`,
        `division_ratio` (k.u over that of the mean key: 1 for R-ROME, near 0 the change explodes),
        `norm`, `relative_norm` (share of the weight's), `value_ratio` (||v* - v0|| / ||v0||),
        `probability_optimised` (of the object when the optimisation ended), `steps`, `residual` and
        `residual_bare` (distance of the edited output from v* at the key that meets it and at the
        bare prompt's, see `ml.rank_one_edit`). `left`
        (case, layer, d_out) and `right` (case, layer, d_in) are the edits themselves, see
        `ml.swept_edit`. `score` (layer) is S over the cases. Each measure is there as
        `..._before` (case) too, of the model without an edit.

    Raises:
        OptionError, PromptError, ModelError: as `ml.rank_one_edit` and `ml.evaluate_edit`.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    check_unedited(model)
    check_whole("max_batch", max_batch, at_least=1, optional=True)
    given = as_prompt_set(cases, kind="edit")
    check_objects(given, protocol)
    chosen = tuple(range(model.n_layers)) if layers is None else tuple(layers)
    plan = EditPlan.make(
        model, given, chosen, variant=variant, site=site, key_statistics=key_statistics,
        corpus=corpus, tokens=tokens, settings=settings, seed=seed, progress=progress,
    )  # fmt: skip
    options = plan_options(plan) | {"layers": sorted(chosen), "protocol": protocol}
    sweep = Sweep(plan, given, sorted(chosen), protocol, reference, max_batch)

    def dataset() -> xr.Dataset:
        return new_result(
            sweep.variables(), sweep.coordinates(), method="edit_sweep", version=1, model=model,
            prompts=given, options=options, seed=seed, started=started,
        ).assign_attrs(edit_site=plan.site)  # fmt: skip

    total = len(given) * len(chosen)
    for done in sweep.run(journal):
        if progress is not None:
            progress(Progress(done, total, "edits", dataset()))
    return dataset()
