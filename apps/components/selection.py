"""The one selection: layer, head, position and two tokens, bound to the URL, shared by all pages.

A click, the keyboard, a link and typing all do the same thing: they set these fields.

`target` and `foil` are tokens to look at: the ones that a panel about one cell or head reads for.
Empty, they are the answer and the wrong answer of the result. They never change what a result
answers, nor what is run next: grids, fields and the code of the page stay as they are.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from math import nan

import streamlit as st

import loaded
from components.cell_grid import opened_cell
from request import Request
from text import words

__all__ = [
    "COUNTED",
    "TOKENS",
    "Tokens",
    "choose",
    "clicked",
    "forget_what_is_not_here",
    "link_problems",
    "option_problems",
    "range_problems",
    "select",
    "select_tokens",
    "token_problem",
    "warn_of_link",
]

COUNTED = {"layer": "Layer", "head": "Head", "pos": "Token"}
"""Selections that count from 0, with the words of their fields."""

TOKENS = {"target": "Target", "foil": "Foil"}
"""Selections that are the text of one token, with the words of their fields."""

_LONGEST_TOKEN, _MOST = 40, 10**9
_HELD, _HOLD_SECONDS = "selection.held", 3.0


@dataclass(frozen=True)
class Tokens:
    """What a panel reads for; empty where nothing else than the result's own was chosen."""

    target: str = ""
    foil: str = ""


def select(**counts: int) -> dict[str, int | None]:
    """Draw one URL-bound field per selection; `None` means that nothing is chosen.

    Args:
        counts: how many there are of each, e.g. `layer=12, head=12`.
    """
    _put_back(counts)
    forget_what_is_not_here(**counts)
    chosen: dict[str, int | None] = {}
    for (name, count), place in zip(counts.items(), st.columns(len(counts)), strict=True):
        # No default: a bound field equal to its default leaves the URL, and 0 must stay there.
        chosen[name] = place.number_input(
            COUNTED[name], 0, count - 1, value=None, key=name, placeholder="–",
            bind=None if _drop_what_is_no_count(name) else "query-params",
        )  # fmt: skip
    return chosen


def _drop_what_is_no_count(name: str) -> bool:
    """Drop what a link wrote in no way that a field writes; return whether it did.

    The field would take `1.5` for 1, and raise at hundreds of digits.
    """
    text = st.query_params.get(name)
    if not text or name in st.session_state or _counts(text, _MOST):
        return False
    del st.query_params[name]
    return True


def clicked(key: str, *names: str) -> Callable[[], None]:
    """Return the callback of a grid: it writes the fields, from which everything else follows.

    Args:
        key: the grid's key.
        names: what its rows and its columns are, e.g. `"layer", "head"`.
    """

    def write() -> None:
        if (cell := opened_cell(key)) is not None:
            choose(**dict(zip(names, cell, strict=True)))

    return write


def choose(**values: int) -> None:
    """Write fields, in a callback, and hold what was written for a moment.

    A script that was asked for just before, as at the end of a run, still brings the fields' old
    values from the browser; `select` then puts the new ones back.
    """
    before = _lately_chosen()
    held = {}
    for name, value in values.items():
        old, _ = before.get(name, ((), None))
        held[name] = (*old, st.session_state.get(name)), value
        st.session_state[name] = value
    st.session_state[_HELD] = time.monotonic(), held


def _lately_chosen() -> dict[str, tuple[tuple[int | None, ...], int]]:
    """Return the old values of fields, and the new one, if they were written just now."""
    when, held = st.session_state.get(_HELD, (0.0, {}))
    return held if time.monotonic() - when < _HOLD_SECONDS else {}


def _put_back(names: Iterable[str]) -> None:
    held = _lately_chosen()
    for name in names:
        old, new = held.get(name, ((), None))
        if (now := st.session_state.get(name)) != new and now in old:
            st.session_state[name] = new


def forget_what_is_not_here(**counts: int) -> None:
    """Clear a choice left over from another result, before a field refuses it."""
    for name, count in counts.items():
        if (chosen := st.session_state.get(name)) is not None and chosen >= count:
            st.session_state[name] = None


def link_problems(link: Mapping[str, str], **counts: int) -> list[str]:
    """Say what a link asked for that is not here; the fields have ignored it silently.

    Args:
        link: the page's parameters as they were before any field was drawn.
        counts: as in `select`.
    """
    return [
        f"{name} {link[name]!r}: this result has {name} 0 to {count - 1}"
        for name, count in counts.items()
        if name in link and not _counts(link[name], count)
    ]


def option_problems(link: Mapping[str, str], **allowed: Collection[str]) -> list[str]:
    """Say which choices a link asked for that are none, e.g. `sort=("grid", "top")`."""
    return [
        f"{name} {link[name]!r}: it is one of {', '.join(known)}"
        for name, known in allowed.items()
        if link.get(name) and link[name] not in known
    ]


def range_problems(link: Mapping[str, str], **ends: float) -> list[str]:
    """Say which numbers a link asked for that do not lie between 0 and their `ends`."""
    return [
        f"{name} {link[name]!r}: it is a number from 0 to {end:.3f}"
        for name, end in ends.items()
        if link.get(name) and not 0 <= _number(link[name]) <= end
    ]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return nan


def _counts(text: str, count: int) -> bool:
    """Return whether a link's text is a number from 0 to `count` - 1, as fields read it."""
    digits = text.lstrip("0") or "0"  # thousands of digits are more than int() takes
    return text.isascii() and text.isdecimal() and len(digits) < 10 and int(digits) < count


def warn_of_link(problems: list[str]) -> None:
    """Show what `link_problems` found."""
    for problem in problems:
        st.warning(f"The link asked for {words(problem)}.", icon=":material/link_off:")


def select_tokens(request: Request, prompt: str, *, usual: tuple[str, str] = ("", "")) -> Tokens:
    """Draw the two URL-bound fields of tokens; say why one cannot be read for.

    Args:
        request: names the model, which tells what is a token if it is loaded.
        prompt: the text that the tokens would continue.
        usual: answer and wrong answer of the result, which empty fields stand for.
    """
    chosen: dict[str, str] = {}
    for name, own, place in zip(TOKENS, usual, st.columns(2, gap="small"), strict=True):
        text = place.text_input(
            TOKENS[name], key=name, bind="query-params", placeholder=own or "–",
            help="One token to look at; empty for the result's own. Changes no result.",
        )  # fmt: skip
        chosen[name] = "" if (text or "").strip() == own else (text or "").strip()
    problems = {name: token_problem(request, prompt, text) for name, text in chosen.items() if text}
    if (chosen["target"] or usual[0]) == (chosen["foil"] or usual[1]) != "":
        problems |= {name: "target and foil are the same" for name in chosen if chosen[name]}
    elif chosen["foil"] and not (chosen["target"] or usual[0]):
        problems["foil"] = "it needs a target"
    wrong = {name: why for name, why in problems.items() if why}
    warn_of_link([f"{name} {chosen[name][:_LONGEST_TOKEN]!r}: {wrong[name]}" for name in wrong])
    return Tokens(**{name: "" if name in wrong else text for name, text in chosen.items()})


def token_problem(request: Request, prompt: str, text: str) -> str:
    """Return why a text is no token to look at, in a few words; empty when it may be one."""
    if len(text) > _LONGEST_TOKEN or not text.isprintable():
        return f"a token is at most {_LONGEST_TOKEN} characters that can be printed"
    return loaded.answer_problem(request.load_arguments, prompt, text)
