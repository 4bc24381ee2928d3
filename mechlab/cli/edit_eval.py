"""`mechlab edit-eval`: how well does a way of editing work, over many facts?"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechlab.cli.edit_choice import chosen_cases, drawn_cases, read_cases
from mechlab.cli.edit_options import (
    Clamp,
    Corpus,
    DecayWeight,
    Drift,
    KlWeight,
    Layers,
    LearningRate,
    MaxChange,
    MethodName,
    MomentWeight,
    Ridge,
    Seed,
    SiteName,
    Steps,
    Tokens,
    Variant,
    edit_plan,
    texts_by_default,
)
from mechlab.cli.options import (
    Cache,
    Device,
    Dtype,
    Estimate,
    Html,
    JsonOutput,
    ModelName,
    given,
    names,
)
from mechlab.errors import OptionError

if TYPE_CHECKING:
    from mechlab.cli.edit_plan import EditPlan
    from mechlab.prompts import PromptSet

__all__ = ["EvaluationWork", "edit_eval", "perform_evaluation"]

_WHAT, _LOOK, _OUT = "What to edit", "What is measured", "Output"
_DRAWN = 10


def edit_eval(
    model: ModelName = "atlas",
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Random edits of countries, 10 if left out; of a file its first ones.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    relation: Annotated[
        str | None,
        typer.Option(
            help="Relations of random edits: capital, language, currency, continent.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="Cases: CounterFact, zsRE, or own CSV, JSON or JSONL.", rich_help_panel=_WHAT
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="Of the file: counterfact, zsre, cases; auto tells them apart.",
            rich_help_panel=_WHAT,
        ),
    ] = "auto",
    load: Annotated[
        Path | None,
        typer.Option(
            help="Evaluate this saved edit, on its own requests if no cases are named.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    together: Annotated[
        bool | None,
        typer.Option(
            "--together/--each",
            help="All edits in force at once (memit if nothing is said), or each alone (the "
            "other methods).",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    method: MethodName = None,
    variant: Variant = None,
    layers: Layers = None,
    site: SiteName = None,
    clamp: Clamp = None,
    steps: Steps = None,
    learning_rate: LearningRate = None,
    kl_weight: KlWeight = None,
    decay_weight: DecayWeight = None,
    moment_weight: MomentWeight = None,
    max_change: MaxChange = None,
    seed: Seed = None,
    corpus: Corpus = "atlas",
    tokens: Tokens = 100_000,
    ridge: Ridge = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Success: counterfact (more probable than the other object), exact or zsre (top "
            "token); by what the cases name if left out.",
            rich_help_panel=_LOOK,
        ),
    ] = None,
    generation_length: Annotated[
        int,
        typer.Option(
            help="Tokens of each generated text with its prompt (CounterFact: 100); 0 for none.",
            rich_help_panel=_LOOK,
        ),
    ] = 0,
    drift: Drift = None,
    per_case: Annotated[
        Path | None,
        typer.Option(help="Write one row per case as .csv, .json or .jsonl.", rich_help_panel=_OUT),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    estimate: Estimate = False,
    html: Html = None,
    as_json: JsonOutput = False,
    cache: Cache = None,
) -> None:
    """Make many edits, and show how often they hold, generalise and leave the rest alone.

    Without arguments it makes 10 random capital edits of the shipped model `atlas`, each on the
    unedited model, and shows averages with 95 % intervals. A killed run goes on where it was.
    """
    how = given(
        method=method, variant=variant, layers=layers, site=site, clamp=clamp, steps=steps,
        learning_rate=learning_rate, kl_weight=kl_weight, decay_weight=decay_weight,
        moment_weight=moment_weight, max_change=max_change, seed=seed, ridge=ridge,
    )  # fmt: skip
    _check(load, how, together, file, relation, form)
    plan = edit_plan(how, several=False, corpus=corpus, tokens=tokens)
    perform_evaluation(
        EvaluationWork(
            model={"name": model, "device": device, "dtype": dtype},
            cases=_cases(file, form, count, seed or 0, relation, load),
            plan=plan,
            load=load,
            together=plan.method == "memit" if together is None else together,
            protocol=protocol,
            generation_length=generation_length,
            drift=texts_by_default(model) if drift is None else drift,
        ),
        per_case=per_case, estimate=estimate, html=html, as_json=as_json, cache=cache,
    )  # fmt: skip


@dataclass(frozen=True)
class EvaluationWork:
    """Which edits to evaluate on what, as plain data; nothing is loaded yet."""

    model: Mapping[str, Any]
    """Arguments of `load_model`."""
    cases: "PromptSet[Any] | None"
    """What is edited and looked at; `None` for the requests of `load`."""
    plan: "EditPlan"
    """How edits are made."""
    load: Path | None = None
    """A saved edit instead."""
    together: bool = False
    """Whether all edits are in force at once."""
    protocol: str | None = None
    """What counts as a success; `None`: by what the cases name."""
    generation_length: int = 0
    """Tokens of generated texts."""
    drift: int = 0
    """Held-out texts."""


def perform_evaluation(
    work: EvaluationWork,
    *,
    per_case: Path | None = None,
    estimate: bool = False,
    html: Path | None = None,
    as_json: bool = False,
    cache: str | None = None,
) -> None:
    """Evaluate edits, or take the evaluation from the store, and show it.

    Raises:
        MechlabError: when it cannot be carried out; whatever can be refused without running the
            model is refused before.
    """
    from mechlab.cli import edit_eval_report
    from mechlab.cli.bar import progress_bar
    from mechlab.cli.edit_evaluation import Evaluation
    from mechlab.cli.work import check_figure_path
    from mechlab.methods import Edit
    from mechlab.models import load_model
    from mechlab.store import Store

    if per_case is not None:
        edit_eval_report.check_table_path(per_case)
    if html is not None:
        check_figure_path(html)
    loaded = None if work.load is None else Edit.load(work.load)
    cases = work.cases if work.cases is not None or loaded is None else (
        chosen_cases(loaded.requests))  # fmt: skip
    assert cases is not None
    model = load_model(**work.model)
    plan = work.plan.completed(model)
    if loaded is None:
        plan.check(model, [case.request for case in cases])
    task = Evaluation(Store(cache), model, cases, plan, loaded, work)
    task.check()
    if estimate:
        edit_eval_report.print_estimate(task, as_json=as_json)
        return
    with progress_bar("edit-eval") as progress:
        done = task.run(progress)
    if per_case is not None:
        edit_eval_report.write_table(done, per_case)
    edit_eval_report.show(task, done, html, per_case, as_json=as_json)


def _cases(
    file: Path | None,
    form: str,
    count: int | None,
    seed: int,
    relation: str | None,
    load: Path | None,
) -> "PromptSet[Any] | None":
    if file is not None:
        return read_cases(file, form, count)
    if load is not None and count is None and relation is None:
        return None
    return drawn_cases(_DRAWN if count is None else count, seed, names(relation))


def _check(
    load: Path | None,
    how: Mapping[str, Any],
    together: bool | None,
    file: Path | None,
    relation: str | None,
    form: str,
) -> None:
    """Refuse options that contradict each other.

    Raises:
        OptionError: naming them.
    """
    typed = [f"--{name.replace('_', '-')}" for name in how if name != "seed"]
    typed += [] if together is None else ["--together" if together else "--each"]
    if load is not None and typed:
        raise OptionError(
            f"--load evaluates an edit that is made already, and {', '.join(typed)} say how to "
            "make edits. Leave these out, or --load."
        )
    if file is not None and relation is not None:
        raise OptionError(
            "--relation is of random edits, and --file was given. Leave one of them out."
        )
    if file is None and form != "auto":
        raise OptionError(
            f"--format {form} says what a file holds, and no --file was given. Add it, or leave "
            "this out."
        )
