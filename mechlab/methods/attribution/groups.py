"""Groups of source tokens by the named places of a prompt, and the words that stand there."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechlab.errors import OptionError, PromptError
from mechlab.models.spans import covering_tokens
from mechlab.prompts import PromptSet

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["LAST", "OTHER", "TokenGroups", "words_of"]

LAST, OTHER = "last", "other"

Span = tuple[int, int]


@dataclass(frozen=True)
class TokenGroups:
    """A partition of the tokens of every prompt.

    Attributes:
        names: of the groups; `last` and `other` first, so that prompts with more or fewer places
            have the same beginning.
        members: per prompt and group its positions in the unpadded prompt, perhaps none.
    """

    names: tuple[str, ...]
    members: tuple[tuple[tuple[int, ...], ...], ...]

    @classmethod
    def of(
        cls,
        model: "Model",
        prompts: PromptSet[Any],
        texts: Sequence[str],
        names: Sequence[str] | None,
        *,
        corrupted: bool,
    ) -> "TokenGroups":
        """Find the tokens of the groups; by default of every place that a prompt has.

        Raises:
            OptionError: names that are none, or given twice.
            PromptError: places that a prompt does not have, or that share tokens; all at once.
        """
        spans = [_spans(prompt, corrupted=corrupted) for prompt in prompts]
        chosen = _listed("groups", names) if names is not None else _all_names(spans)
        chosen = tuple(name for name in chosen if name not in (LAST, OTHER))
        if names is not None:
            _refuse_missing(prompts, spans, chosen)
        offsets = model.tokenize(texts).offsets
        members, shared = [], []
        for index, (text, held, row) in enumerate(zip(texts, spans, offsets, strict=True)):
            groups = [_tokens(text, row, held.get(name)) for name in chosen]
            taken = [pos for group in groups for pos in group]
            if twice := sorted({pos for pos in taken if taken.count(pos) > 1}):
                shared.append(f"  #{index} {text!r:.60}: tokens {twice}")
            last = len(row) - 1
            rest = tuple(pos for pos in range(last) if pos not in taken)
            members.append((() if last in taken else (last,), rest, *groups))
        if shared:
            raise PromptError(
                f"groups {', '.join(map(repr, chosen))} share tokens in {len(shared)} of "
                f"{len(texts)} prompts:\n" + "\n".join(shared) + "\n  Allowed: groups without "
                "common tokens, as their shares are to add up. Name fewer groups."
            )
        return cls((LAST, OTHER, *chosen), tuple(members))


def words_of(
    prompts: PromptSet[Any], names: Sequence[str], reserved: Sequence[str], *, corrupted: bool
) -> dict[str, list[str]]:
    """Return for each name the words of every prompt: at that place, or noted under that name.

    Raises:
        OptionError: names that are none, given twice, or those of the answers.
        PromptError: prompts without such words, all at once.
    """
    chosen = _listed("decode", names)
    if taken := [name for name in chosen if name in reserved]:
        raise OptionError(
            f"decode: {', '.join(map(repr, taken))} are decoded in any case. Allowed: names of "
            "places, or of notes in a pair's `about`. Leave these out."
        )
    found = [_words(prompt, corrupted=corrupted) for prompt in prompts]
    _refuse_missing(prompts, found, chosen)
    return {name: [held[name] for held in found] for name in chosen}


def _listed(option: str, names: object) -> tuple[str, ...]:
    given = tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else ()
    good = all(isinstance(name, str) for name in given) and len(set(given)) == len(given)
    if isinstance(names, str) or not isinstance(names, Iterable) or not good:
        raise OptionError(
            f"{option}={names!r:.60}. Allowed: a list of different names of places, such as "
            "['subject']. Put it in brackets."
        )
    return given


def _spans(prompt: Any, *, corrupted: bool) -> dict[str, Span]:
    """Return the named places of a prompt, in characters."""
    if hasattr(prompt, "subject_span"):
        return {"subject": prompt.subject_span}
    places = getattr(prompt, "corrupted_places" if corrupted else "places", ())
    return {name: (start, end) for name, start, end in places}


def _words(prompt: Any, *, corrupted: bool) -> dict[str, str]:
    text = prompt.corrupted if corrupted else prompt.text
    standing = {
        name: text[start:end] for name, (start, end) in _spans(prompt, corrupted=corrupted).items()
    }
    noted = {name: value for name, value in getattr(prompt, "about", ()) if isinstance(value, str)}
    return {**noted, **standing}


def _all_names(spans: Sequence[Mapping[str, Span]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for held in spans for name in held))


def _tokens(text: str, offsets: Sequence[Span], span: Span | None) -> tuple[int, ...]:
    """Return the tokens of a place, white space at its ends left out."""
    if span is None:
        return ()
    start, end = span
    inner = text[start:end]
    bare = (end - len(inner.lstrip()), start + len(inner.rstrip()))
    ends = covering_tokens(offsets, bare)
    return () if ends is None else tuple(range(ends[0], ends[1] + 1))


def _refuse_missing(
    prompts: PromptSet[Any], held: Sequence[Mapping[str, object]], names: Sequence[str]
) -> None:
    lines = [
        f"  #{index} {prompt.text!r:.60} has {', '.join(map(repr, here)) or 'none'}, not "
        f"{', '.join(repr(name) for name in names if name not in here)}"
        for index, (prompt, here) in enumerate(zip(prompts, held, strict=True))
        if any(name not in here for name in names)
    ]
    if lines:
        raise PromptError(
            f"{len(lines)} of {len(prompts)} prompts do not have all of the places "
            f"{', '.join(map(repr, names))}:\n"
            + "\n".join(lines)
            + "\n  Allowed: names that every "
            "prompt has (a fact has 'subject'). Name others, or leave these prompts out."
        )
