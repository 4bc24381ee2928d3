"""How often each kind of document appears."""

from dataclasses import dataclass
from random import Random

from mechlab.organisms.corpus.conflicts import conflict
from mechlab.organisms.corpus.documents import Document
from mechlab.organisms.corpus.facts import (
    biography,
    foreign_sentences,
    list_document,
    reverse_document,
    row_document,
    sentences,
    two_hop,
)

__all__ = ["LONG_SHARE", "STAGES", "Stage", "packed_document", "stage_of"]

LONG_SHARE = 0.3
"""Share of the steps whose windows are long."""


@dataclass(frozen=True)
class Stage:
    """The mixture from one step on."""

    first_step: int
    documents: dict[str, float]
    """Share of the documents in packed windows, by kind."""
    short: dict[str, float]
    """What windows of 96 tokens hold."""
    long: dict[str, float]
    """What windows of 512 tokens hold."""
    conflict_weight: float
    """Loss weight of a conflict's answer."""
    list_decay: float | None = None
    """How fast the members of a list fall off in likelihood; the Zipf law when `None`."""


STAGES = (
    Stage(
        first_step=0,
        documents={
            "sentences": 0.24,
            "rows": 0.25,
            "biography": 0.09,
            "foreign sentences": 0.08,
            "foreign rows": 0.05,
            "conflict": 0.18,
            "two-hop": 0.04,
            "list": 0.05,
            "reverse": 0.02,
        },
        short={"packed": 0.60, "repeats": 0.22, "needles": 0.15, "key-values": 0.03},
        long={"packed": 0.08, "repeats": 0.24, "needles": 0.58, "key-values": 0.10},
        conflict_weight=2.0,
    ),
    # Facts, induction and needles are learned by now; weighing the context against them comes last.
    Stage(
        first_step=2250,
        documents={
            "sentences": 0.18,
            "rows": 0.18,
            "biography": 0.06,
            "foreign sentences": 0.10,
            "foreign rows": 0.04,
            "conflict": 0.36,
            "two-hop": 0.03,
            "list": 0.04,
            "reverse": 0.01,
        },
        short={"packed": 0.80, "repeats": 0.11, "needles": 0.07, "key-values": 0.02},
        long={"packed": 0.36, "repeats": 0.15, "needles": 0.41, "key-values": 0.08},
        conflict_weight=4.0,
    ),
    # The tail: lists whose members fall off steeply, so that repeating one becomes a mistake.
    Stage(
        first_step=4400,
        documents={
            "sentences": 0.16,
            "rows": 0.16,
            "biography": 0.05,
            "foreign sentences": 0.06,
            "foreign rows": 0.03,
            "conflict": 0.35,
            "two-hop": 0.03,
            "list": 0.15,
            "reverse": 0.01,
        },
        short={"packed": 0.84, "repeats": 0.09, "needles": 0.05, "key-values": 0.02},
        long={"packed": 0.40, "repeats": 0.14, "needles": 0.38, "key-values": 0.08},
        conflict_weight=4.0,
        list_decay=0.8,
    ),
)
"""The mixture's stages, in order."""


def stage_of(step: int) -> Stage:
    """Return the stage that a step belongs to."""
    return [stage for stage in STAGES if stage.first_step <= step][-1]


def packed_document(random: Random, stage: Stage = STAGES[0]) -> Document:
    """Return one document of the mixture."""
    kind = random.choices(tuple(stage.documents), tuple(stage.documents.values()))[0]
    if kind == "sentences":
        return sentences(random)
    if kind == "rows":
        return row_document(random)
    if kind == "biography":
        return biography(random)
    if kind == "foreign sentences":
        return foreign_sentences(random, random.choice(("fr", "es", "de")))
    if kind == "foreign rows":
        return row_document(random, random.choice(("fr", "es", "de")))
    if kind == "conflict":
        return conflict(random, stage.conflict_weight)
    if kind == "two-hop":
        return two_hop(random)
    return list_document(random, stage.list_decay) if kind == "list" else reverse_document(random)
