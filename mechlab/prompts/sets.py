"""Prompt sets: prompts of one kind in a fixed order, with unique labels and a digest."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, cast, overload

from mechlab.canonical import digest
from mechlab.errors import PromptError
from mechlab.prompts.edit_kind import EditCase
from mechlab.prompts.kinds import Fact, Prompt, PromptPair
from mechlab.prompts.needle_kind import NeedlePrompt
from mechlab.prompts.token_kind import Text, TokenList

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    P = TypeVar("P", default=Any)  # a bare `PromptSet` in an annotation means any kind
else:
    from typing import TypeVar

    P = TypeVar("P")

__all__ = ["Kind", "PromptSet", "as_prompt_set"]

Kind = Literal["fact", "pair", "needle", "edit", "tokens", "text"]
Kinds = Kind | Literal["any", "rows"]


@dataclass(frozen=True, repr=False)
class PromptSet(Sequence[P], Generic[P]):
    """Prompts of one kind, in order; a slice is again a PromptSet.

    Two sets with the same prompts in the same order have the same digest, whatever their names.
    """

    prompts: tuple[P, ...]
    """The prompts; any iterable is taken when the set is made."""
    name: str = ""
    """What the set is called in pictures and lists; not part of the digest."""

    def __post_init__(self) -> None:
        """Fix the order and check that all prompts are of one kind.

        Raises:
            PromptError: when the set is empty or mixes kinds; the offenders are listed.
        """
        object.__setattr__(self, "prompts", _as_tuple(self.prompts))
        if not self.prompts:
            raise PromptError(
                f"prompt set {self.name!r} is empty. A set holds at least one Fact or PromptPair. "
                "Check the file, the filter or the slice it came from."
            )
        _check_kind(self.prompts, getattr(self.prompts[0], "kind", "fact"))

    @property
    def kind(self) -> Kind:
        """Which kind of prompt the set holds, such as `"fact"` or `"pair"`."""
        return cast(Kind, cast(Prompt, self.prompts[0]).kind)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """One label per prompt, all different; a repeated one gets ` (2)`, ` (3)`, … appended."""
        return tuple(_unique(_label(cast(Prompt, prompt)) for prompt in self.prompts))

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The `cluster` of each prompt for `ml.statistics`: its group, or itself without one."""
        named = [getattr(prompt, "group", None) for prompt in self.prompts]
        return tuple(
            label if group is None else f"group {group}"
            for group, label in zip(named, self.labels, strict=True)
        )

    def about(self, name: str) -> tuple[str | int, ...]:
        """Return one of the things known of every pair, such as `about("rank")`.

        Raises:
            PromptError: when not every prompt has it.
        """
        known = [dict(getattr(prompt, "about", ())) for prompt in self.prompts]
        if missing := [index for index, notes in enumerate(known) if name not in notes]:
            there = sorted(set(known[0]).intersection(*known))
            raise PromptError(
                f"{len(missing)} of {len(self)} prompts say nothing about {name!r}: "
                f"#{', #'.join(map(str, missing[:10]))}. All say: {', '.join(there) or 'nothing'}. "
                "Choose one of these."
            )
        return tuple(notes[name] for notes in known)

    @cached_property
    def digest(self) -> str:
        """Sha256 (64 hex digits) of the canonical JSON of kind and prompts in order."""
        contents = [cast(Prompt, prompt).to_json() for prompt in self.prompts]
        return digest({"kind": self.kind, "prompts": contents})

    def prompt_digest(self, index: int) -> str:
        """Return the sha256 of one prompt's canonical JSON; it depends on no other prompt."""
        return digest(cast(Prompt, self.prompts[index]).to_json())

    def select(self, chosen: Iterable[Any]) -> "PromptSet[P]":
        """Return the prompts where a mask is true, or those at the given indices, in that order.

        Args:
            chosen: one truth value per prompt, or integer indices (negative ones count from the
                end). A labelled array such as `trace.status == "ok"` serves as a mask.

        Raises:
            PromptError: when nothing is chosen, a mask has the wrong length, or an index is out of
                range.
        """
        return PromptSet(
            tuple(self.prompts[index] for index in _indices(chosen, len(self))), self.name
        )

    def to_json(self) -> dict[str, str]:
        """Return the digest: as an option of another run, a set is keyed by its contents."""
        return {"digest": self.digest}

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.prompts)

    def __iter__(self) -> Iterator[P]:
        """Iterate over the prompts in order."""
        return iter(self.prompts)

    @overload
    def __getitem__(self, index: int) -> P: ...
    @overload
    def __getitem__(self, index: slice) -> "PromptSet[P]": ...
    def __getitem__(self, index: int | slice) -> "P | PromptSet[P]":
        """Return one prompt, or for a slice a PromptSet."""
        if isinstance(index, slice):
            return PromptSet(self.prompts[index], self.name)
        return self.prompts[index]

    def __repr__(self) -> str:
        """Return one line: name, size, kind and the start of the digest."""
        name = f"{self.name!r}, " if self.name else ""
        return f"PromptSet({name}{len(self)} of kind {self.kind!r}, digest {self.digest[:12]})"


@overload
def as_prompt_set(prompts: object, kind: Literal["fact"] = "fact") -> PromptSet[Fact]: ...
@overload
def as_prompt_set(prompts: object, kind: Literal["pair"]) -> PromptSet[PromptPair]: ...
@overload
def as_prompt_set(prompts: object, kind: Literal["needle"]) -> PromptSet[NeedlePrompt]: ...
@overload
def as_prompt_set(prompts: object, kind: Literal["edit"]) -> PromptSet[EditCase]: ...
@overload
def as_prompt_set(prompts: object, kind: Literal["tokens"]) -> PromptSet[TokenList]: ...
@overload
def as_prompt_set(prompts: object, kind: Literal["text"]) -> PromptSet[Text]: ...
@overload
def as_prompt_set(prompts: object, kind: Kinds) -> PromptSet[Any]: ...
def as_prompt_set(prompts: object, kind: Kinds = "fact") -> PromptSet[Any]:
    """Return `prompts` as a PromptSet of the wanted kind; every method calls this first.

    Args:
        prompts: a PromptSet, one prompt, or any iterable of prompts.
        kind: the kind that the caller can work with; `any` takes facts or pairs, `rows` token lists
            or texts, one kind in a set.

    Raises:
        PromptError: when something in it is of another kind; the offenders are listed.
    """
    if isinstance(prompts, tuple(_CLASSES.values())):
        prompts = (prompts,)
    found = prompts if isinstance(prompts, PromptSet) else PromptSet(_as_tuple(prompts))
    several = _SEVERAL.get(kind, (kind,))
    _check_kind(found.prompts, found.kind if found.kind in several else several[0])
    return found


_CLASSES: dict[str, type[Any]] = {
    "fact": Fact,
    "pair": PromptPair,
    "needle": NeedlePrompt,
    "edit": EditCase,
    "tokens": TokenList,
    "text": Text,
}
_SEVERAL = {
    "any": ("fact", "pair"),  # read at the end of one text
    "rows": ("tokens", "text"),  # read at every position
}


def _as_tuple(prompts: object) -> tuple[Any, ...]:
    if isinstance(prompts, str) or not isinstance(prompts, Iterable):
        raise PromptError(
            f"prompts are {type(prompts).__name__} {prompts!r:.80}, not a collection of prompts. "
            "Allowed: a PromptSet, a Fact or another prompt, or an iterable of one kind of them. "
            "Text becomes a prompt with Fact(prompt, subject, target)."
        )
    return tuple(prompts)


def _check_kind(prompts: Sequence[object], kind: str) -> None:
    if kind not in _CLASSES:
        raise PromptError(
            f"unknown kind of prompt {kind!r}. Allowed: {', '.join(map(repr, _CLASSES))}. "
            "Use one of these."
        )
    wanted = _CLASSES[kind]
    wrong = [
        f"#{i} ({type(p).__name__})" for i, p in enumerate(prompts) if not isinstance(p, wanted)
    ]
    if wrong:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise PromptError(
            f"{len(wrong)} of {len(prompts)} prompts are not {wanted.__name__}: "
            f"{', '.join(wrong[:10])}{more}. All prompts of a set must be {wanted.__name__} here. "
            "Remove the others, or make two sets."
        )


def _label(prompt: Prompt) -> str:
    return prompt.text if prompt.label is None else prompt.label


def _unique(labels: Iterable[str]) -> Iterator[str]:
    wanted = list(labels)
    taken, seen = set(wanted), set[str]()
    for label in wanted:
        name, count = label, 1
        while name in seen or (count > 1 and name in taken):
            count += 1
            name = f"{label} ({count})"
        seen.add(name)
        yield name


def _indices(chosen: Iterable[Any], length: int) -> list[int]:
    values = [value.item() if hasattr(value, "item") else value for value in chosen]
    if values and all(isinstance(value, bool) for value in values):
        if len(values) != length:
            raise PromptError(
                f"the mask has {len(values)} values for {length} prompts. "
                "It needs one truth value per prompt. Build it from this set."
            )
        return [index for index, value in enumerate(values) if value]
    if wrong := [v for v in values if not isinstance(v, int) or not -length <= v < length]:
        raise PromptError(
            f"cannot select {wrong!r:.80} from {length} prompts. "
            f"Allowed: integers from {-length} to {length - 1}, or one truth value per prompt. "
            "Correct the indices."
        )
    return [int(value) for value in values]
