"""`mechlab trace`: where does the model keep this fact?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechlab.cli.work import Request, perform
from mechlab.errors import OptionError

if TYPE_CHECKING:
    from mechlab.models import Model
    from mechlab.prompts import PromptSet

__all__ = ["trace"]

_WHAT, _HOW, _OUT = "What to trace", "How", "Output"

ELSEWHERE = ("The Space Needle is in the city of", "Space Needle", "Seattle")
"""The example for models that name none of their own."""


def trace(
    model: Annotated[
        str, typer.Option(help="A shipped model, a local folder, or a hub name.")
    ] = "atlas",
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
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, …", rich_help_panel=_HOW)
    ] = "auto",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or float16.", rich_help_panel=_HOW)
    ] = "float32",
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what it would cost, and stop.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Where to write the figure; in the store if left out.", rich_help_panel=_OUT
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object and nothing else.", rich_help_panel=_OUT
        ),
    ] = False,
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Where results are kept; a folder or URL.", rich_help_panel=_OUT
        ),
    ] = None,
) -> None:
    """Show where a model keeps a fact: restore one state at a time in a run on a noised subject.

    Without arguments it traces an example on the shipped model `atlas`. A stored result is shown
    at once; facts that the model does not know are left out, with the reason. All options of the
    method can be given to `mechlab run`.
    """
    options = _given(
        sites=None if sites is None else tuple(_names(sites)),
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


def every_site(model: "Model") -> dict[str, Any]:
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
    given = [name for name, value in typed.items() if value is not None]
    if file is not None and given:
        raise OptionError(
            f"--file and {', '.join(given)} were both given. Allowed: a file of facts, or one fact "
            "as --prompt, --subject and --target. Leave one of them out."
        )
    if file is not None:
        return prompts.read_facts(file)
    if given and len(given) < len(typed):
        missing = ", ".join(name for name in typed if name not in given)
        raise OptionError(
            f"{' and '.join(given)} without {missing}. A fact is given as --prompt, --subject and "
            "--target together, e.g. --prompt 'The capital of France is' --subject France "
            "--target Paris. Add what is missing."
        )
    text, name, answer = (prompt, subject, target) if given else _example(model)
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


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that were typed; the others keep the method's own defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
