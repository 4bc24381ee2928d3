"""Needle prompts as tokens of one model: haystack cut to length, needle placed, answer located.

1. The haystack is tokenised once; a cut is the end of one of its tokens, or of a sentence.
2. The needle is inserted at the last sentence end before the depth point, in characters.
3. The whole text is tokenised, and the cut moved until it has as many tokens as asked for.
4. The answer's tokens are those that share a character with it, in the offsets of the whole text:
   what merges at the borders of texts that were put together is counted as it is read.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mechlab.errors import OptionError, PromptError
from mechlab.models.encoding import Encoded, Encoder, make_encoder, shorten
from mechlab.models.spans import covering_tokens
from mechlab.prompts import NeedlePrompt, PromptSet

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Laid", "lay_out"]

_TRIES = 16
"""How often a cut is moved before the best so far is taken; once or twice is usual."""
_LIKELY = 6
"""Characters per token that are enough for most tokenizers; where not, all is tokenised."""
_MARGIN = 8
"""Tokens at the end of a haystack that was cut, which may be others than in the whole."""
_NEAR = 60
"""Characters around a border within which it changes how text falls into tokens."""


@dataclass(frozen=True)
class Laid:
    """One needle prompt in tokens.

    Attributes:
        tokens: what the model reads, beginning-of-sequence token included.
        answer: positions of the answer's tokens within the needle; none without a needle.
        needle: first position and end (excluded) of the whole needle, or `None`.
        text: the text of the tokens.
    """

    tokens: tuple[int, ...]
    answer: tuple[int, ...]
    needle: tuple[int, int] | None
    text: str

    @property
    def found(self) -> bool:
        """Whether there is a needle in it."""
        return self.needle is not None


def lay_out(model: "Model", prompts: PromptSet[NeedlePrompt], *, chat: bool = False) -> list[Laid]:
    """Lay prompts out in tokens.

    Args:
        model: whose tokenizer and context count.
        prompts: the prompts.
        chat: whether opening, haystack and question are put into the tokenizer's chat template, as
            one message of the user.

    Raises:
        OptionError: when a chat template is asked for that the tokenizer does not have.
        PromptError: naming all prompts whose haystack is too short, that do not fit into the length
            asked for or the context, or whose needle is not found after tokenisation.
    """
    bench = _Bench(_encoder(model), _template(model, chat))
    laid: list[Laid] = []
    problems: list[str] = []
    for index, prompt in enumerate(prompts):
        found = bench.laid(prompt)
        if isinstance(found, Laid):
            laid.append(found)
        else:
            problems.append(f"  #{index} {prompts.labels[index]!r:.60}: {found}")
    if problems:
        limit = "any length" if model.n_ctx is None else f"at most {model.n_ctx} tokens"
        raise PromptError(
            f"{len(problems)} of {len(prompts)} needle prompts cannot be laid out for "
            f"{model.name}:\n" + "\n".join(problems) + f"\n  Allowed: {limit}, all known to the "
            "tokenizer, from a haystack that is long enough.\n"
            "  Ask for other lengths, or change the texts; model.show_tokens(text) shows tokens."
        )
    return laid


@dataclass(frozen=True)
class _Draft:
    """A text, and where needle and answer are in it, in characters."""

    text: str
    needle: tuple[int, int] | None
    answer: tuple[int, int] | None


class _Bench:
    """Lays out one prompt after another; haystacks are tokenised once."""

    def __init__(self, encoder: Encoder, template: Callable[[str], str] | None) -> None:
        self._limited, self._encoder = encoder, encoder.unlimited()
        self._template = template
        self._words: list[int] = list(range(encoder.d_vocab))  # one object per id, however often
        self._ends: dict[tuple[str, int | None], tuple[int, ...]] = {}
        self._last: tuple[str, Encoded] | None = None
        self._sentences: dict[tuple[str, str], tuple[int, ...]] = {}

    def laid(self, prompt: NeedlePrompt) -> Laid | str:
        """Return the layout, or what is wrong."""
        cuts = self._cuts(prompt)
        if prompt.length is None:
            return self._located(prompt, len(cuts))
        guess = self._searched(prompt, len(cuts), self._estimate, prompt.length)[0]
        best, counts = self._searched(prompt, len(cuts), self._count, guess)
        if counts[best] > prompt.length:
            return (
                f"needle and question alone take {min(counts.values())} tokens of the "
                f"{prompt.length} asked for"
            )
        if best == len(cuts) and counts[best] < prompt.length:
            return f"the haystack gives {counts[best]} tokens of the {prompt.length} asked for"
        return self._located(prompt, best)

    def _searched(
        self,
        prompt: NeedlePrompt,
        most: int,
        count: Callable[[NeedlePrompt, int], int],
        first: int,
    ) -> tuple[int, dict[int, int]]:
        """Return how many tokens of the haystack fill the prompt best, and all counts made.

        The best is the longest prompt that is not too long; with none, the shortest.
        """
        length = prompt.length or 0
        counts: dict[int, int] = {}
        wanted = min(most, first)
        while len(counts) < _TRIES and wanted not in counts:
            counts[wanted] = count(prompt, wanted)
            wanted = min(most, max(0, wanted + length - counts[wanted]))
        while min(counts.values()) > length and (fewer := min(counts) - 1) >= 0:
            counts[fewer] = count(prompt, fewer)
        fitting = [n for n in counts if counts[n] <= length] or [min(counts)]
        return max(fitting, key=lambda n: (counts[n], -n)), counts

    def _cuts(self, prompt: NeedlePrompt) -> tuple[int, ...]:
        """Return the characters at which each token of the haystack ends, enough for the length."""
        key = (prompt.haystack, prompt.length)
        if key not in self._ends:
            some = len(prompt.haystack) if prompt.length is None else _LIKELY * prompt.length
            ends = self._ends_of_tokens(prompt.haystack[:some])
            if prompt.length is not None and len(ends) < prompt.length + _MARGIN:
                ends = self._ends_of_tokens(prompt.haystack)
            self._ends = {key: ends}
        return self._ends[key]

    def _ends_of_tokens(self, haystack: str) -> tuple[int, ...]:
        if not haystack.strip():
            return ()
        row = self._encoder.encode_unchecked([haystack])[0]
        return tuple(sorted({end for _, end in row.offsets if end}))

    def _count(self, prompt: NeedlePrompt, tokens: int) -> int:
        """Return the number of tokens of the prompt with so many tokens of the haystack."""
        return len(self._read(self._draft(prompt, tokens)[0].text).ids)

    def _estimate(self, prompt: NeedlePrompt, tokens: int) -> int:
        """Return about the same without tokenising the whole: only what is near the borders."""
        _, kept, place = self._draft(prompt, tokens)
        cuts = self._cuts(prompt)
        before, behind = kept[max(0, place - _NEAR) : place], kept[place : place + _NEAR]
        last = kept[-_NEAR:]
        near = [
            _written(replace(prompt, opening="", question="."), before + behind, len(before)).text,
            f"{before}{behind} .",
            _joined(last, prompt.question),
            last,
            prompt.opening,
        ]
        inside, bare, end, rest, front = (
            len(row.ids) for row in self._encoder.encode_unchecked(near)
        )
        return bisect_right(cuts, len(kept)) + (inside - bare) + (end - rest) + front

    def _read(self, text: str) -> Encoded:
        """Return a text in tokens; the last one is kept, as it is often asked for again."""
        if self._last is None or self._last[0] != text:
            self._last = (text, self._encoder.encode_unchecked([text])[0])
        return self._last[1]

    def _draft(self, prompt: NeedlePrompt, tokens: int) -> tuple[_Draft, str, int]:
        """Return the text with so many tokens of the haystack, these, and the needle's place."""
        cuts, ends = self._cuts(prompt), self._sentence_ends(prompt)
        cut = cuts[tokens - 1] if tokens else 0
        if prompt.whole_sentences and cut < len(prompt.haystack.rstrip()):
            cut = max((end for end in ends if end <= cut), default=0)
        kept = prompt.haystack[:cut].rstrip()
        tokens_before = round(bisect_right(cuts, len(kept)) * prompt.depth / 100)
        point = cuts[tokens_before - 1] if tokens_before else 0
        place = _insertion(prompt.depth, kept, ends, point)
        return self._wrapped(_written(prompt, kept, place)), kept, place

    def _sentence_ends(self, prompt: NeedlePrompt) -> tuple[int, ...]:
        key = (prompt.haystack, prompt.ends)
        if key not in self._sentences:
            self._sentences = {key: _sentence_ends(*key)}
        return self._sentences[key]

    def _wrapped(self, draft: _Draft) -> _Draft:
        """Return the draft within the chat template, if one was asked for."""
        if self._template is None:
            return draft
        body = draft.text.strip()
        whole = self._template(body)
        shift = whole.find(body) - (len(draft.text) - len(draft.text.lstrip()))

        def moved(span: tuple[int, int] | None) -> tuple[int, int] | None:
            return None if span is None else (span[0] + shift, span[1] + shift)

        return _Draft(whole, moved(draft.needle), moved(draft.answer))

    def _located(self, prompt: NeedlePrompt, tokens: int) -> Laid | str:
        """Tokenise the final text, and find needle and answer in it."""
        draft, _, _ = self._draft(prompt, tokens)
        row = self._read(draft.text)
        if complaint := self._limited.complaint(draft.text, row):
            return f"{shorten(draft.text)} {complaint}"
        answer = _covering(row.offsets, draft.answer, draft.text)
        needle = _covering(row.offsets, draft.needle, draft.text)
        if draft.answer is not None and (not answer or not needle):
            return f"the needle is not found after tokenisation: {prompt.answer!r:.60}"
        room = None if self._limited.n_ctx is None else self._limited.n_ctx - len(row.ids)
        if room is not None and room < (needed := len(answer) or 1):
            return (
                f"{len(row.ids)} tokens leave no room for an answer of {needed} in a context of "
                f"{self._limited.n_ctx}"
            )
        ids = tuple(map(self._words.__getitem__, row.ids))
        span = (needle[0], needle[-1] + 1) if needle else None
        return Laid(ids, answer, span, draft.text)


def _written(prompt: NeedlePrompt, kept: str, place: int) -> _Draft:
    """Put the parts together, with one space between those that bring no white space."""
    text = prompt.opening
    before = kept[:place] if not prompt.needle else kept[:place].rstrip()
    text = _joined(text, before)
    needle = answer = None
    if span := prompt.answer_span:
        text = _joined(text, prompt.needle)
        start = len(text) - len(prompt.needle)
        needle = (start, len(text))
        answer = (start + span[0], start + span[1])
    text = _joined(text, kept[place:]) if prompt.needle else text + kept[place:]
    return _Draft(_joined(text, prompt.question), needle, answer)


def _joined(front: str, back: str) -> str:
    if not front or not back or front[-1].isspace() or back[0].isspace():
        return front + back
    return f"{front} {back}"


def _insertion(depth: float, kept: str, ends: Sequence[int], point: int) -> int:
    """Return the character at which the needle goes in: the last sentence end not behind it."""
    if depth == 100:
        return len(kept)
    return max((end for end in ends if end <= min(point, len(kept))), default=0)


def _sentence_ends(text: str, marks: str) -> tuple[int, ...]:
    """Return the characters behind each sentence: an end mark, closing quotes, then white space."""
    if not marks:
        return ()
    pattern = rf"[{re.escape(marks)}]+[\"'”’)\]]*(?=\s|$)"
    return tuple(match.end() for match in re.finditer(pattern, text))


def _covering(
    offsets: Sequence[tuple[int, int]], span: tuple[int, int] | None, text: str
) -> tuple[int, ...]:
    """Return the positions of all tokens that share a visible character with a span."""
    if span is None:
        return ()
    start, end = span
    words = text[start:end]
    bare = (end - len(words.lstrip()), start + len(words.rstrip()))
    found = covering_tokens(offsets, bare)
    return () if found is None else tuple(range(found[0], found[1] + 1))


def _encoder(model: "Model") -> Encoder:
    return make_encoder(
        model.tokenizer, prepend_bos=model.prepend_bos, n_ctx=model.n_ctx, d_vocab=model.d_vocab
    )


def _template(model: "Model", chat: object) -> Callable[[str], str] | None:
    """Return what puts a message into the chat template.

    Raises:
        OptionError: `chat` is no truth value, or the tokenizer has no template.
    """
    if not isinstance(chat, bool):
        raise OptionError(f"chat={chat!r}. Allowed: True, False. Choose one of these.")
    if not chat:
        return None
    tokenizer: Any = model.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        raise OptionError(
            f"chat=True, but the tokenizer of {model.name} has no chat template. Allowed: False. "
            "Leave chat out, or set tokenizer.chat_template."
        )

    def wrap(body: str) -> str:
        message = [{"role": "user", "content": body}]
        text = str(
            tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        )
        front = tokenizer.bos_token if model.prepend_bos else None
        text = text.removeprefix(front) if front else text
        if body not in text:
            raise OptionError(
                f"the chat template of {model.name} changes the text of the message. Allowed: "
                "templates that keep it. Leave chat out."
            )
        return text

    return wrap
