"""`mechlab knockout`: which attention edges does the answer need?"""

from pathlib import Path
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
    given,
    groups,
    names,
    whole_numbers,
)
from mechlab.cli.prompt_choice import Count, Form, Relation, Seed, choose
from mechlab.cli.work import Request, perform

if TYPE_CHECKING:
    from mechlab.models import Model
    from mechlab.prompts import PromptSet

__all__ = ["knockout"]

_WHAT, _HOW = "What to run on", "How"


def knockout(
    model: ModelName = "atlas",
    keys: Annotated[
        str | None,
        typer.Option(
            help="Tokens that are no longer attended to, one group each: subject, not_subject, "
            "last, all_before, bos, answer, …, or positions such as 2+3.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            help="The group that no longer attends to them; last if left out.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    cut: Annotated[
        str | None,
        typer.Option(
            "--mode",
            "--cut",
            help="mask: before the softmax; zero: after it.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(help="Layers cut together; a fifth of all.", rich_help_panel=_HOW),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Centre layers, such as 0,4-7.", rich_help_panel=_HOW)
    ] = None,
    head_list: Annotated[
        str | None,
        typer.Option(
            "--heads", help="Cut in these heads only, such as L5H3,L6H1.", rich_help_panel=_HOW
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="probability, log_probability; of pairs also logit_diff.", rich_help_panel=_HOW
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            "--pairs",
            help="A built-in set: facts, conflicts, ioi, arithmetic, one_to_many.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    count: Count = None,
    form: Form = None,
    relation: Relation = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Facts or pairs as CSV, JSON or JSONL.", rich_help_panel=_WHAT),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="One fact: text up to its answer.", rich_help_panel=_WHAT),
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="What the fact is about.", rich_help_panel=_WHAT)
    ] = None,
    target: Annotated[str | None, typer.Option(help="Its answer.", rich_help_panel=_WHAT)] = None,
    seed: Seed = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    top: Top = 10,
    estimate: Estimate = False,
    html: Html = None,
    as_json: JsonOutput = False,
    cache: Cache = None,
) -> None:
    """Cut attention edges in windows of layers, and show what is left of the answer.

    Without arguments it cuts the last token's attention to the subject, to the other tokens and to
    itself, in 16 facts and the shipped model `atlas`.
    """
    options = given(
        keys=groups(keys, "--keys"),
        queries=_one(groups(queries, "--queries")),
        cut=cut,
        window=window,
        layers=whole_numbers(layers, "--layers"),
        heads=names(head_list),
        metric=metric,
    )
    perform(
        Request(
            method="knockout",
            model={"name": model, "device": device, "dtype": dtype},
            prompts=choose(
                pairs=prompts,
                file=file,
                typed={"--prompt": prompt, "--subject": subject, "--target": target},
                otherwise="facts",
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
        complete=usual_keys,
        top=top,
    )


def usual_keys(_: "Model", prompts: "PromptSet[Any]") -> dict[str, Any]:
    """Return the groups to cut when none are named: those of Geva et al. 2023 for facts."""
    facts = ("subject", "not_subject", "last")
    return {"keys": facts if prompts.kind == "fact" else ("answer", "last")}


def _one(group: Any) -> Any:
    """Return the single group of a tuple as itself; several are left for the method to refuse."""
    return group[0] if isinstance(group, tuple) and len(group) == 1 else group
