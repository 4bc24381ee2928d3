"""How the subject is corrupted: noise of a measured scale, or another subject in its place."""

import hashlib
from collections.abc import Mapping, Sequence
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
    if isinstance(reference, str) or not reference:
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


def _draw(seed: int, prompt: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\x1f{prompt}\x1f{name}".encode()).digest()
