"""Indirect object identification: "When Mary and John went to the store, John gave a book to".

Task of Wang et al. 2022 (arXiv 2211.00593); templates, names, places and objects are our own.
`answer` is the indirect object (IO, the name that is not repeated), `wrong_answer` the subject (S).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mechlab.errors import PromptError
from mechlab.prompts.drawing import check_count, check_seed, chosen, pick, sample
from mechlab.prompts.kinds import PromptPair
from mechlab.prompts.places import Aligner, Tokenizes, Written, write
from mechlab.prompts.sets import PromptSet

__all__ = ["IOI_WORDS", "Corruption", "IoiWords", "ioi"]

Corruption = Literal["abc", "third", "swap"]


@dataclass(frozen=True)
class IoiWords:
    """What IOI prompts are made of."""

    templates: tuple[str, ...]
    """Texts with {a}, {b} (the two names, in order), {c} (the repeated one), and as they like
    {place} and {object}; they stop where the name would come."""
    names: tuple[str, ...]
    places: tuple[str, ...]
    objects: tuple[str, ...]
    """Objects, taken after "a" where they begin with a consonant and after "an" otherwise."""


IOI_WORDS = IoiWords(
    templates=(
        "When {a} and {b} went to the {place}, {c} gave a {object} to",
        "Then {a} and {b} met at the {place}, and {c} handed a {object} to",
        "After {a} and {b} left the {place}, {c} passed a {object} to",
        "While {a} and {b} waited at the {place}, {c} offered a {object} to",
        "Yesterday {a} and {b} walked to the {place}. There {c} sold a {object} to",
        "Last night {a} and {b} sat in the {place}. Later {c} showed a {object} to",
        "As {a} and {b} came home from the {place}, {c} lent a {object} to",
        "Once {a} and {b} had found the {place}, {c} brought a {object} to",
        "Because {a} and {b} worked together at the {place}, {c} sent a {object} to",
        "Friends since school, {a} and {b} went to the {place}, where {c} threw a {object} to",
        "The day {a} and {b} were at the {place}, {c} promised a {object} to",
        "Before {a} and {b} closed the {place}, {c} returned a {object} to",
    ),
    names=tuple(
        """
        Mary John Tom James Paul Mark Anna David Sarah Peter Alice Robert Susan Michael Laura George
        Kevin Rachel Daniel Emma Simon Jane Frank Julia Henry Lisa Martin Kate Brian Helen Adam Lucy
        Eric Grace Jack Amy Scott Maria Steven Linda Jason Diana Philip Nancy Andrew Ruth Charles
        Karen William Rose Thomas Victoria Richard Claire Joseph Sophie Samuel Eva Patrick Nicole
        """.split()
    ),
    places=tuple("store park school office station garden library hotel museum market".split()),
    objects=tuple("book ring ball drink letter key basket phone computer flower".split()),
)
"""Our own words; most names are single tokens for common tokenizers."""

ORDERS = ("BABA", "ABBA")
"""Which name comes second and is repeated: `ABBA` repeats the second one, `BABA` the first."""


def ioi(
    count: int = 64,
    seed: int = 0,
    *,
    corruption: Corruption = "abc",
    model: Tokenizes | None = None,
    words: IoiWords = IOI_WORDS,
) -> PromptSet[PromptPair]:
    """Return pairs of IOI prompts, half of which name the indirect object first.

    The same arguments give the same bytes, and a larger `count` begins with the same pairs. Each
    pair has the places `io`, `s1`, `s1_next` (the word after S1), `s2` in the clean prompt, and
    `end` as every prompt; at the same tokens of the corrupted prompt stand `a`, `b`, `c`. The group
    is the template with its order of names; `about` says `template`, `order`, `io` and `s`.

    Args:
        count: how many pairs.
        seed: which names, places, objects and templates.
        corruption: the corrupted prompt has three other names (`abc`, as in the paper: neither
            answer is there), a third name in place of S2 (`third`), or IO in place of S2 (`swap`:
            `wrong_answer` is right after it).
        model: the model that will read the prompts. With it, only names of one length in tokens are
            taken (one token where at least five are), so that clean and corrupted prompts align
            place by place, and the answers begin with different tokens.
        words: templates and names to use instead, such as those of `read_mib_ioi`.

    Raises:
        PromptError: an option outside its choices, or too few names that align on the model.
    """
    check_seed(seed)
    check_count(count, "IOI pairs")
    chosen("corruption", [corruption], get_args(Corruption))
    _check_words(words)
    aligner = Aligner(model)
    names = _aligned_names(words, aligner)
    pairs = [_pair(words, names, seed, index, corruption, aligner) for index in range(count)]
    return PromptSet(tuple(pairs), f"ioi ({corruption})")


def _pair(
    words: IoiWords,
    names: Sequence[str],
    seed: int,
    index: int,
    corruption: str,
    aligner: Aligner,
) -> PromptPair:
    for attempt in range(200):
        label = (seed, "ioi", index, attempt)
        number = pick(range(len(words.templates)), *label, "template")
        io, s, *three = sample(names, 5, *label)
        clean, corrupted = _texts(words, number, (io, s), three, index % 2, corruption, label)
        shapes = aligner.shapes([clean, corrupted])
        if None in shapes or shapes[0] != shapes[1]:
            continue
        if aligner.first_tokens_differ(clean.text, (io, s)):
            break
    else:
        raise PromptError(
            f"no pair #{index} aligns on this model after {attempt + 1} attempts.\n"
            "  Allowed: names, places and objects whose tokens do not depend on their neighbours.\n"
            "  Give other words=."
        )
    order = ORDERS[index % 2]
    return PromptPair(
        clean.text,
        corrupted.text,
        answer=io,
        wrong_answer=s,
        label=f"{io} not {s} (#{index}, {order} {number})",
        group=f"ioi {number} {order}",
        places=_named(clean, index % 2),
        corrupted_places=corrupted.places,
        about=(("template", number), ("order", order), ("io", io), ("s", s)),
    )


def _texts(
    words: IoiWords,
    number: int,
    names: tuple[str, str],
    three: Sequence[str],
    io_first: int,
    corruption: str,
    label: tuple[object, ...],
) -> tuple[Written, Written]:
    template = words.templates[number]
    vowel = " an {object}" in template
    objects = [o for o in words.objects if (o[0].lower() in "aeiou") == vowel] or words.objects
    thing = {
        "place": pick(words.places, *label, "place"),
        "object": pick(objects, *label, "object"),
    }
    io, s = names
    a, b = (io, s) if io_first else (s, io)
    clean = write(template, {"a": a, "b": b, "c": s, **thing})
    others = {
        "abc": dict(zip("abc", three, strict=True)),
        "third": {"a": a, "b": b, "c": three[0]},
        "swap": {"a": a, "b": b, "c": io},
    }[corruption]
    return clean, write(template, {**others, **thing})


def _named(clean: Written, io_first: int) -> tuple[tuple[str, int, int], ...]:
    """Return the places by the names of the task."""
    places = {name: (start, end) for name, start, end in clean.places}
    io, s1 = ("a", "b") if io_first else ("b", "a")
    end = places[s1][1]
    following = clean.text[end:].split()[0]
    start = clean.text.index(following, end)
    named = {
        "io": places[io],
        "s1": places[s1],
        "s1_next": (start, start + len(following)),
        "s2": places["c"],
    }
    rest = {name: span for name, span in places.items() if name not in "abc"}
    return tuple((name, *span) for name, span in (named | rest).items())


def _aligned_names(words: IoiWords, aligner: Aligner) -> list[str]:
    """Return names of one length in tokens: one token, or else the length that most have."""
    names = list(dict.fromkeys(words.names))
    if aligner.model is None:
        return names
    rest = {"place": words.places[0], "object": words.objects[0]}
    texts = [write(words.templates[0], {"a": n, "b": n, "c": n, **rest}) for n in names]
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, shape in zip(names, aligner.shapes(texts), strict=True):
        if shape is not None:
            by_shape.setdefault(shape, []).append(name)
    whole = [
        kept
        for shape, kept in by_shape.items()
        if len(kept) >= 5 and _single_token_name(texts[0], shape)
    ]
    best = whole[0] if whole else max(by_shape.values(), key=len, default=[])
    if len(best) < 5:
        raise PromptError(
            f"only {len(best)} of {len(names)} names have equally many tokens on this model.\n"
            "  Allowed: five or more, so that clean and corrupted prompts align.\n"
            "  Give names of its vocabulary with words=, or leave model= out."
        )
    return best


def _single_token_name(written: Written, shape: tuple[int, ...]) -> bool:
    spans = zip(written.places, shape[1::2], shape[2::2], strict=True)
    return all(first == last for (name, _, _), first, last in spans if name in "abc")


def _check_words(words: IoiWords) -> None:
    problems = [
        f"template {template!r} has {{{field}}} {template.count('{' + field + '}')} times"
        for template in words.templates
        for field in "abc"
        if template.count(f"{{{field}}}") != 1
    ]
    if len(set(words.names)) < 5:
        problems.append(f"{len(set(words.names))} different names")
    if not (words.templates and words.places and words.objects):
        problems.append("templates, places or objects are empty")
    if problems:
        raise PromptError(
            f"words of IOI prompts cannot be used: {'; '.join(problems)}.\n"
            "  Allowed: templates with {a}, {b} and {c} once each, five or more names, and at "
            "least one place and object.\n  Correct these."
        )
