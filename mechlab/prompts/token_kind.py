"""The kinds `tokens` and `text`: lists of distinct tokens with probes after them, and plain texts.

A list never goes through a string: its numbers are token ids, or ranks in a pool of tokens that
every tokenizer has (`ml.prompts.repeated_tokens`), so that no tokenizer can merge two of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from mechlab.errors import PromptError
from mechlab.prompts.drawing import is_whole

__all__ = ["POOLS", "Text", "TokenList"]

POOLS = ("auto", "words", "tokens")
"""Pools of tokens that are found in a tokenizer: see `ml.prompts.repeated_tokens`."""


@dataclass(frozen=True)
class TokenList:
    """A list of distinct tokens, and what follows it: the list again, or probes from it."""

    kind: ClassVar[str] = "tokens"

    source: tuple[int, ...]
    """The list: distinct numbers."""
    probes: tuple[int, ...]
    """The tokens after it, at least one; those that are in the list are probes of their place."""
    others: tuple[int, ...] = ()
    """Distinct numbers that are not in the list, for controls without a repeat."""
    pool: str = ""
    """Empty where numbers are token ids; else the pool in which they count, from 0."""
    bos: bool = True
    """Whether the model's beginning-of-sequence token stands in front."""
    label: str | None = None
    """Name in results; by default its first tokens."""
    group: str | None = None
    """Which lists are not independent of this one: those with the same source, say."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            PromptError: naming all that is wrong: tokens that are not distinct or no whole numbers
                from 0, a list or probes that are empty, an unknown pool.
        """
        for name in ("source", "probes", "others"):
            value = getattr(self, name)
            if isinstance(value, Iterable) and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
        if problems := [*_wrong_numbers(self)] or [*_repeated(self), *_wrong_fields(self)]:
            raise PromptError(
                f"TokenList {self.label or ''!r} cannot be made: {'; '.join(problems)}.\n"
                "  Allowed: distinct token ids from 0 in source, at least one probe, others that "
                "are not in the source.\n  Correct the fields named."
            )
        for name in ("source", "probes", "others"):
            object.__setattr__(self, name, tuple(int(one) for one in getattr(self, name)))

    @property
    def numbers(self) -> tuple[int, ...]:
        """Source and probes, in reading order."""
        return self.source + self.probes

    @property
    def matches(self) -> tuple[int, ...]:
        """For each probe its place in the source, from 0; -1 for one that is not in it."""
        place = {token: index for index, token in enumerate(self.source)}
        return tuple(place.get(token, -1) for token in self.probes)

    @property
    def copies(self) -> int:
        """How often the length of the source goes into the whole; 0 when it does not."""
        whole, rest = divmod(len(self.numbers), len(self.source))
        return 0 if rest else whole

    @property
    def text(self) -> str:
        """The default label."""
        first = " ".join(map(str, self.source[:6]))
        return f"{first} … ({len(self.source)} + {len(self.probes)} tokens)"

    def to_json(self) -> dict[str, object]:
        """Return every field and the kind."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Text:
    """A plain text that a model reads from its beginning."""

    kind: ClassVar[str] = "text"

    text: str
    """The text."""
    label: str | None = None
    """Name in results; by default the beginning of the text."""
    group: str | None = None
    """Which texts are not independent of this one, such as those of one book."""

    def __post_init__(self) -> None:
        """Check the text and name it.

        Raises:
            PromptError: for what is no text, or blank.
        """
        if not isinstance(self.text, str) or not self.text.strip():
            raise PromptError(
                f"Text cannot be made of {self.text!r:.60}.\n  Allowed: text that is not blank.\n"
                "  Leave it out."
            )
        if self.label is None:
            short = " ".join(self.text.split())
            object.__setattr__(self, "label", short if len(short) <= 40 else short[:39] + "…")

    def to_json(self) -> dict[str, object]:
        """Return every field and the kind."""
        return {"kind": self.kind, **asdict(self)}


def _wrong_numbers(prompt: TokenList) -> Iterable[str]:
    for name in ("source", "probes", "others"):
        value = getattr(prompt, name)
        if not isinstance(value, tuple):
            yield f"{name} is {type(value).__name__} {value!r:.40}, not a list"
        elif wrong := [one for one in value if not is_whole(one) or one < 0]:
            yield f"{name} holds {', '.join(f'{one!r:.20}' for one in wrong[:5])}"
        elif not value and name != "others":
            yield f"{name} is empty"


def _repeated(prompt: TokenList) -> Iterable[str]:
    if twice := _twice(prompt.source):
        yield f"source is not distinct: {_listed(twice)} stand in it more than once"
    if twice := _twice(prompt.others):
        yield f"others are not distinct: {_listed(twice)}"
    if both := sorted(set(prompt.others) & set(prompt.numbers)):
        yield f"others are in the list too: {_listed(both)}"


def _wrong_fields(prompt: TokenList) -> Iterable[str]:
    if prompt.pool not in ("", *POOLS):
        yield f"pool is {prompt.pool!r:.40}, not one of {', '.join(map(repr, ('', *POOLS)))}"
    if not isinstance(prompt.bos, bool):
        yield f"bos is {prompt.bos!r:.40}, not True or False"
    for name in ("label", "group"):
        value = getattr(prompt, name)
        if value is not None and not (isinstance(value, str) and value.strip()):
            yield f"{name} is {value!r:.40}, neither text nor None"


def _twice(numbers: Sequence[int]) -> list[int]:
    seen: set[int] = set()
    return sorted({one for one in numbers if one in seen or seen.add(one)})  # type: ignore[func-returns-value]


def _listed(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return ", ".join(map(str, numbers[:5])) + more
