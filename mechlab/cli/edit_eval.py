"""`mechlab edit-eval`: how well does a way of editing work, over many facts?"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechlab.cli.editing.choice import drawn_cases, read_cases
from mechlab.cli.editing.evaluation_request import EvaluationWork
from mechlab.cli.editing.evaluation_work import perform_evaluation
from mechlab.cli.editing.options import (
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
    from mechlab.prompts import PromptSet

__all__ = ["edit_eval"]

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
    corpus: Corpus = None,
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
