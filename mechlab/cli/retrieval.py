"""`mechlab retrieval`: which heads fetch from the context, and what is written without them?"""

from collections.abc import Mapping
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
    whole_numbers,
)
from mechlab.cli.work import Completion, Request, perform
from mechlab.errors import OptionError

if TYPE_CHECKING:
    from mechlab.models import Model
    from mechlab.prompts import PromptSet

__all__ = ["retrieval"]

_WHAT, _HOW = "What to run on", "How"
METHODS = {
    "detect": "retrieval_score",
    "mask": "retrieval_curve",
    "recall": "needle_recall",
    "decode": "generate",
}
"""What `--method` takes, and the function behind each."""
_OPTIONS = {
    "detect": (),
    "mask": ("k", "draws", "mask", "phase", "heads"),
    "recall": ("mask", "phase", "heads"),
    "decode": ("mask", "phase", "alpha", "prompt", "heads"),
}
"""What each of them takes besides the needles."""

_SHIPPED = {"form": "atlas", "lengths": (128, 256, 480), "tokens": 12}
"""Needles as the shipped model reads them; its answers are one noun, its context 512 tokens."""
_OTHER = {"form": "text", "lengths": (500, 1000), "tokens": 50}


def retrieval(
    model: ModelName = "atlas",
    method: Annotated[
        str,
        typer.Option(
            help="detect: score every head; mask: recall with the best k masked, against random "
            "ones; recall: with the heads of --heads masked; decode: DeCoRe.",
            rich_help_panel=_HOW,
        ),
    ] = "detect",
    form: Annotated[
        str | None,
        typer.Option(help="Needles: text, atlas or key-value.", rich_help_panel=_WHAT),
    ] = None,
    lengths: Annotated[
        str | None, typer.Option(help="Tokens, such as 500,1000,2000.", rich_help_panel=_WHAT)
    ] = None,
    depths: Annotated[
        int, typer.Option(help="How many, from 0 to 100 per cent.", rich_help_panel=_WHAT)
    ] = 10,
    texts: Annotated[
        int, typer.Option(help="How many different texts.", rich_help_panel=_WHAT)
    ] = 1,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Text to continue (decode); conflicts between context and memory if left out.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    head_list: Annotated[
        str | None,
        typer.Option(
            "--heads",
            help="Heads to mask, such as L5H3,L6H1; the retrieval heads if left out.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    k: Annotated[
        str | None,
        typer.Option(help="How many heads are masked, such as 1,2,5,10.", rich_help_panel=_HOW),
    ] = None,
    draws: Annotated[
        int | None, typer.Option(help="Random sets of heads per k.", rich_help_panel=_HOW)
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(help="uniform (queries zero) or zero (outputs zero).", rich_help_panel=_HOW),
    ] = None,
    phase: Annotated[
        str | None,
        typer.Option(help="decode, or all: the prompt too.", rich_help_panel=_HOW),
    ] = None,
    alpha: Annotated[
        str | None,
        typer.Option(help="DeCoRe: entropy, or a number from 0.", rich_help_panel=_HOW),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(help="New tokens at most.", rich_help_panel=_HOW)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of prompts and draws.", rich_help_panel=_WHAT)] = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
    top: Top = 10,
    estimate: Estimate = False,
    html: Html = None,
    as_json: JsonOutput = False,
    cache: Cache = None,
) -> None:
    """Find the heads that copy from the context, mask them, or decode against them.

    Without arguments it hides needles in texts of three lengths at ten depths and scores every head
    of the shipped model `atlas` by the part of the needle that it copies into the answer. `mask`
    and `decode` take the heads that `detect` finds on the same needles.
    """
    usual = _SHIPPED if model == "atlas" else _OTHER
    needles = _needles(
        form or str(usual["form"]),
        whole_numbers(lengths, "--lengths") or usual["lengths"],
        depths,
        texts,
        seed,
    )
    most = int(tokens if tokens is not None else usual["tokens"])  # type: ignore[call-overload]
    heads = names(head_list)
    typed = given(
        k=whole_numbers(k, "--k"), draws=draws, mask=mask, phase=phase, alpha=alpha, prompt=prompt
    )
    check_known([*typed, *(() if heads is None else ("heads",))], method, _OPTIONS)
    if method == "recall" and heads is None:
        raise OptionError("--method recall masks the heads of --heads. Name some.")
    options, prompts, complete = _request(
        method, typed, heads, needles, most, seed, cache, estimate=estimate
    )
    perform(
        Request(
            method=METHODS[method],
            model={"name": model, "device": device, "dtype": dtype},
            prompts=prompts,
            options={"max_new_tokens": most, **options},
        ),
        cache=cache,
        html=html,
        as_json=as_json,
        estimate=estimate,
        complete=complete,
        top=top,
    )


def _request(
    method: str,
    typed: Mapping[str, Any],
    heads: tuple[str, ...] | None,
    needles: "PromptSet[Any]",
    most: int,
    seed: int,
    cache: str | None,
    *,
    estimate: bool,
) -> "tuple[dict[str, Any], Any, Completion | None]":
    """Return the method's options, its prompts, and what completes it once the model is known."""
    if method == "detect":
        return {}, needles, None
    kept = {name: value for name, value in typed.items() if name not in ("alpha", "prompt")}
    if method == "recall":
        return {**kept, "ablate": heads}, needles, None

    def found(model: "Model") -> tuple[list[str], list[str]]:
        """Return the retrieval heads, and all heads in order; those named come first."""
        from mechlab.methods import retrieval_heads, retrieval_score
        from mechlab.results import top_heads
        from mechlab.store import Store

        if heads is not None:
            return list(heads), list(heads)
        store = Store(cache)
        key = store.key(retrieval_score, model, needles, max_new_tokens=most)
        if estimate and key not in store:
            raise OptionError(
                f"--estimate of --method {method} needs the heads, which are not known yet. "
                "Allowed: with --heads, or once --method detect was run on the same needles."
            )
        scores = store.run(retrieval_score, model, needles, max_new_tokens=most)
        mean = scores.retrieval_score_all.mean("prompt")
        chosen = [str(head) for head in retrieval_heads(scores)]
        return chosen, [str(head) for head in top_heads(mean, k=mean.size)]

    if method == "mask":

        def ranked(model: "Model", _: "PromptSet[Any]") -> dict[str, Any]:
            chosen, ranking = found(model)
            return {"ranking": ranking, "seed": seed, **_curve(model, chosen, ranking, kept)}

        return kept, needles, ranked

    def contrast(model: "Model", _: "PromptSet[Any]") -> dict[str, Any]:
        from mechlab.methods import DeCoRe

        chosen, _ranking = found(model)
        if not chosen:
            raise OptionError(
                f"{model.name} has no retrieval head on these needles. DeCoRe needs heads to mask. "
                "Name some with --heads, or detect on other needles."
            )
        settings = given(alpha=_alpha(typed.get("alpha")), mask=kept.get("mask"))
        return {"decode": DeCoRe(tuple(chosen), **settings, phase=kept.get("phase"))}

    return {}, _texts(typed.get("prompt"), seed), contrast


def _curve(
    model: "Model", chosen: list[str], ranking: list[str], kept: Mapping[str, Any]
) -> dict[str, Any]:
    """Return numbers of heads that leave enough others to draw from, and the heads never drawn."""
    barred = chosen or ranking[:1]
    most = min(len(ranking), model.n_layers * (model.n_heads or 0) - len(barred))
    if "k" in kept:
        return {"exclude": barred}
    usual = sorted({1, 2, 5, 10, 20, 50, len(barred)})
    return {"exclude": barred, "k": [k for k in usual if k <= most] or [1]}


def _needles(form: str, lengths: Any, depths: int, texts: int, seed: int) -> "PromptSet[Any]":
    from mechlab.prompts import needles

    return needles(lengths, depths, form=form, count=texts, seed=seed)  # type: ignore[arg-type]


def _texts(prompt: str | None, seed: int) -> Any:
    """Return the text to continue, or conflicts between context and memory."""
    from mechlab.prompts import Fact, PromptSet, capital_conflicts

    if prompt is None:
        return lambda model: capital_conflicts(16, seed, model=model)
    return PromptSet((Fact(prompt, subject=prompt.split()[0] if prompt.split() else ""),))


def _alpha(text: str | None) -> str | float | None:
    """Return `entropy` or a number.

    Raises:
        OptionError: for anything else.
    """
    if text in (None, "entropy"):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise OptionError(
            f"--alpha {text!r}. Allowed: entropy, or a number from 0. Use one of these."
        ) from error
