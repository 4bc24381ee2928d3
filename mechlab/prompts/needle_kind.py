"""The kind `needle`: a fact hidden in a long text, and a question that only the text answers."""

import hashlib
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from numbers import Real
from typing import ClassVar

from mechlab.errors import PromptError

__all__ = ["NeedlePrompt"]

_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class NeedlePrompt:
    """One cell of a needle-in-a-haystack test, as text.

    The model reads `opening`, the haystack with the needle in it, and the question. How much of the
    haystack is read follows from `length` and the model's tokenizer; the needle stands behind the
    last whole sentence before `depth` per cent of that.

    A prompt without a needle (`needle=""`) is a control: nothing can be copied and no head is
    scored on it, but what the model answers is. With `haystack=""` as well it is closed-book.
    """

    kind: ClassVar[str] = "needle"

    haystack: str
    """Text that has nothing to do with the question, longer than will be read."""
    needle: str
    """The sentence to be found, or nothing for a control."""
    question: str
    """What the model reads last; the answer comes right after it."""
    answer: str
    """The words of the needle that answer the question: what heads copy, and what is recalled."""
    length: int | None = None
    """Tokens of the whole prompt, never exceeded; `None` reads the whole haystack."""
    depth: float = 50.0
    """Where the needle stands, in per cent of the haystack read: 0 its beginning, 100 its end."""
    name: str = ""
    """Name of the needle, its coordinate in results; by default the answer."""
    label: str | None = None
    """Name in results; by default made of name, length and depth."""
    group: str | None = None
    """Which prompts are not independent of this one: those with the same haystack, say."""
    opening: str = ""
    """Text in front of the haystack, such as an instruction."""
    stop: str = "\n"
    """Generation ends at the first token that holds one of these characters."""
    ends: str = ".!?"
    """Characters that end a sentence of the haystack, if white space follows."""
    whole_sentences: bool = False
    """Whether the haystack is cut after a sentence, at the price of a prompt somewhat shorter than
    `length`; otherwise at the very token."""
    answer_start: int | None = None
    """Character of the needle at which the answer starts; by default its first occurrence."""

    def __post_init__(self) -> None:
        """Check the text.

        Raises:
            PromptError: naming all that is wrong: an empty question or answer, an answer that is
                not in the needle or holds no word, a length or depth out of range.
        """
        if problems := [*_wrong_text(self), *_wrong_numbers(self)] or _wrong_answer(self):
            raise PromptError(
                f"NeedlePrompt {self.name or self.answer!r:.60} cannot be made: "
                f"{'; '.join(problems)}.\n  The answer is written exactly as in the needle; "
                "lengths count tokens from 1, depths go from 0 to 100 per cent.\n"
                "  Correct the fields named."
            )

    @property
    def answer_span(self) -> tuple[int, int] | None:
        """Characters of the answer in the needle, end excluded; `None` without a needle."""
        if not self.needle:
            return None
        start = self.answer_start
        start = self.needle.index(self.answer) if start is None else start
        return start, start + len(self.answer)

    @property
    def needle_name(self) -> str:
        """The coordinate `needle` of results."""
        return self.name or self.answer.strip()

    @property
    def text(self) -> str:
        """The default label: name, length and depth."""
        length = "whole text" if self.length is None else f"{self.length} tokens"
        where = f"depth {self.depth:g} %" if self.needle else "no needle"
        return f"{self.needle_name}, {length}, {where}"

    def to_json(self) -> dict[str, object]:
        """Return every field and the kind, the haystack by its sha256."""
        held = {name: value for name, value in asdict(self).items() if name != "haystack"}
        return {"kind": self.kind, "haystack": _sha256(self.haystack), **held}


@lru_cache(maxsize=256)
def _sha256(text: str) -> str:
    """Return the digest of a text; prompts share haystacks, and these are long."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _wrong_text(prompt: NeedlePrompt) -> list[str]:
    texts = ("haystack", "needle", "question", "answer", "name", "opening", "stop", "ends")
    problems = []
    for name in texts:
        value = getattr(prompt, name)
        if not isinstance(value, str):
            problems.append(f"{name} is {type(value).__name__} {value!r:.60}, not text")
        elif _HALF.search(value):
            problems.append(f"{name} holds half a surrogate pair, which is not valid Unicode")
        elif name in ("question", "answer") and not value.strip():
            problems.append(f"{name} is empty ({value!r:.20})")
        elif name == "answer" and not any(character.isalnum() for character in value):
            problems.append(f"answer {value!r:.20} holds no word")
        elif name == "needle" and value and not value.strip():
            problems.append("needle is blank; a control has none at all ('')")
    for name in ("label", "group"):
        value = getattr(prompt, name)
        if value is not None and not (isinstance(value, str) and value.strip()):
            problems.append(f"{name} is {value!r:.60}, neither text nor None")
    return problems


def _wrong_numbers(prompt: NeedlePrompt) -> list[str]:
    problems = []
    for name in ("length", "answer_start"):
        value, least = getattr(prompt, name), 1 if name == "length" else 0
        if value is not None and (type(value) is not int or value < least):
            problems.append(f"{name} is {value!r:.40}, not a whole number from {least}")
    depth = prompt.depth
    if not isinstance(depth, Real) or isinstance(depth, bool) or not 0 <= depth <= 100:
        problems.append(f"depth is {depth!r:.40}, not a number from 0 to 100")
    if not isinstance(prompt.whole_sentences, bool):
        problems.append(f"whole_sentences is {prompt.whole_sentences!r:.40}, not True or False")
    return problems


def _wrong_answer(prompt: NeedlePrompt) -> list[str]:
    if not prompt.needle:
        return [] if prompt.answer_start is None else ["answer_start is given without a needle"]
    if prompt.answer_start is None:
        found = prompt.answer in prompt.needle
        return [] if found else [f"answer {prompt.answer!r:.60} is not in the needle"]
    read = prompt.needle[prompt.answer_start :][: len(prompt.answer)]
    same = read == prompt.answer
    return [] if same else [f"answer_start={prompt.answer_start} reads {read!r:.60} in the needle"]
