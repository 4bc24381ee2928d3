"""Options that several commands share, and how typed text becomes values."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechlab.errors import OptionError

if TYPE_CHECKING:
    from mechlab.hooks import Site

__all__ = [
    "Cache",
    "Device",
    "Dtype",
    "Estimate",
    "Html",
    "JsonOutput",
    "ModelName",
    "Top",
    "check_known",
    "given",
    "groups",
    "names",
    "nodes",
    "numbers",
    "positions",
    "whole_numbers",
]

_HOW, _OUT = "How", "Output"

ModelName = Annotated[str, typer.Option(help="A shipped model, a local folder, or a hub name.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …", rich_help_panel=_HOW)]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.", rich_help_panel=_HOW)]
Estimate = Annotated[bool, typer.Option("--estimate", help="Say what it would cost, and stop.")]
Html = Annotated[
    Path | None,
    typer.Option(help="Where to write the figure; in the store if left out.", rich_help_panel=_OUT),
]
JsonOutput = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object and nothing else.", rich_help_panel=_OUT),
]
Cache = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER", help="Where results are kept; a folder or URL.", rich_help_panel=_OUT
    ),
]
Top = Annotated[
    int,
    typer.Option(min=0, help="How many of the strongest to list.", rich_help_panel=_OUT),
]

_NODE = re.compile(
    r"(?:L(?P<layer>\d+)H(?P<head>\d+)(?:\.(?P<input>q|k|v|pattern|z))?"
    r"|(?P<whole>mlp|attn) ?(?P<block>\d+))(?:@(?P<pos>\d+))?",
    re.IGNORECASE,
)


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were typed; the others keep the method's own defaults."""
    return {name: value for name, value in options.items() if value is not None}


def names(text: str | None) -> tuple[str, ...] | None:
    """Return the words of a list separated by commas."""
    if text is None:
        return None
    return tuple(name.strip() for name in text.split(",") if name.strip())


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Return the numbers of a list such as `-2,0,1.5`.

    Raises:
        OptionError: for what is no number.
    """
    if text is None:
        return None
    try:
        return tuple(float(word) for word in names(text) or ())
    except ValueError as error:
        raise OptionError(
            f"{option} {text!r} holds what is not a number. Allowed: numbers separated by commas, "
            f"such as {option}=-1,0,2. Correct it."
        ) from error


def whole_numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Return the whole numbers of a list such as `0,3-5`.

    Raises:
        OptionError: for what is no whole number and no range.
    """
    if text is None:
        return None
    found: list[int] = []
    for word in names(text) or ():
        match = re.fullmatch(r"(-?\d+)(?:-(\d+))?", word)
        if match is None:
            raise OptionError(
                f"{option} {text!r} holds {word!r}. Allowed: whole numbers and ranges separated by "
                f"commas, such as {option} 0,3-5. Correct it."
            )
        first = int(match[1])
        found += range(first, int(match[2]) + 1) if match[2] else [first]
    return tuple(found)


def positions(text: str | None) -> str | tuple[int, ...] | None:
    """Return `all`, `last`, `each`, or positions.

    Raises:
        OptionError: for anything else.
    """
    if text in (None, "all", "last", "each"):
        return text
    return whole_numbers(text, "--positions")


def groups(text: str | None, option: str) -> Any:
    """Return groups of tokens: names separated by commas, positions joined by `+`.

    Raises:
        OptionError: for positions that are no whole numbers.
    """
    words = names(text)
    if words is None or not any(re.match(r"-?\d", word) for word in words):
        return words
    return {word: _group(word, option) for word in words}


def _group(word: str, option: str) -> str | list[int]:
    if not re.match(r"-?\d", word):
        return word
    if not re.fullmatch(r"-?\d+(\+-?\d+)*", word):
        raise OptionError(
            f"{option}: {word!r} is not a list of positions. Allowed: whole numbers joined by +, "
            "such as 2+3 or -1. Correct it."
        )
    return [int(part) for part in word.split("+")]


def nodes(value: object, option: str) -> Any:
    """Return senders or receivers of paths: sweeps by name, heads and modules as sites.

    Args:
        value: text such as `all_heads_q` or `L5H3.q,L6H1.q+L6H2.q,MLP4`, where `+` sets nodes
            together; or a list of such texts, a list within it being set together.
        option: its name, for messages.

    Raises:
        OptionError: for a node that cannot be read.
    """
    if value is None:
        return None
    items = names(value) if isinstance(value, str) else value
    if not isinstance(items, Iterable):
        items = [items]
    found = [_node(item, option) for item in items]
    return found[0] if len(found) == 1 and isinstance(found[0], str) else found


def _node(item: object, option: str) -> "str | Site | tuple[Site, ...]":
    parts = item.split("+") if isinstance(item, str) else item
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise OptionError(
            f"{option}: {item!r:.60} is not a node. Allowed: text such as 'L5H3.q'. Correct it."
        )
    if len(parts) == 1 and _NODE.fullmatch(parts[0].strip()) is None:
        return str(parts[0]).strip()  # the name of a sweep; the method knows them
    sites = tuple(_site(part.strip(), option) for part in parts)
    return sites[0] if len(sites) == 1 else sites


def _site(text: str, option: str) -> "Site":
    from mechlab.hooks import Site

    if text.lower() == "embed":
        return Site("embed")
    match = _NODE.fullmatch(text)
    if match is None:
        raise OptionError(
            f"{option}: {text!r} is not a node. Allowed: heads such as L5H3 or L5H3.q (inputs q, "
            "k, v, pattern), MLP4, attn4, embed, each with @position if wanted, joined by + where "
            "they are set together. Correct it."
        )
    pos = None if match["pos"] is None else int(match["pos"])
    if match["whole"]:
        return Site(f"{match['whole'].lower()}_out", int(match["block"]), None, pos)
    name = (match["input"] or "z").lower()
    return Site(name, int(match["layer"]), int(match["head"]), pos)


def check_known(typed: Collection[str], method: str, has: Mapping[str, Collection[str]]) -> None:
    """Refuse a method that is unknown, and options that the chosen one does not have.

    Args:
        typed: names of the options that were given.
        method: what was given as `--method`.
        has: for every method, the options it has.

    Raises:
        OptionError: naming the method, or each of the options with the methods that have it.
    """
    if method not in has:
        raise OptionError(
            f"--method {method!r} is unknown. Allowed: {', '.join(has)}. Use one of them."
        )
    wrong = [name for name in typed if name not in has[method]]
    if wrong:
        told = [
            f"--{name.replace('_', '-')} (of --method "
            f"{' or '.join(other for other in has if name in has[other]) or 'none'})"
            for name in wrong
        ]
        raise OptionError(
            f"--method {method} has no {', '.join(told)}. Allowed: the method's own options, see "
            "--help. Leave these out, or choose another method."
        )
