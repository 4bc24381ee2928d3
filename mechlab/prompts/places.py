"""Named stretches of prompts: written together with the text, found again as tokens.

A template is filled piece by piece; each piece that has a name becomes a place. What a model makes
of a place is asked of the model itself (`Tokenizes`), so that nothing here needs torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mechlab.errors import PromptError
from mechlab.prompts.kinds import Place, PromptPair

__all__ = ["Aligner", "Tokenizes", "Written", "named_positions", "write"]


class _Tokens(Protocol):
    @property
    def lengths(self) -> tuple[int, ...]: ...
    @property
    def offsets(self) -> Sequence[Sequence[tuple[int, int]]]: ...


class Tokenizes(Protocol):
    """What prompts ask of a model; `mechlab.models.Model` has it."""

    def tokenize(self, texts: Sequence[str]) -> Any:
        """Return tokens with `lengths` and, per text, `offsets` in characters."""
        ...

    def answer_tokens(self, prompts: Sequence[str], answers: Sequence[str], *, answer: Any) -> Any:
        """Return the token ids of each answer after its prompt."""
        ...


@dataclass(frozen=True)
class Written:
    """A text and its places."""

    text: str
    places: tuple[Place, ...]


def write(pattern: str, words: Mapping[str, str]) -> Written:
    """Fill a pattern such as `"When {io} and {s1} went"`; every filled field becomes a place.

    A field that occurs again is a place with a number: `{s}` and `{s}` give `s` and `s_2`.
    """
    text, places, seen = "", list[Place](), dict[str, int]()
    rest = pattern
    while "{" in rest:
        before, _, rest = rest.partition("{")
        field, _, rest = rest.partition("}")
        text += before
        seen[field] = seen.get(field, 0) + 1
        name = field if seen[field] == 1 else f"{field}_{seen[field]}"
        places.append((name, len(text), len(text) + len(words[field])))
        text += words[field]
    return Written(text + rest, tuple(places))


def named_positions(
    model: Tokenizes,
    pairs: Iterable[PromptPair],
    *names: str,
    last_token: bool = False,
    corrupted: bool = False,
) -> list[list[int]]:
    """Return the token positions of named places, one list per pair, as `positions=` takes them.

    Args:
        model: the model whose tokens are counted, from 0, BOS included.
        pairs: pairs with places.
        names: which places; `end` is the last token of every prompt.
        last_token: of each place only its last token.
        corrupted: of the corrupted prompt instead of the clean one.

    Raises:
        PromptError: when a pair does not have a place, all at once, or cannot be tokenised.
    """
    listed = list(pairs)
    texts = [pair.corrupted if corrupted else pair.clean for pair in listed]
    places = [
        {name: (start, end) for name, start, end in _places(pair, corrupted)} for pair in listed
    ]
    _refuse_unknown(names, listed, places)
    tokens: _Tokens = model.tokenize(texts)
    found = []
    for text, held, offsets in zip(texts, places, tokens.offsets, strict=True):
        positions: list[int] = []
        for name in names:
            span = held.get(name)
            there = [len(offsets) - 1] if span is None else _covering(text, offsets, span)
            positions += there[-1:] if last_token else there
        found.append(sorted(set(positions)))
    return found


def _places(pair: PromptPair, corrupted: bool) -> tuple[Place, ...]:
    return pair.corrupted_places if corrupted else pair.places


def _refuse_unknown(
    names: Sequence[str], pairs: Sequence[PromptPair], places: Sequence[Mapping[str, object]]
) -> None:
    if not names:
        raise PromptError("no place is named.\n  Allowed: names of places, or 'end'.\n  Name one.")
    lines = [
        f"  #{index} {pair.clean!r:.60} has {', '.join(map(repr, [*held, 'end']))}"
        for index, (pair, held) in enumerate(zip(pairs, places, strict=True))
        if any(name not in held and name != "end" for name in names)
    ]
    if lines:
        raise PromptError(
            f"{len(lines)} of {len(pairs)} pairs do not have all of the places "
            f"{', '.join(map(repr, names))}:\n"
            + "\n".join(lines)
            + "\n  Name places that all have."
        )


def _covering(text: str, offsets: Sequence[tuple[int, int]], span: tuple[int, int]) -> list[int]:
    """Return the tokens that share a character with a span, white space at its ends left out."""
    start, end = span
    inner = text[start:end]
    start, end = end - len(inner.lstrip()), start + len(inner.rstrip())
    return [place for place, (a, b) in enumerate(offsets) if a < end and b > start]


class Aligner:
    """Whether prompts have the same number of tokens, place by place; `None` counts nothing."""

    def __init__(self, model: Tokenizes | None) -> None:
        """Ask this model; without one everything fits."""
        self.model = model
        self._shapes: dict[str, tuple[int, ...] | None] = {}

    def shapes(self, written: Sequence[Written]) -> list[tuple[int, ...] | None]:
        """Return for each text its token count and every place's first and last token.

        `None` stands for a text that the model cannot read. Two texts of equal shape align.
        """
        if self.model is None:
            return [()] * len(written)
        new = {one.text: one for one in written if one.text not in self._shapes}
        for one, offsets in zip(new.values(), self._offsets(list(new)), strict=True):
            self._shapes[one.text] = None if offsets is None else _shape(one, offsets)
        return [self._shapes[one.text] for one in written]

    def first_tokens_differ(self, text: str, answers: Sequence[str], whole: bool = False) -> bool:
        """Return whether all answers begin with different tokens after a text.

        Args:
            text: the prompt.
            answers: the answers.
            whole: each must also be a single token.
        """
        if self.model is None:
            return True
        try:
            found = self.model.answer_tokens([text] * len(answers), list(answers), answer="full")
        except PromptError:
            return False
        if whole and any(len(ids) > 1 for ids in found):
            return False
        return len({ids[0] for ids in found}) == len(answers)

    def _offsets(self, texts: list[str]) -> list[Sequence[tuple[int, int]] | None]:
        assert self.model is not None
        if not texts:
            return []
        try:
            return list(self.model.tokenize(texts).offsets)
        except PromptError:
            if len(texts) == 1:
                return [None]
            return [self._offsets([text])[0] for text in texts]


def _shape(written: Written, offsets: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    shape = [len(offsets)]
    for _, start, end in written.places:
        covering = _covering(written.text, offsets, (start, end))
        shape += [covering[0], covering[-1]] if covering else [-1, -1]
    return tuple(shape)
