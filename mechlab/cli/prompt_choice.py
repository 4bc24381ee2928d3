"""Which prompts a command runs on: a built-in set, a file, or one pair typed out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechlab.errors import OptionError, PromptError

if TYPE_CHECKING:
    from mechlab.models import Model
    from mechlab.prompts import PromptSet

__all__ = [
    "Answer",
    "Clean",
    "Corrupted",
    "Count",
    "File",
    "Form",
    "Pairs",
    "Relation",
    "Seed",
    "WrongAnswer",
    "built_in",
    "choose",
    "read_either",
]

_WHAT = "What to run on"
DEFAULT_COUNT = 16
_ANY_MODEL = ("repeated_tokens", "single_probe_lists")
"""Sets that every model reads as they are, so that its checkpoints share them."""

Pairs = Annotated[
    str | None,
    typer.Option(
        help="A built-in set: conflicts, ioi, arithmetic, one_to_many.", rich_help_panel=_WHAT
    ),
]
Count = Annotated[
    int | None,
    typer.Option(help="How many of the built-in set; 16 if left out.", rich_help_panel=_WHAT),
]
Form = Annotated[
    str | None,
    typer.Option(help="Wording of the conflicts: repeat, question, …", rich_help_panel=_WHAT),
]
Relation = Annotated[
    str | None,
    typer.Option(
        help="Relations of conflicts or facts: capital, language, currency, continent.",
        rich_help_panel=_WHAT,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(help="Seed of the prompts, and of random draws.", rich_help_panel=_WHAT),
]
File = Annotated[
    Path | None,
    typer.Option(
        help="Pairs as CSV, JSON or JSONL with clean, corrupted, answer, wrong_answer.",
        rich_help_panel=_WHAT,
    ),
]
Clean = Annotated[
    str | None, typer.Option(help="One pair: the clean prompt.", rich_help_panel=_WHAT)
]
Corrupted = Annotated[str | None, typer.Option(help="The corrupted prompt.", rich_help_panel=_WHAT)]
Answer = Annotated[
    str | None, typer.Option(help="The answer after the clean prompt.", rich_help_panel=_WHAT)
]
WrongAnswer = Annotated[
    str | None, typer.Option(help="The answer it is compared with.", rich_help_panel=_WHAT)
]


def choose(
    *,
    pairs: str | None,
    file: Path | None,
    typed: Mapping[str, str | None],
    otherwise: str = "conflicts",
    **settings: Any,
) -> "PromptSet[Any] | Callable[[Model], PromptSet[Any]]":
    """Return the prompts, or what makes them once the model is known.

    Args:
        pairs: name of a built-in set.
        file: a file of pairs, or of facts where `otherwise` is a set of facts.
        typed: fields of one pair (or fact) by option.
        otherwise: the built-in set when nothing is named.
        settings: arguments of the built-in set; `None` for those left out.

    Raises:
        OptionError: when the options contradict each other or one is missing.
        PromptError: when a file cannot be read.
    """
    given = {name: value for name, value in typed.items() if value is not None}
    ways = [name for name, there in _ways(pairs, file, given).items() if there]
    if len(ways) > 1:
        raise OptionError(
            f"{' and '.join(ways)} were both given. Allowed: a built-in set, a file, or one pair "
            "typed out. Leave one of them out."
        )
    kept = {name: value for name, value in settings.items() if value is not None}
    if (file is not None or given) and (idle := set(kept) - {"seed"}):
        raise OptionError(
            f"--{', --'.join(sorted(idle))} belong to built-in sets, and {ways[0]} was given. "
            "Leave them out."
        )
    if file is not None:
        return read_either(file, facts_first=otherwise == "facts")
    if given:
        return _one(typed, given)
    return built_in(pairs or otherwise, kept)


def _ways(pairs: str | None, file: Path | None, given: Mapping[str, str]) -> dict[str, bool]:
    return {
        "--pairs": pairs is not None,
        "--file": file is not None,
        ", ".join(given): bool(given),
    }


def _one(typed: Mapping[str, str | None], given: Mapping[str, str]) -> "PromptSet[Any]":
    from mechlab import prompts

    if missing := [name for name, value in typed.items() if value is None]:
        raise OptionError(
            f"{' and '.join(given)} without {', '.join(missing)}. One prompt is given by all of "
            f"{', '.join(typed)}. Add what is missing."
        )
    fields: dict[str, Any] = {
        name.lstrip("-").replace("-", "_"): value for name, value in given.items()
    }
    kind = prompts.PromptPair if "clean" in fields else prompts.Fact
    return prompts.as_prompt_set(kind(**fields), kind="any")


def read_either(file: Path, *, facts_first: bool) -> "PromptSet[Any]":
    """Return the pairs of a file, or its facts where these are wanted first.

    Raises:
        PromptError: when the file cannot be read.
    """
    from mechlab import prompts

    if not facts_first:
        return prompts.read_pairs(file)
    try:
        return prompts.read_facts(file)
    except PromptError as error:
        try:
            return prompts.read_pairs(file)
        except PromptError:
            raise error from None


def built_in(
    name: str, settings: Mapping[str, Any]
) -> "PromptSet[Any] | Callable[[Model], PromptSet[Any]]":
    """Return a built-in set; sets of pairs are made to align on the model once it is known.

    Raises:
        OptionError: an unknown set, or a setting that it does not have.
    """
    import inspect

    from mechlab import prompts

    sets: dict[str, Callable[..., PromptSet[Any]]] = {
        "conflicts": prompts.conflicts,
        "ioi": prompts.ioi,
        "arithmetic": prompts.arithmetic,
        "one_to_many": prompts.one_to_many,
        "facts": prompts.world_facts,
        "needles": prompts.needles,
        "repeated_tokens": prompts.repeated_tokens,
        "single_probe_lists": prompts.single_probe_lists,
    }
    if name not in sets:
        raise OptionError(
            f"there is no built-in set {name!r}. Allowed: {', '.join(sets)}. Use one of these, or "
            "--file."
        )
    make = sets[name]
    known = set(inspect.signature(make).parameters)
    options = {**({"count": DEFAULT_COUNT} if "count" in known else {}), **settings}
    if wrong := sorted(set(options) - known):
        raise OptionError(
            f"the set {name!r} has no {', '.join(wrong)}. Allowed: "
            f"{', '.join(sorted(known - {'model', 'words'}))}. Leave these out."
        )
    if "model" not in known or name in _ANY_MODEL:
        return make(**options)
    return lambda model: make(**options, model=model)
