"""`mechlab paths`: through which edges does a head act?"""

import re
from typing import Annotated

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
    names,
    nodes,
    positions,
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
from mechlab.cli.work import Request, perform

__all__ = ["paths"]

_HOW = "How"


def _positions(text: str | None) -> str | tuple[int, ...] | tuple[str, ...] | None:
    """Return positions as numbers, or as names where the first is a word."""
    if text in ("all", "last") or text is None or re.match(r"\s*-?\d", text):
        return positions(text)
    return names(text)


def paths(
    model: ModelName = "atlas",
    senders: Annotated[
        str | None,
        typer.Option(
            help="all_heads, all_mlps, embed, all; or nodes such as L5H3,MLP4,L6H1+L6H2 (+ sets "
            "them together).",
            rich_help_panel=_HOW,
        ),
    ] = None,
    receivers: Annotated[
        str | None,
        typer.Option(
            help="logits, all_heads_q (k, v, pattern), all_heads, all_mlps; or inputs such as "
            "L6H1.q,MLP5,L6H1.q+L7H2.q.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    pairs: Pairs = None,
    count: Count = None,
    form: Form = None,
    relation: Relation = None,
    file: File = None,
    clean: Clean = None,
    corrupted: Corrupted = None,
    answer: Answer = None,
    wrong_answer: WrongAnswer = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            help="heads (MLPs pass changes on) or heads+mlps (direct edges).", rich_help_panel=_HOW
        ),
    ] = None,
    direction: Annotated[
        str | None, typer.Option(help="noising or denoising.", rich_help_panel=_HOW)
    ] = None,
    ln: Annotated[
        str | None,
        typer.Option(help="Norm of the receiver: recompute or frozen.", rich_help_panel=_HOW),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--positions",
            help="all, last, positions such as 2,-1, or places of the prompts such as s2,end.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="logit_diff, probability, log_probability, …", rich_help_panel=_HOW),
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
    """Patch what senders write, let receivers alone see it, and read the answer.

    Without arguments it patches every head's paths to the logits, on 16 conflicts between context
    and memory and the shipped model `atlas`. A negative effect of corrupted values means that the
    path supports the answer. With `--json` and in the store all paths are kept; the figure shows
    one grid per receiver, and a second one the strongest edges as a graph.
    """
    options = given(
        senders=nodes(senders, "--senders"),
        receivers=nodes(receivers, "--receivers"),
        freeze=freeze,
        direction=direction,
        ln=ln,
        positions=_positions(at),
        metric=metric,
    )
    perform(
        Request(
            method="path_patch",
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
        top=top,
    )
