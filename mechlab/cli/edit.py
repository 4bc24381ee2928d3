"""`mechlab edit`: write another fact into the model, and see what else changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechlab.cli.edit_choice import chosen_cases, read_cases, typed_request
from mechlab.cli.edit_options import (
    Clamp,
    Corpus,
    DecayWeight,
    Drift,
    Generate,
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
    Top,
    given,
)
from mechlab.errors import OptionError

if TYPE_CHECKING:
    from mechlab.cli.edit_plan import EditPlan
    from mechlab.methods import Edit
    from mechlab.models import Model
    from mechlab.prompts import PromptSet

__all__ = ["EditWork", "edit", "perform_edit"]

_WHAT, _OUT = "What to edit", "Output"


def edit(
    model: ModelName = "atlas",
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Text up to the object, with {} or the subject itself where the subject stands; "
            "an example if left out.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="What the fact is about.", rich_help_panel=_WHAT)
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The new object.", rich_help_panel=_WHAT)
    ] = None,
    target_true: Annotated[
        str | None,
        typer.Option(
            help="The object until now; known of countries, else only compared with if given.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="Requests as CSV, JSON or JSONL with prompt, subject, target; all are edited.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    load: Annotated[
        Path | None,
        typer.Option(help="A saved edit to show, instead of making one.", rich_help_panel=_WHAT),
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
    drift: Drift = None,
    generate: Generate = 16,
    save: Annotated[
        Path | None,
        typer.Option(help="Keep the edit as a safetensors file.", rich_help_panel=_OUT),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the edited model as a Hugging Face folder.", rich_help_panel=_OUT),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    top: Top = 10,
    estimate: Estimate = False,
    html: Html = None,
    as_json: JsonOutput = False,
    cache: Cache = None,
) -> None:
    """Change a fact in the model's weights, and show what the model says before and after.

    Without arguments it makes the shipped model `atlas` say that the capital of Poland is London,
    and looks at paraphrases, neighbours, other relations, languages and texts. The model on disk
    stays as it is: --save keeps the edit, --export the edited model. Several requests are written
    at once by MEMIT, or one after the other with --method rank-one.
    """
    typed = given(**{"--prompt": prompt, "--subject": subject, "--target": target,
                     "--target-true": target_true, "--file": file, "--load": load})  # fmt: skip
    _check_one_way(typed)
    how = given(
        method=method, variant=variant, layers=layers, site=site, clamp=clamp, steps=steps,
        learning_rate=learning_rate, kl_weight=kl_weight, decay_weight=decay_weight,
        moment_weight=moment_weight, max_change=max_change, seed=seed, ridge=ridge,
    )  # fmt: skip
    if load is not None and how:
        raise OptionError(
            f"--load shows an edit that is made already, and {', '.join(_option(n) for n in how)} "
            "say how to make one. Leave these out, or --load."
        )
    cases = None if load else _cases(typed, prompt, subject, target, target_true, file)
    several = cases is not None and len(cases) > 1
    perform_edit(
        EditWork(
            model={"name": model, "device": device, "dtype": dtype},
            cases=cases,
            plan=edit_plan(how, several=several, corpus=corpus, tokens=tokens),
            load=load,
            save=save,
            export=export,
            drift=texts_by_default(model) if drift is None else drift,
            generate=generate,
        ),
        top=top, estimate=estimate, html=html, as_json=as_json, cache=cache,
    )  # fmt: skip


@dataclass(frozen=True)
class EditWork:
    """What to edit and how, as plain data; nothing is loaded yet."""

    model: Mapping[str, Any]
    """Arguments of `load_model`."""
    cases: "PromptSet[Any] | None"
    """What is edited and looked at; `None` for the requests of `load`."""
    plan: "EditPlan"
    """How the edit is made."""
    load: Path | None = None
    """A saved edit instead."""
    save: Path | None = None
    """Where the edit is kept besides."""
    export: Path | None = None
    """Where the edited model is written."""
    drift: int = 0
    """Held-out texts on which the change of predictions is measured."""
    generate: int = 0
    """New tokens that are written before and after."""


def perform_edit(
    work: EditWork,
    *,
    top: int = 10,
    estimate: bool = False,
    html: Path | None = None,
    as_json: bool = False,
    cache: str | None = None,
) -> None:
    """Make or load an edit, measure the model before and with it, and show both.

    Raises:
        MechlabError: when it cannot be carried out; whatever can be refused without running the
            model is refused before.
    """
    from mechlab.cli import edit_report
    from mechlab.cli.bar import progress_bar
    from mechlab.cli.edit_effects import Look, held_out_texts, measure
    from mechlab.cli.work import check_figure_path, default_figure
    from mechlab.methods import Edit
    from mechlab.models import load_model
    from mechlab.store import Store

    _check_places(work)
    if html is not None:
        check_figure_path(html)
    store, loaded = Store(cache), None if work.load is None else Edit.load(work.load)
    cases = work.cases if loaded is None else chosen_cases(loaded.requests)
    assert cases is not None
    model = load_model(**work.model)
    plan = work.plan.completed(model)
    requests = [case.request for case in cases]
    if loaded is None:
        plan.check(model, requests)
    if estimate:
        edit_report.print_estimate(store, model, plan, requests, loaded, as_json=as_json)
        return
    texts = held_out_texts(plan.statistics.get("corpus", "atlas"), work.drift, model)
    with progress_bar("edit") as progress:
        before = measure(store, model, cases, Look(work.generate, texts))
        made = loaded or plan.stored(store, model, requests, progress)
        effects = before.with_edit(made)
    kept = _kept(work, model, made)
    told = edit_report.EditReport(model, made, cases, effects, kept, top)
    told.show(html or default_figure(store, made.digest), as_json=as_json)


def _kept(work: EditWork, model: "Model", made: "Edit") -> dict[str, str]:
    """Save and export, and return where."""
    from mechlab.methods import export

    kept = {}
    if work.save is not None:
        kept["saved"] = str(made.save(work.save))
    if work.export is not None:
        kept["exported"] = str(export(model, made, work.export))
    return kept


def _check_places(work: EditWork) -> None:
    """Refuse places that cannot be written to before anything is computed.

    Raises:
        OptionError: a folder in place of a file, a folder that is not empty or does not exist.
    """
    save, folder = work.save, work.export
    if save is not None and (save.is_dir() or not save.expanduser().absolute().parent.is_dir()):
        raise OptionError(
            f"--save {save} cannot be written: it is a folder, or lies in one that does not exist. "
            "Allowed: the name of a file in an existing folder. Choose one."
        )
    if folder is not None and folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise OptionError(
            f"--export {folder} is there already and not empty. Allowed: a new or empty folder. "
            "Choose another one, or remove it."
        )


def _check_one_way(typed: Mapping[str, Any]) -> None:
    alone = [name for name in ("--file", "--load") if name in typed]
    if alone and len(typed) > 1:
        raise OptionError(
            f"{' and '.join(typed)} were all given. Allowed: a file of requests, a saved edit, or "
            "one request typed out. Leave all but one out."
        )


def _cases(
    typed: Mapping[str, Any],
    prompt: str | None,
    subject: str | None,
    target: str | None,
    target_true: str | None,
    file: Path | None,
) -> "PromptSet[Any]":
    if file is not None:
        return read_cases(file)
    return chosen_cases([typed_request(prompt, subject, target, target_true)])


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
