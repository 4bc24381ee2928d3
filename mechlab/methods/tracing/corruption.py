"""How the subject is corrupted: noise of a measured scale, or another subject in its place."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from mechlab.canonical import digest
from mechlab.engine import Base, embed_texts
from mechlab.errors import OptionError, PromptError
from mechlab.hooks import AddNoise, Site
from mechlab.prompts import Fact, countries

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = [
    "check_interchange",
    "interchanged_facts",
    "noised_bases",
    "reference_subjects",
    "subject_embedding_std",
]

_MEASURED: dict[tuple[str, str], float] = {}


def subject_embedding_std(model: "Model", reference: str | Sequence[str] = "countries") -> float:
    """Return the standard deviation of the embeddings of a set of subjects (Meng et al., app. B.1).

    One number over all entries of all tokens, each subject tokenised alone, without a leading space
    and without a beginning-of-sequence token, measured where the noise is added.

    Args:
        model: the model.
        reference: `"countries"`, the built-in table, or a list of names.

    Raises:
        OptionError: for an unknown or empty reference set.
        PromptError: for names that cannot be tokenised.
    """
    subjects = reference_subjects(reference)
    key = (model.fingerprint, digest(list(subjects)))
    if key not in _MEASURED:
        entries = torch.cat([part.reshape(-1) for part in embed_texts(model, subjects)])
        _MEASURED[key] = float(entries.double().std())
    return _MEASURED[key]


def reference_subjects(reference: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names in a reference set.

    Raises:
        OptionError: for an unknown or empty set.
    """
    if reference == "countries":
        return tuple(country.name for country in countries())
    if not _are_names(reference):
        raise OptionError(
            f"reference={reference!r} is not a set of subjects. Allowed: 'countries' (the built-in "
            "table) or a list of names. Pass a list, or noise_std=... for an absolute scale."
        )
    return tuple(reference)


def noised_bases(
    fact: Fact, first: int, last: int, *, std: float, samples: int, seed: int
) -> list[Base]:
    """Return the corrupted runs of a fact: noise on its subject's embeddings, one draw each."""
    if std == 0:  # the clean run again, which makes every effect exactly zero
        return [Base(fact.prompt, (), f"corrupted {draw}") for draw in range(samples)]
    return [
        Base(
            fact.prompt,
            (AddNoise(Site("embed"), first, last, std, seed, draw),),
            f"corrupted {draw}",
        )
        for draw in range(samples)
    ]


def check_interchange(
    model: "Model",
    facts: Iterable[Fact],
    spans: Iterable[tuple[int, int]],
    *,
    samples: int,
    seed: int,
    reference: str | Sequence[str],
    other_subjects: Mapping[str, Sequence[str]] | None,
) -> None:
    """Make and tokenise the corrupted prompts of all facts, before any forward pass.

    Args:
        model: the model.
        facts: the facts.
        spans: first and last position of each fact's subject.
        samples: other subjects per fact.
        seed: decides the draw.
        reference: names to draw from.
        other_subjects: names to use instead, per subject.

    Raises:
        OptionError: when `other_subjects` is not a list of names per subject.
        PromptError: for a fact with too few other subjects; for prompts that cannot be tokenised,
            or in which the tokens around the subject change.
    """
    if other_subjects is not None and not (
        isinstance(other_subjects, Mapping) and all(map(_are_names, other_subjects.values()))
    ):
        raise OptionError(
            f"other_subjects={other_subjects!r:.80} is not a list of names per subject. "
            "Allowed: a mapping such as {'France': ['Spain', 'Italy']}. Write one list per subject."
        )
    changed = [
        (fact, span, other)
        for fact, span in zip(facts, spans, strict=True)
        for other in interchanged_facts(
            fact, samples=samples, seed=seed, reference=reference, other_subjects=other_subjects
        )
    ]
    model.tokenize([other.prompt for _, _, other in changed])
    wrong = [
        (fact, other)
        for fact, span, other in changed
        if _around(model, fact, span) != _around(model, other, model.subject_positions(other))
    ]
    if wrong:
        listed = "\n".join(f"  {a.prompt!r:.60} -> {b.prompt!r:.60}" for a, b in wrong[:10])
        raise PromptError(
            f"interchange: in {len(wrong)} of {len(changed)} prompts the other subject changes the "
            f"tokens around it, so that positions have no counterpart:\n{listed}\n"
            "  Allowed: subjects that begin and end where a token does. Name whole words as the "
            "subject, or give other_subjects that keep the tokens around it."
        )


def _around(model: "Model", fact: Fact, span: tuple[int, int]) -> tuple[list[str], list[str]]:
    """Return the tokens before and after a fact's subject."""
    first, last = span
    tokens = model.token_strings(fact.prompt)
    return tokens[:first], tokens[last + 1 :]


def interchanged_facts(
    fact: Fact,
    *,
    samples: int,
    seed: int,
    reference: str | Sequence[str],
    other_subjects: Mapping[str, Sequence[str]] | None,
) -> list[Fact]:
    """Return the fact with other subjects in its subject's place (Sen Sharma et al. 2024).

    Args:
        fact: the fact.
        samples: how many.
        seed: decides the draw, together with the fact; never the other facts.
        reference: names to draw from.
        other_subjects: names to use instead, per subject.

    Raises:
        PromptError: when fewer than `samples` other subjects are there.
    """
    given = None if other_subjects is None else other_subjects.get(fact.subject)
    names = given if given is not None else reference_subjects(reference)
    others = [name for name in dict.fromkeys(names) if name != fact.subject]
    if given is None:
        others.sort(key=lambda name: _draw(seed, fact.prompt, name))
    if len(others) < samples:
        raise PromptError(
            f"interchange of {fact.subject!r}: {samples} other subjects are needed, {len(others)} "
            "are there. Allowed: samples up to their number. Lower samples or give more names."
        )
    start, end = fact.subject_span
    return [
        replace(
            fact,
            prompt=fact.prompt[:start] + name + fact.prompt[end:],
            subject=name,
            subject_start=start,
        )
        for name in others[:samples]
    ]


def _are_names(names: object) -> bool:
    return (
        isinstance(names, Sequence)
        and not isinstance(names, str)
        and bool(names)
        and all(isinstance(name, str) and name.strip() for name in names)
    )


def _draw(seed: int, prompt: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\x1f{prompt}\x1f{name}".encode()).digest()
