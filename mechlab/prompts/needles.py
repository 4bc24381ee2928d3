"""Needle-in-a-haystack prompts: which needle, in which text, how long, how deep."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from random import Random
from typing import Any, Literal

from mechlab.errors import PromptError
from mechlab.prompts.drawing import check_count, check_seed, chosen, ordered, pick
from mechlab.prompts.haystacks import THEMES, bucket, haystack_text, until
from mechlab.prompts.kinds import Fact
from mechlab.prompts.needle_kind import NeedlePrompt
from mechlab.prompts.sets import PromptSet, as_prompt_set
from mechlab.prompts.words import NAMES, NOUNS, STEMS, filler

__all__ = ["NEEDLES", "NEEDLE_FORMS", "Needle", "closed_book", "needles"]

NeedleForm = Literal["text", "atlas", "key-value"]
NEEDLE_FORMS = ("text", "atlas", "key-value")
"""Wordings of needle prompts: book and question; what `atlas` reads; a list of keys and values."""

_QUESTION = "\n\nBased on the content of the book, Question: {}\nAnswer:"
_CHARACTERS = 10
"""Characters of haystack kept per token asked for: more than any tokenizer needs."""
_HELD_BACK = 30
"""Nouns that a haystack leaves to its needles, so that an answer stands nowhere else."""


@dataclass(frozen=True)
class Needle:
    """A sentence to hide, a question that it answers, and the words that answer it."""

    text: str
    """The sentence."""
    question: str
    """Asked at the end, in words of its own."""
    answer: str
    """The part of the sentence that answers; what heads copy."""
    name: str = ""
    """Short name, for tables and pictures."""


NEEDLES = (
    Needle(
        "The night watchman of the Brenwick lighthouse keeps a jar of pickled walnuts and a silver "
        "thimble under the third stair.",
        "What does the night watchman of the Brenwick lighthouse keep under the third stair?",
        "a jar of pickled walnuts and a silver thimble",
        "lighthouse",
    ),
    Needle(
        "Professor Tarrow found out that Velmoor moths gather only around lamps painted with green "
        "copper varnish.",
        "Around what do Velmoor moths gather?",
        "lamps painted with green copper varnish",
        "moths",
    ),
    Needle(
        "The winner of the Ostermark riding cup in 1871 was a grey donkey called Admiral Pudding.",
        "Who was the winner of the Ostermark riding cup in 1871?",
        "a grey donkey called Admiral Pudding",
        "riding cup",
    ),
    Needle(
        "To open the east gate of Castle Durnholt one has to whistle a lullaby twice and knock "
        "with a wooden spoon.",
        "What does one have to do to open the east gate of Castle Durnholt?",
        "whistle a lullaby twice and knock with a wooden spoon",
        "gate",
    ),
    Needle(
        "The favourite breakfast of the composer Livia Krantz is cold rhubarb with mustard and "
        "toasted almonds.",
        "What is the favourite breakfast of the composer Livia Krantz?",
        "cold rhubarb with mustard and toasted almonds",
        "breakfast",
    ),
    Needle(
        "Every spring the citizens of Quillhaven elect a blindfolded juggler to guard their "
        "municipal umbrella.",
        "Whom do the citizens of Quillhaven elect every spring?",
        "a blindfolded juggler to guard their municipal umbrella",
        "umbrella",
    ),
)
"""The built-in needles: nothing that anybody could know, in words that no built-in text has."""


def needles(
    lengths: Sequence[int] | int | None,
    depths: Sequence[float] | int = 10,
    *,
    form: NeedleForm = "text",
    count: int | None = None,
    needles: Sequence[Needle] | None = None,
    haystacks: Sequence[str] | None = None,
    seed: int = 0,
) -> PromptSet[NeedlePrompt]:
    """Build needle prompts: every needle at every length and depth.

    The published tests (Wu et al. 2024, arXiv 2404.15574) are 3 needles, each in a text of its
    own, at 20 lengths from 1,000 to 50,000 tokens and 10 depths. Prompts of one text form a
    `group`, for clustered intervals.

    Args:
        lengths: tokens of the whole prompt, as the model's own tokenizer counts them; `None` reads
            every haystack as a whole.
        depths: how many, spread evenly from 0 to 100 per cent and rounded; or a list in per cent.
        form: `text` is a narration, a needle of several words and "Based on the content of the
            book, Question: ..."; `atlas` is what the shipped model learned, a needle sentence in
            filler, asked for by its own words, its answer one noun, another needle in each cell;
            `key-value` is a list "key: value; ..." of nouns, one key of which is asked for.
        count: how many different texts, each with needles of its own; by default 3, or as many as
            there are `needles`.
        needles: needles of your own (`text` only), instead of the first `count` of `NEEDLES`.
        haystacks: texts of your own (`text` only): one, or one for each needle.
        seed: of the built-in texts, and of what is drawn for `atlas` and `key-value`.

    Raises:
        PromptError: a length, depth, count or form out of range, or needles and haystacks that do
            not belong together; all unusable needles at once.
    """
    chosen("form", [form], NEEDLE_FORMS)
    check_seed(seed)
    sizes, places = _lengths(lengths), _depths(depths)
    if form != "text":
        if needles is not None or haystacks is not None:
            raise PromptError(
                f"needles and haystacks of your own with form={form!r}, which draws both.\n"
                "  Allowed: with form='text'.\n  Leave one of them out."
            )
        number = check_count(3 if count is None else count, "texts", at_most=1000)
        made = _drawn(form, sizes, places, number, seed)
    else:
        made = _narrated(sizes, places, count, needles, haystacks, seed)
    return PromptSet(tuple(made), f"needles, {form}")


def closed_book(prompts: object) -> PromptSet[NeedlePrompt]:
    """Return the same questions with nothing to look up: no haystack, no needle.

    Args:
        prompts: needle prompts, or facts, whose prompts are the questions and whose targets the
            answers; a fact's answer ends with a full stop or a line feed.

    Raises:
        PromptError: for other kinds, or naming all facts without a target.
    """
    if getattr(prompts, "kind", "fact") == "needle":
        found = as_prompt_set(prompts, "needle")
        made = [_alone(p.question, p.answer, p.name, p.group, p.stop) for p in found]
        return PromptSet(tuple(made), f"{found.name}, closed book".lstrip(", "))
    facts = as_prompt_set(prompts, "fact")
    if empty := [f"#{i}" for i, fact in enumerate(facts) if not fact.target.strip()]:
        raise PromptError(
            f"{len(empty)} of {len(facts)} facts have no target: {', '.join(empty[:10])}.\n"
            "  A question needs an answer to be compared with.\n  Give them targets, or drop them."
        )
    made = [_alone(f.prompt, f.target, _name_of(f), None, ".\n") for f in facts]
    return PromptSet(tuple(made), f"{facts.name}, closed book".lstrip(", "))


def _alone(question: str, answer: str, name: str, group: str | None, stop: str) -> NeedlePrompt:
    label = f"{name or answer}, closed book"
    return NeedlePrompt("", "", question, answer, name=name, label=label, group=group, stop=stop)


def _name_of(fact: Fact) -> str:
    return fact.prompt if fact.label is None else fact.label


# ------------------------------------------------------------------------------------- the grid


def _lengths(lengths: object) -> tuple[int | None, ...]:
    if lengths is None:
        return (None,)
    given = (lengths,) if isinstance(lengths, int) else lengths
    found = [_plain(one) for one in given] if _is_list(given) else []  # type: ignore[attr-defined]
    if not found or (wrong := [one for one in found if type(one) is not int or one < 1]):
        raise PromptError(
            f"lengths={wrong if found else lengths!r:.80}.\n  Allowed: whole numbers of tokens "
            "from 1, or None for whole haystacks.\n  Give one or more of these."
        )
    return tuple(dict.fromkeys(found))


def _depths(depths: object) -> tuple[float, ...]:
    depths = _plain(depths)
    if type(depths) is int and 1 <= depths <= 101:
        if depths == 1:
            return (50.0,)
        return tuple(float(round(100 * place / (depths - 1))) for place in range(depths))
    found = [_plain(one) for one in depths] if _is_list(depths) else []  # type: ignore[attr-defined]
    right = [isinstance(d, int | float) and type(d) is not bool and 0 <= d <= 100 for d in found]
    if not found or not all(right):
        raise PromptError(
            f"depths={depths!r:.80}.\n  Allowed: how many, from 1 to 101, or a list of numbers "
            "from 0 to 100 per cent.\n  Give one of these."
        )
    return tuple(dict.fromkeys(float(depth) for depth in found))


def _is_list(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str)


def _plain(value: Any) -> Any:
    """Return a number of numpy's as Python's."""
    return value.item() if hasattr(value, "item") and not getattr(value, "shape", ()) else value


# ---------------------------------------------------------------------------------- form `text`


def _narrated(
    sizes: Sequence[int | None],
    places: Sequence[float],
    count: int | None,
    own: Sequence[Needle] | None,
    texts: Sequence[str] | None,
    seed: int,
) -> Iterator[NeedlePrompt]:
    hidden = _chosen_needles(count, own)
    if texts is not None and (
        isinstance(texts, str) or len(texts) not in (1, len(hidden)) or not all(texts)
    ):
        what = "one text" if isinstance(texts, str) else f"{len(texts)} texts"
        raise PromptError(
            f"haystacks={what} for {len(hidden)} needles.\n  Allowed: a list of one text for all, "
            "or of one for each needle, none of them empty.\n  Give as many as there are needles."
        )
    if texts is None and None in sizes:
        raise PromptError(
            "lengths=None reads whole haystacks, and the built-in ones have no end.\n"
            "  Allowed: with haystacks=... of your own.\n  Give lengths in tokens."
        )
    for index, needle in enumerate(hidden):
        for size in sizes:
            text = _text_of(index, size, texts, seed)
            for depth in places:
                yield NeedlePrompt(
                    text, needle.text, _QUESTION.format(needle.question), needle.answer, size,
                    depth, needle.name or needle.answer, group=_group(index, texts),
                )  # fmt: skip


def _chosen_needles(count: int | None, own: Sequence[Needle] | None) -> tuple[Needle, ...]:
    if own is None:
        return NEEDLES[: check_count(3 if count is None else count, "needles", len(NEEDLES))]
    found = (own,) if isinstance(own, Needle) else tuple(own)
    strange = [(i, n) for i, n in enumerate(found) if not isinstance(n, Needle)]
    if wrong := [f"#{i} ({type(n).__name__})" for i, n in strange]:
        raise PromptError(
            f"{len(wrong)} of {len(found)} needles are none: {', '.join(wrong[:10])}.\n"
            "  Allowed: ml.prompts.Needle(text, question, answer).\n  Make them of text."
        )
    check_count(len(found), "needles")
    return found[: check_count(len(found) if count is None else count, "needles", len(found))]


def _text_of(index: int, size: int | None, texts: Sequence[str] | None, seed: int) -> str:
    if texts is not None:
        return texts[index % len(texts)]
    theme, turn = THEMES[index % len(THEMES)], index // len(THEMES)
    return haystack_text(theme, _CHARACTERS * (size or 0), seed=seed + 1000 * turn)


def _group(index: int, texts: Sequence[str] | None) -> str:
    return f"text {index if texts is None else index % len(texts)}"


# ---------------------------------------------------------------- forms `atlas` and `key-value`


def _drawn(
    form: str, sizes: Sequence[int | None], places: Sequence[float], count: int, seed: int
) -> Iterator[NeedlePrompt]:
    if None in sizes:
        raise PromptError(
            f"lengths=None with form={form!r}, whose texts have no end.\n"
            "  Allowed: whole numbers of tokens.\n  Give lengths in tokens."
        )
    make = partial(_recall, seed) if form == "atlas" else partial(_look_up, seed)
    for index in range(count):
        for size in sizes:
            for depth in places:
                yield make(index, size or 0, depth)


def _recall(seed: int, index: int, size: int, depth: float) -> NeedlePrompt:
    """Return a needle sentence in filler, asked for by its own words."""
    cell = (seed, "atlas", index, size, depth)
    stem = pick(STEMS, *cell, "stem").format(pick(NAMES, *cell, "name"))
    noun = pick(_left_out(seed, index, "atlas"), *cell, "noun")
    return NeedlePrompt(
        _filler_text(seed, index, _CHARACTERS * size), f"{stem} {noun}.", stem, noun, size, depth,
        stem, group=f"text {index}", stop=".", ends=".", whole_sentences=True,
        answer_start=len(stem) + 1,
    )  # fmt: skip


def _look_up(seed: int, index: int, size: int, depth: float) -> NeedlePrompt:
    """Return a key-value pair in a list of them, asked for by its key."""
    cell = (seed, "key-value", index, size, depth)
    key = pick(_left_out(seed, index, "key"), *cell, "key")
    values = [noun for noun in _left_out(seed, index, "value") if noun != key]
    value = pick(values, *cell, "value")
    return NeedlePrompt(
        _list_text(seed, index, _CHARACTERS * size), f"{key}: {value};", f"{key}:", value, size,
        depth, key, group=f"text {index}", stop=";", ends=";", whole_sentences=True,
        answer_start=len(key) + 2,
    )  # fmt: skip


def _left_out(seed: int, index: int, what: str) -> list[str]:
    return ordered(NOUNS, seed, what, index)[:_HELD_BACK]


def _filler_text(seed: int, index: int, characters: int) -> str:
    return "".join(until(_filler_parts(seed, index, bucket(characters)), characters))


@lru_cache(maxsize=16)
def _filler_parts(seed: int, index: int, characters: int) -> tuple[str, ...]:
    return tuple(until(_filler_sentences(seed, index), characters))


def _filler_sentences(seed: int, index: int) -> Iterator[str]:
    """Yield different sentences without a noun that is left to the needles."""
    random = Random(f"{seed}:needle filler:{index}")
    barred = set(_left_out(seed, index, "atlas"))
    seen: set[str] = set()
    while True:
        sentence = filler(random)
        if sentence not in seen and not barred & set(re.findall(r"\w+", sentence.lower())):
            yield f" {sentence}" if seen else sentence
            seen.add(sentence)


def _list_text(seed: int, index: int, characters: int) -> str:
    """Return "key: value; ..." without a key twice: nouns first, then pairs of them."""
    return "".join(until(_list_parts(seed, index, bucket(characters)), characters))


@lru_cache(maxsize=16)
def _list_parts(seed: int, index: int, characters: int) -> tuple[str, ...]:
    barred = {*_left_out(seed, index, "key"), *_left_out(seed, index, "value")}
    nouns = [noun for noun in ordered(NOUNS, seed, "list", index) if noun not in barred]
    keys = chain(nouns, (f"{a} {b}" for a in nouns for b in nouns if a != b))
    pairs = (
        f"{' ' if place else ''}{key}: {pick(nouns, seed, 'listed', index, place)};"
        for place, key in enumerate(keys)
    )
    return tuple(until(pairs, characters))
