"""Trace a fact, edit it in every layer, choose one, and see what the edit did, trace included."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mechlab.engine import check_whole
from mechlab.errors import OptionError
from mechlab.methods.editing import KeyStatistics
from mechlab.methods.editing.corpora import Corpus
from mechlab.methods.editing.modules import EditSite, check_layers
from mechlab.methods.editing.rank_one import Variant
from mechlab.methods.evaluation import edit_summary, evaluate_each_edit, evaluate_edit
from mechlab.methods.evaluation.measures import Protocol
from mechlab.methods.evaluation.table import check_objects
from mechlab.progress import Journal, Progress, ProgressCallback
from mechlab.prompts import EditCase, EditRequest, Fact
from mechlab.results import analysis, new_result
from mechlab.workflows.agreement import OUTCOMES, rank_over_layers
from mechlab.workflows.edit_plan import EditPlan, check_unedited
from mechlab.workflows.requested import as_edit_cases
from mechlab.workflows.retrace import TraceHow, Traces
from mechlab.workflows.sweeping import Sweep, plan_options

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["localize_edit_verify"]

_STAGED = ("nll", "accuracy", "success", "generation")
_TEXTS = ("prompt_text", "about", "n_tokens")
_SUMMARY = ("mean", "low", "high", "n", "before", "change", "change_low", "change_high")

Edited = Fact | EditRequest | EditCase


@analysis(version=1, prompt_kind="edit", default_plot="lines", per_prompt=False)
def localize_edit_verify(
    model: "Model",
    facts: Edited | Sequence[Edited],
    new_object: str | Sequence[str] | None = None,
    *,
    layers: Sequence[int] | None = None,
    layer: int | Literal["score", "trace"] = "score",
    variant: Variant = "r-rome",
    site: EditSite | None = None,
    key_statistics: KeyStatistics | None = None,
    corpus: Corpus = "atlas",
    tokens: int = 100_000,
    settings: Mapping[str, Any] | None = None,
    window: int | None = 1,
    samples: int = 10,
    noise_scale: float = 3.0,
    protocol: Protocol = "counterfact",
    generation_length: int = 0,
    reference: xr.Dataset | None = None,
    seed: int = 0,
    max_batch: int | None = None,
    journal: Journal | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Localize a fact, edit it, and verify what came of it, in one result.

    A causal trace of each fact (Meng et al. 2022, section 2); one edit in each layer, each made and
    measured on its own; one layer chosen; the edit there evaluated against the unedited model; a
    trace of the edited model for the new object. The table of tracing effect against edit success
    per layer is what Hase et al. 2023 (arXiv 2301.04213) ask for.

        story = ml.localize_edit_verify(model, fact, "London")
        with ml.swept_edit(story).applied(model):
            ...

    Through a store it takes the cases themselves:
    `store.run(ml.localize_edit_verify, model, ml.as_edit_cases(fact, "London"))`.

    Args:
        model: a model with raw weights and no edit in force; left bitwise as found.
        facts: a `Fact`, `EditRequest` or `EditCase`, or several; `ml.as_edit_cases` makes cases
            of them.
        new_object: for facts what is to be written, one for each.
        layers: where to edit; default all. Traces cover every layer.
        layer: which of them is chosen for all facts: `score`, the one with the largest S (then
            with the largest mean of its three magnitudes); `trace`, the one with the largest mean
            effect at the last subject token; or a number. `score` chooses on the cases that it is
            then evaluated on: with few of them its S is too good.
        variant: as in `ml.rank_one_edit`.
        site: as there.
        key_statistics: of all the layers; counted over `corpus` when `None`.
        corpus: as in `ml.key_statistics`.
        tokens: as there.
        settings: further options of `ml.rank_one_edit`; by default what `ml.edit_settings` knows of
            the model, but for its layer.
        window: layers restored together by the trace at outputs of MLPs and attention; 1, as one
            layer is edited (`causal_trace` has a fifth of the layers by default: `None`).
        samples: as in `ml.causal_trace`.
        noise_scale: as there.
        protocol: as in `ml.evaluate_edit`.
        generation_length: as there, for the chosen edit.
        reference: predictions on held-out texts (`ml.next_token_reference`), for the drift.
        seed: of noise, contexts, key statistics and generation.
        max_batch: rows that run side by side.
        journal: keeps finished edits, so that a killed run resumes.
        progress: called after each step with a partial result; may raise `Cancelled`.

    Returns:
        Dataset with all that `ml.edit_sweep` returns, over all layers, NaN where none was made, and

        - `trace_effect` (case, layer): indirect effect of the MLP's (or mixer's) output at the last
          subject token before the edit; the table is this against the sweep's variables;
        - `rank_over_layers`, with `_low` and `_high`, of (outcome), their rank correlation over the
          edited layers, averaged over facts (`ml.trace_edit_agreement` tells more of many facts);
        - `effect` (stage, case, site, layer, pos), `total_effect`, `clean_probability` (stage,
          case) of both traces: stage `before` scores the old object (the top prediction where a
          request has none), `after` the new one with the chosen edit in force;
        - `chosen` (layer), also as attribute `chosen_layer` (-1 in partial results); attributes
          `key_tokens`, counted for the key statistics, and `key_ridge`, the most that was added to
          their diagonal because they had no inverse;
        - `nll`, `accuracy`, `success`, `generation` as `ml.evaluate_edit` has them, by stage;
        - `summary_mean`, `summary_low`, … of (metric): `ml.edit_summary` of the chosen edit.

    Raises:
        OptionError, PromptError, ModelError, SiteError: as the methods do, before anything is run.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    cases = as_edit_cases(facts, new_object, seed=seed)
    check_unedited(model)
    check_whole("max_batch", max_batch, at_least=1, optional=True)
    check_objects(cases, protocol)
    chosen = sorted(range(model.n_layers) if layers is None else _checked(model, layers))
    _check_layer(layer, chosen)
    traces = Traces(model, cases, TraceHow(window, samples, noise_scale, seed, max_batch))
    plan = EditPlan.make(
        model, cases, chosen, variant=variant, site=site, key_statistics=key_statistics,
        corpus=corpus, tokens=tokens, settings=settings, seed=seed, progress=progress,
    )  # fmt: skip
    options = plan_options(plan) | {
        "layers": chosen, "layer": layer, "protocol": protocol, "window": window,
        "samples": samples, "noise_scale": noise_scale, "generation_length": generation_length,
    }  # fmt: skip
    evaluation = {
        "protocol": protocol, "generation_length": generation_length, "seed": seed,
        "max_batch": max_batch,
    }  # fmt: skip
    sweep = Sweep(plan, cases, chosen, protocol, reference, max_batch)
    story = _Story(sweep, traces, evaluation, layer)

    def dataset() -> xr.Dataset:
        about = {"method": "localize_edit_verify", "version": 1, "model": model, "prompts": cases}
        return story.dataset(options=options, seed=seed, started=started, **about)

    total = 3 + len(cases) * (len(chosen) + 1)
    for done, _ in enumerate(story.steps(reference, journal), start=1):
        if progress is not None:
            progress(Progress(done, total, "steps", dataset()))
    return dataset()


def _checked(model: "Model", layers: Sequence[int]) -> Sequence[int]:
    check_layers(model, layers)
    return layers


def _check_layer(layer: object, layers: Sequence[int]) -> None:
    """Refuse a choice that is none.

    Raises:
        OptionError: naming what is allowed.
    """
    number = isinstance(layer, int) and not isinstance(layer, bool)
    if not (layer in ("score", "trace") or (number and layer in layers)):
        raise OptionError(
            f"layer={layer!r}. Allowed: 'score', 'trace', or one of the edited layers "
            f"{list(layers)}. Choose one of these."
        )


@dataclass
class _Story:
    """What is known so far."""

    sweep: Sweep
    traces: Traces
    evaluation: Mapping[str, Any]
    wanted: int | Literal["score", "trace"]
    chosen: int = -1
    before: xr.Dataset | None = None
    after: xr.Dataset | None = None

    def steps(self, reference: xr.Dataset | None, journal: Journal | None) -> Iterator[str]:
        """Do one thing after another, and yield after each."""
        model, cases = self.sweep.plan.model, self.sweep.cases
        self.traces.trace_before()
        self.before = evaluate_edit(model, cases, **self.evaluation)
        yield "traced"
        for _ in self.sweep.run(journal):
            yield "edited"
        self.chosen = self._choose()
        edits = [self.sweep.edit_of(row, self.chosen) for row in range(len(cases))]
        yield "chosen"
        self.after = evaluate_each_edit(model, cases, edits, reference=reference, **self.evaluation)
        yield "evaluated"
        for row, edit in enumerate(edits):
            self.traces.trace_after(row, edit)
            yield "traced again"

    def _choose(self) -> int:
        layers = self.sweep.layers
        if isinstance(self.wanted, int):
            return self.wanted
        if self.wanted == "trace":
            mean = np.nanmean(self.traces.variables()["trace_effect"][1], axis=0)[layers]
            return layers[int(mean.argmax())]
        score = np.nan_to_num(self.sweep.scores(), nan=-1.0)
        margin = np.nan_to_num(self.sweep.margins(), nan=-1.0)
        return layers[int(np.lexsort((margin, score))[-1])]

    def dataset(self, **about: Any) -> xr.Dataset:
        """Arrange everything."""
        model = self.sweep.plan.model
        swept = xr.Dataset(self.sweep.variables(), self.sweep.coordinates())
        swept = swept.reindex(layer=np.arange(model.n_layers))
        table = swept.assign(self.traces.variables())
        ranks = rank_over_layers(table.isel(layer=self.sweep.layers))
        result = new_result(
            {
                **{str(name): table[name].variable for name in table.data_vars},
                **{str(name): ranks[name].variable for name in ranks.data_vars},
                **self._stages(),
                **self._summary(),
                "chosen": ("layer", np.arange(model.n_layers) == self.chosen),
            },
            {**{str(name): swept[name].variable for name in swept.coords},
             **self.traces.coordinates(), **self._texts(), "outcome": list(OUTCOMES)},
            **about,
        )  # fmt: skip
        by = self.wanted if isinstance(self.wanted, str) else "given"
        plan = self.sweep.plan
        return result.assign_attrs(
            edit_site=plan.site, chosen_layer=self.chosen, chosen_by=by,
            key_tokens=plan.statistics.tokens, key_ridge=max(plan.statistics.ridge),
        )  # fmt: skip

    def _stages(self) -> dict[str, Any]:
        """Return what evaluations say before and after, NaN or empty before they were made."""
        assert self.before is not None
        found: dict[str, Any] = {}
        for name in _STAGED:
            then = self.before[name]
            blank = "" if then.dtype.kind == "U" else np.nan
            now = np.full(then.shape, blank, object if blank == "" else float)
            now = now if self.after is None else self.after[name].values
            both = np.stack([then.values.astype(now.dtype), now])
            both = both.astype(str) if blank == "" else both
            found[name] = (("stage", *map(str, then.dims)), both, then.attrs)
        return found

    def _texts(self) -> dict[str, Any]:
        assert self.before is not None
        names = ("prompt_kind", "target", *_TEXTS)
        return {name: self.before[name].variable for name in names}

    def _summary(self) -> dict[str, Any]:
        """Return the averages of the chosen edit; of the unedited model while there is none."""
        assert self.before is not None
        if self.after is None:
            found = edit_summary(self.before, resamples=40)
            blank = xr.full_like(found["mean"], np.nan)
            columns = {name: blank for name in _SUMMARY} | {"before": found["mean"]}
        else:
            found = edit_summary(self.after, before=self.before)
            columns = {name: found[name] for name in _SUMMARY}
        held = {f"summary_{name}": ("metric", one.values) for name, one in columns.items()}
        return {**held, "metric": found["metric"].variable}
