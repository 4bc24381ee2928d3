"""`mechlab edit`: write another fact into the model, and see what else changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechlab.cli.editing.choice import chosen_cases, read_cases, typed_request
from mechlab.cli.editing.options import (
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
from mechlab.cli.editing.work import EditWork, perform_edit
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
    from mechlab.prompts import PromptSet

__all__ = ["edit"]

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
    corpus: Corpus = None,
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
