"""`mechlab trace`: where does the model keep this fact?"""

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
    given,
    names,
)
from mechlab.cli.work import Request, perform
from mechlab.errors import OptionError

if TYPE_CHECKING:
    from mechlab.models import Model
    from mechlab.prompts import PromptSet

__all__ = ["trace"]

_WHAT, _HOW = "What to trace", "How"

ELSEWHERE = ("The Space Needle is in the city of", "Space Needle", "Seattle")
"""The example for models that name none of their own."""


def trace(
    model: ModelName = "atlas",
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Text that ends where the answer starts; an example if left out.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            help="The part of the prompt that names what the fact is about.", rich_help_panel=_WHAT
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The true answer.", rich_help_panel=_WHAT)
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="Facts as CSV, JSON or JSONL with prompt, subject, target.", rich_help_panel=_WHAT
        ),
    ] = None,
    sites: Annotated[
        str | None,
        typer.Option(help="States to restore; resid_post,mlp_out,attn_out.", rich_help_panel=_HOW),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(help="Layers restored together; a fifth of all.", rich_help_panel=_HOW),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Noise samples per fact.", rich_help_panel=_HOW)
    ] = None,
    noise_scale: Annotated[
        float | None,
        typer.Option(
            help="Noise in standard deviations of subject embeddings.", rich_help_panel=_HOW
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the noise.", rich_help_panel=_HOW)] = (
        None
    ),
    all_facts: Annotated[
        bool,
        typer.Option(
            "--all-facts",
            help="Trace also facts that the model does not know.",
            rich_help_panel=_HOW,
        ),
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
    estimate: Estimate = False,
    html: Html = None,
    as_json: JsonOutput = False,
    cache: Cache = None,
) -> None:
    """Show where a model keeps a fact: restore one state at a time in a run on a noised subject.

    Without arguments it traces an example on the shipped model `atlas`. A stored result is shown
    at once; facts that the model does not know are left out, with the reason. All options of the
    method can be given to `mechlab run`.
    """
    options = given(
        sites=names(sites),
        window=window,
        samples=samples,
        noise_scale=noise_scale,
        seed=seed,
        known_only=False if all_facts else None,
    )
    perform(
        Request(
            method="causal_trace",
            model={"name": model, "device": device, "dtype": dtype},
            prompts=facts(model, prompt=prompt, subject=subject, target=target, file=file),
            options=options,
        ),
        cache=cache,
        html=html,
        as_json=as_json,
        estimate=estimate,
        complete=every_site,
    )


def every_site(model: "Model", _: "PromptSet[Any]") -> dict[str, Any]:
    """Return the sites to trace when none are named: the residual stream and what writes to it."""
    writers = ("mlp_out", "attn_out") if model.has_attention else ("mixer_out",)
    return {"sites": ("resid_post", *writers)}


def facts(
    model: str,
    *,
    prompt: str | None,
    subject: str | None,
    target: str | None,
    file: Path | None,
) -> "PromptSet[Any]":
    """Return the facts that the options name; without any, the model's own example.

    Raises:
        OptionError: when the options contradict each other or one is missing.
        PromptError: when a fact cannot be used, or rows of the file cannot be read.
    """
    from mechlab import prompts

    typed = {"--prompt": prompt, "--subject": subject, "--target": target}
    there = [name for name, value in typed.items() if value is not None]
    if file is not None and there:
        raise OptionError(
            f"--file and {', '.join(there)} were both given. Allowed: a file of facts, or one fact "
            "as --prompt, --subject and --target. Leave one of them out."
        )
    if file is not None:
        return prompts.read_facts(file)
    if there and len(there) < len(typed):
        missing = ", ".join(name for name in typed if name not in there)
        raise OptionError(
            f"{' and '.join(there)} without {missing}. A fact is given as --prompt, --subject and "
            "--target together, e.g. --prompt 'The capital of France is' --subject France "
            "--target Paris. Add what is missing."
        )
    text, name, answer = (prompt, subject, target) if there else _example(model)
    return prompts.as_prompt_set(prompts.Fact(str(text), str(name), str(answer)))


def _example(model: str) -> tuple[str, str, str]:
    """Return the fact that a shipped model's card names, else one that large models know."""
    from mechlab import organisms

    if model not in organisms.names():
        return ELSEWHERE
    example = organisms.card(model).get("example")
    if not isinstance(example, dict):
        return ELSEWHERE
    return (str(example["prompt"]), str(example["subject"]), str(example["target"]))
