"""One edit after another on the same model, watched for forgetting and collapse."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.engine import check_whole
from mechlab.errors import ModelError, OptionError
from mechlab.methods.editing import KeyStatistics
from mechlab.methods.editing.corpora import Corpus
from mechlab.methods.editing.modules import EditSite
from mechlab.methods.editing.rank_one import Variant
from mechlab.methods.editing.stacking import EditStack, stacked
from mechlab.progress import Journal, Progress, ProgressCallback
from mechlab.prompts import EditCase, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result
from mechlab.workflows.aftermath import Aftermath, check_watch
from mechlab.workflows.edit_plan import EditPlan, check_unedited
from mechlab.workflows.made_edits import NUMBERS, MadeEdit
from mechlab.workflows.sweeping import plan_options

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["sequential_edits"]


@analysis(version=1, prompt_kind="edit", default_plot="lines", per_prompt=False)
def sequential_edits(
    model: "Model",
    cases: PromptSet[Any] | Sequence[EditCase] | EditCase,
    *,
    layer: int,
    every: int = 10,
    variant: Variant = "r-rome",
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
    journal: Journal | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Make one edit after another, none undone, and measure the model every few edits.

    Gupta et al. 2024 (arXiv 2403.07175) edit GPT-2 XL and GPT-J so: with ROME single edits, seen by
    an update norm far above the others, make the model collapse; R-ROME has none of them. Each edit
    is computed on the model as the earlier ones left it; key statistics and contexts are those of
    the unedited model.

    Args:
        model: a model with raw weights and no edit in force; left bitwise as found.
        cases: what to edit, in this order, and the prompts to watch.
        layer: zero-based block of all edits.
        every: the model is measured before the first edit, after so many each, and after the last.
        variant: as in `ml.rank_one_edit`.
        site: as there.
        key_statistics: of the layer; counted over `corpus` when `None`.
        corpus: as in `ml.key_statistics`.
        tokens: as there.
        settings: further options of `ml.rank_one_edit`; by default what `ml.edit_settings` knows of
            the model, but for its layer.
        texts: held-out texts that no edit is about; by default 40 of the shipped corpus in which
            no edited subject occurs.
        paraphrases: so many of each case are watched.
        neighbourhood: so many neighbourhood prompts of all cases together are watched, none of them
            with an edited subject in it.
        collapse_nll: the model counts as collapsed where its loss on the held-out texts has risen
            by more than this, in nats per token (1: 2.7 times the perplexity).
        seed: of contexts, key statistics and held-out texts.
        max_batch: rows that run side by side.
        journal: keeps finished edits, so that a killed run resumes.
        progress: called after each edit with a partial result; may raise `Cancelled`.

    Returns:
        Dataset of (step), the number of edits in force: `efficacy` (share of the edits so far after
        whose prompt the new object is more probable than the old), `efficacy_latest` (of those
        since the step before), `retention` (of those before that), `paraphrase` (of all so far),
        `neighbourhood` (old object more probable, untouched subjects), `drift` (mean KL(unedited ‖
        now) on the held-out texts, nats), `nll_rise` (nats per token), `cumulative_norm` (of the
        sum of all changes) and `relative_norm` (its share of the weight's), `largest_norm` and
        `smallest_division_ratio` of the edits since the step before, `collapsed`. `held` (step,
        edit) is 1 where an edit holds and 0 where not, NaN before it is made; `held_before` (edit)
        the same of the unedited model; `text_nll_rise` (step, prompt) that of each held-out text.
        Of (edit): what
        `ml.edit_sweep` says of edits (`norm`, `division_factor`, `division_ratio`,
        `probability_new` right after the edit, ...), and the edits themselves, `left` (edit, d_out)
        and `right` (edit, d_in). Attributes: `collapse_step` (-1 for never), `ended` (why the
        sequence ended early: an edit that could not be computed or written; empty otherwise).
        Steps that were not reached are NaN.

    Raises:
        OptionError, PromptError, ModelError: as `ml.rank_one_edit`, before anything is run.
        Cancelled: when `progress` asked to stop; the last partial result holds what was measured.

    Differs from the paper: drift and loss on held-out text instead of GLUE tasks.
    """
    started = time.time()
    given = as_prompt_set(cases, kind="edit")
    check_unedited(model)
    check_whole("every", every, at_least=1)
    watch = {
        "paraphrases": paraphrases, "neighbourhood": neighbourhood, "collapse_nll": collapse_nll,
        "seed": seed,
    }  # fmt: skip
    check_watch(texts=texts, max_batch=max_batch, **watch)  # type: ignore[arg-type]
    plan = EditPlan.make(
        model, given, (layer,), variant=variant, site=site, key_statistics=key_statistics,
        corpus=corpus, tokens=tokens, settings=settings, seed=seed, progress=progress,
    )  # fmt: skip
    steps = [*range(0, len(given), every), len(given)]
    after = Aftermath(model, given, steps, texts=texts, max_batch=max_batch, **watch)  # type: ignore[arg-type]
    sequence = _Sequence(plan, given, layer, after)
    options = plan_options(plan) | watch | {"layer": layer, "every": every, "texts": after.texts}

    def dataset() -> xr.Dataset:
        return new_result(
            sequence.variables() | after.variables(), after.coordinates(),
            method="sequential_edits", version=1, model=model, prompts=given, options=options,
            seed=seed, started=started,
        ).assign_attrs(
            **after.about(), edit_site=plan.site, edit_layer=layer, ended=sequence.ended
        )  # fmt: skip

    for done in sequence.run(journal):
        if progress is not None:
            progress(Progress(done, len(given), "edits", dataset()))
    return dataset()


class _Sequence:
    """The edits made so far."""

    def __init__(
        self, plan: EditPlan, cases: PromptSet[EditCase], layer: int, after: Aftermath
    ) -> None:
        self.plan, self.cases, self.layer, self.after = plan, cases, layer, after
        self.made: list[MadeEdit] = []
        self.ended = ""

    def run(self, journal: Journal | None) -> Iterator[int]:
        """Make all edits, measure where it is due, and yield how many are made."""
        with stacked(self.plan.model) as stack:
            self._measure(stack)
            for case in self.cases:
                try:
                    made = self.plan.edit(case.request, self.layer, journal)
                    stack.add(made.edit)
                except (OptionError, ModelError) as err:  # what was asked for is checked by now
                    self.ended = f"edit {len(self.made) + 1}: {str(err).splitlines()[0]}"
                    return
                self.made.append(made)
                self._measure(stack)
                yield len(self.made)

    def _measure(self, stack: EditStack) -> None:
        if len(self.made) in self.after.steps:
            column = self.after.steps.index(len(self.made))
            self.after.measure(column, stack.norm, stack.weight_norm)

    def variables(self) -> dict[str, Any]:
        """Return what is known of each edit, and its extremes between two measurements."""
        place = self.plan.place(self.layer)
        held = {name: np.full(len(self.cases), np.nan) for name in NUMBERS}
        factors = {
            "left": np.full((len(self.cases), place.d_out), np.nan),
            "right": np.full((len(self.cases), place.d_in), np.nan),
        }
        for index, made in enumerate(self.made):
            for name in NUMBERS:
                held[name][index] = made.numbers[name]
            factors["left"][index], factors["right"][index] = made.factors
        found: dict[str, Any] = {name: ("edit", values) for name, values in held.items()}
        found["left"] = (("edit", "d_out"), factors["left"])
        found["right"] = (("edit", "d_in"), factors["right"])
        found["largest_norm"] = ("step", self._since(held["norm"], np.max))
        found["smallest_division_ratio"] = ("step", self._since(held["division_ratio"], np.min))
        return found

    def _since(self, values: np.ndarray[Any, Any], extreme: Any) -> np.ndarray[Any, Any]:
        """Return the extreme of the edits since the step before, NaN where not all are made."""
        ends = self.after.steps
        parts = [values[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        return np.array([extreme(part) if len(part) else np.nan for part in parts])
