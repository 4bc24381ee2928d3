"""`mechlab induction`: which heads are induction heads, since when, what is lost without them?"""

from collections.abc import Callable
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

__all__ = ["Copies", "Lists", "Length", "Pool", "induction", "lists_of"]

_WHAT, _HOW = "What to run on", "How"
_OTHER_LISTS = 1
"""Added to the seed: lists to ablate heads on are not those that they were found on."""
_KINDS = ("zero", "mean", "pattern_preserving")
_ONLY = {
    "scores": (),
    "ablate": ("k", "draws", "kinds", "heads", "texts", "hi", "lo"),
    "checkpoints": ("steps",),
}
"""Options of each way to run, beside those of the lists."""

Lists = Annotated[int, typer.Option(help="How many lists.", rich_help_panel=_WHAT)]
Length = Annotated[int, typer.Option(help="Tokens in a list.", rich_help_panel=_WHAT)]
Copies = Annotated[int, typer.Option(help="How often each is read.", rich_help_panel=_WHAT)]
Pool = Annotated[
    str,
    typer.Option(help="Tokens: auto, words (common ones), tokens (all).", rich_help_panel=_WHAT),
]


def induction(
    model: ModelName = "atlas",
    lists: Lists = 10,
    length: Length = 50,
    copies: Copies = 2,
    pool: Pool = "auto",
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate",
            help="Ablate the heads that fit the context model best, the best induction heads, and "
            "random heads of the same layers; on other lists than those they were found on.",
            rich_help_panel=_HOW,
        ),
    ] = False,
    checkpoints: Annotated[
        bool,
        typer.Option("--checkpoints", help="Score every checkpoint.", rich_help_panel=_HOW),
    ] = False,
    steps: Annotated[
        str | None,
        typer.Option(help="With --checkpoints: these, such as 0,250,4000.", rich_help_panel=_HOW),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            help="With --ablate: heads per group; a tenth of all if left out.", rich_help_panel=_HOW
        ),
    ] = None,
    head_list: Annotated[
        str | None,
        typer.Option(
            "--heads",
            help="With --ablate: these heads instead, such as L4H4,L4H2.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(help="With --ablate: random sets per group; 20.", rich_help_panel=_HOW),
    ] = None,
    kinds: Annotated[
        str | None,
        typer.Option(
            help="With --ablate: zero, mean, pattern_preserving; zero,mean.", rich_help_panel=_HOW
        ),
    ] = None,
    texts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="With --ablate: texts for the ICL score, paragraphs or .jsonl; or built-in.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    hi: Annotated[
        int | None, typer.Option(help="Late token of the ICL score; 500.", rich_help_panel=_HOW)
    ] = None,
    lo: Annotated[
        int | None, typer.Option(help="Early token of the ICL score; 50.", rich_help_panel=_HOW)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of lists and draws.", rich_help_panel=_WHAT)] = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
    top: Top = 10,
    estimate: Estimate = False,
    html: Html = None,
    as_json: JsonOutput = False,
    cache: Cache = None,
) -> None:
    """Find the induction heads on repeated random tokens, by attention and by copying.

    Without arguments it reads ten lists of 50 random tokens twice with the shipped model `atlas`,
    and scores every head: prefix matching, previous token, duplicate token, copying. `--ablate`
    shows what is lost without heads, `--checkpoints` when they came to be.
    """
    typed = given(
        k=k, draws=draws, kinds=names(kinds), heads=names(head_list), texts=texts, hi=hi, lo=lo,
        steps=whole_numbers(steps, "--steps"),
    )  # fmt: skip
    if ablate and checkpoints:
        raise OptionError("--ablate and --checkpoints. Allowed: one of them. Leave one out.")
    way = "ablate" if ablate else "checkpoints" if checkpoints else "scores"
    check_ways(typed, way)
    prompts = lists_of(lists, length, copies=copies, pool=pool, seed=seed)
    about = {"name": model, "device": device, "dtype": dtype}
    shown: dict[str, Any] = {"cache": cache, "html": html, "as_json": as_json, "top": top}
    if checkpoints:
        from mechlab.cli.training import perform_checkpoints

        perform_checkpoints(about, prompts, typed.get("steps"), seed, estimate=estimate, **shown)
        return
    shown["estimate"] = estimate
    if not ablate:
        perform(Request("memory_heads", about, prompts, {"seed": seed}), **shown)
        return
    # Heads are found on the lists of `mechlab induction`, and ablated on lists of their own.
    complete = _groups(typed.get("k"), typed.get("heads"), prompts, seed, cache, estimate=estimate)
    prompts = lists_of(lists, length, copies=copies, pool=pool, seed=seed + _OTHER_LISTS)
    options = {
        "kinds": list(typed.get("kinds", _KINDS[:2])), "draws": typed.get("draws", 20),
        "seed": seed, **given(hi=hi, lo=lo), **_texts(texts, seed),
    }  # fmt: skip
    perform(Request("memory_ablation", about, prompts, options), complete=complete, **shown)


def check_ways(typed: dict[str, Any], way: str) -> None:
    """Refuse options that belong to another way to run (OptionError)."""
    try:
        check_known(typed, way, _ONLY)
    except OptionError as error:
        text = str(error).replace("--method scores", "mechlab induction alone")
        raise OptionError(text.replace("--method ", "--")) from None


def lists_of(count: int, length: int, *, copies: int, pool: str, seed: int) -> "PromptSet[Any]":
    """Return repeated random tokens that every model reads in its own way."""
    from mechlab.prompts import repeated_tokens

    return repeated_tokens(count, length, copies=copies, pool=pool, seed=seed)  # type: ignore[arg-type]


def _texts(source: str | None, seed: int) -> dict[str, Any]:
    """Return the option `texts`: of a file, or built-in ones."""
    if source is None:
        return {}
    from mechlab.prompts import THEMES, haystack_text
    from mechlab.prompts import texts as as_texts

    if source == "built-in":
        written = [haystack_text(theme, 3000, seed=seed + i) for i in range(4) for theme in THEMES]
        return {"texts": as_texts(written, name="built-in")}
    from mechlab.methods.editing.corpora import check_corpus, texts_of

    if not Path(source).is_file():
        raise OptionError(
            f"--texts {source!r} is no file. Allowed: a text file, a .jsonl file, or built-in. "
            "Correct the path."
        )
    check_corpus(source)
    return {"texts": as_texts(texts_of(source, seed=seed, vocabulary=0), name=Path(source).name)}


def _groups(
    k: int | None,
    heads: tuple[str, ...] | None,
    lists: "PromptSet[Any]",
    seed: int,
    cache: str | None,
    *,
    estimate: bool,
) -> Completion:
    """Return what finds the groups of heads on these lists once the model is known."""
    if heads is not None:
        return lambda _, __: {"groups": {"named": list(heads)}, **given(k=k)}

    def found(model: "Model", _: "PromptSet[Any]") -> dict[str, Any]:
        from mechlab.results import top_heads
        from mechlab.store import Store
        from mechlab.workflows import memory_heads

        store = Store(cache)
        if estimate and store.key(memory_heads, model, lists, seed=seed) not in store:
            raise OptionError(
                "--estimate of --ablate needs the heads, which are not known yet. Allowed: with "
                "--heads, or once mechlab induction was run on the same lists."
            )
        scores = store.run(memory_heads, model, lists, seed=seed)
        most = k or max(1, round(model.n_layers * (model.n_heads or 0) / 10))
        pick: dict[str, Callable[[], Any]] = {
            "cmr": lambda: -scores.distance.reset_coords(drop=True),
            "induction": lambda: scores.prefix_matching.mean("prompt"),
        }
        ranked = {name: top_heads(of(), k=most) for name, of in pick.items()}
        return {"groups": {name: [str(h) for h in found] for name, found in ranked.items()}}

    return found
