"""`mechlab heads`: which heads write the answer, and what happens when they are changed?"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechlab.cli.options import (
    Cache,
    Device,
    Dtype,
    Estimate,
    Html,
    JsonOutput,
    ModelName,
    Top,
    check_known,
    given,
    names,
    numbers,
    positions,
    whole_numbers,
)
from mechlab.cli.prompt_choice import (
    Answer,
    Clean,
    Corrupted,
    Count,
    File,
    Form,
    Pairs,
    Relation,
    Seed,
    WrongAnswer,
    choose,
)
from mechlab.cli.work import Completion, Request, perform
from mechlab.errors import OptionError

if TYPE_CHECKING:
    from mechlab.models import Model
    from mechlab.prompts import PromptSet

__all__ = ["heads"]

_HOW = "How"
METHODS = {
    "attribution": "direct_logit_attribution",
    "patch": "activation_patch",
    "gradient": "attribution_patch",
    "screen": "screen_then_verify",
    "ablate": "ablate",
    "scale": "scale_heads",
}
"""What `--method` takes, and the function behind each."""


def heads(
    model: ModelName = "atlas",
    method: Annotated[
        str,
        typer.Option(
            help="attribution: what each writes directly; patch: exact patching; gradient: its "
            "estimate; screen: estimate, then the exact patch of the best; ablate; scale.",
            rich_help_panel=_HOW,
        ),
    ] = "attribution",
    pairs: Pairs = None,
    count: Count = None,
    form: Form = None,
    relation: Relation = None,
    file: File = None,
    clean: Clean = None,
    corrupted: Corrupted = None,
    answer: Answer = None,
    wrong_answer: WrongAnswer = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="head, component (attribution), head_source (attribution), layer, kv_head, set.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    head_list: Annotated[
        str | None,
        typer.Option("--heads", help="Heads to change, such as L5H3,L6H1.", rich_help_panel=_HOW),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers, such as 0,4-7.", rich_help_panel=_HOW)
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(help="What is replaced: z, q, k, v, mlp_out, …", rich_help_panel=_HOW),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--positions", help="all, last, each, or positions such as 2,-1.", rich_help_panel=_HOW
        ),
    ] = None,
    direction: Annotated[
        str | None, typer.Option(help="denoising or noising.", rich_help_panel=_HOW)
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="logit_diff, probability, log_probability, …", rich_help_panel=_HOW),
    ] = None,
    norm: Annotated[
        str | None,
        typer.Option(help="Final norm's scale: frozen, clean or none.", rich_help_panel=_HOW),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="Ablation: zero; mean or resample over the same prompts.", rich_help_panel=_HOW
        ),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Prompts that stand in for each when ablation resamples; 10 if left out.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    alpha: Annotated[
        str | None,
        typer.Option(help="Factors of scaling, such as --alpha=-2,0,1,2.", rich_help_panel=_HOW),
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="Scale all heads as one set.", rich_help_panel=_HOW)
    ] = False,
    controls: Annotated[
        int | None,
        typer.Option(help="Random sets of heads to scale beside each.", rich_help_panel=_HOW),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of integrated gradients.", rich_help_panel=_HOW)
    ] = None,
    k: Annotated[
        int | None, typer.Option(help="Heads that a screen verifies.", rich_help_panel=_HOW)
    ] = None,
    seed: Seed = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    top: Top = 10,
    estimate: Estimate = False,
    html: Html = None,
    as_json: JsonOutput = False,
    cache: Cache = None,
) -> None:
    """Show which heads write the answer, and what changing them does.

    Without arguments it attributes the logit difference of 16 conflicts between context and memory
    to the heads of the shipped model `atlas`: positive heads write the answer that the context
    gives, negative ones the answer that the model remembers.
    """
    options = given(
        by=by,
        heads=names(head_list),
        layers=whole_numbers(layers, "--layers"),
        site=site,
        positions=positions(at),
        direction=direction,
        metric=metric,
        norm=norm,
        kind=kind,
        draws=draws,
        alpha=numbers(alpha, "--alpha"),
        together=True if together else None,
        controls=controls,
        steps=steps,
        k=k,
    )
    check_method(method, options)
    perform(
        Request(
            method=METHODS[method],
            model={"name": model, "device": device, "dtype": dtype},
            prompts=choose(
                pairs=pairs,
                file=file,
                typed={
                    "--clean": clean,
                    "--corrupted": corrupted,
                    "--answer": answer,
                    "--wrong-answer": wrong_answer,
                },
                count=count,
                form=form,
                relations=names(relation),
                seed=seed,
            ),
            options=options,
        ),
        cache=cache,
        html=html,
        as_json=as_json,
        estimate=estimate,
        complete=_complete(method, kind, seed),
        top=top,
    )


def check_method(method: str, options: dict[str, Any]) -> None:
    """Refuse an unknown method, options it does not have, and scaling without heads.

    Raises:
        OptionError: naming what is wrong.
    """
    import inspect

    from mechlab.cli.work import method_table

    table = method_table()
    functions = {word: table[name].function for word, name in METHODS.items()}
    has = {word: set(inspect.signature(f).parameters) for word, f in functions.items()}
    check_known(options, method, has)
    if method == "scale" and "heads" not in options:
        raise OptionError(
            "--method scale needs the heads to scale. Allowed: --heads L5H3,L6H1. "
            "`mechlab heads` ranks them by what they write; choose some."
        )


def _complete(method: str, kind: str | None, seed: int | None) -> Completion:
    """Return what a method needs besides: prompts that stand in, the seed of its draws."""

    def complete(_: "Model", prompts: "PromptSet[Any]") -> dict[str, Any]:
        options: dict[str, Any] = {}
        if method == "ablate" and kind in ("mean", "resample"):
            options["reference"] = prompts
        if seed is not None and method in ("ablate", "scale", "screen"):
            options["seed"] = seed
        return options

    return complete
