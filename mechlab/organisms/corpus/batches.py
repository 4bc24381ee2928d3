"""Batches as a pure function of (seed, step): token windows, loss weights and exposures."""

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from mechlab.organisms.corpus.documents import Cell, Document
from mechlab.organisms.corpus.mixture import LONG_SHARE, Stage, packed_document, stage_of
from mechlab.organisms.corpus.retrieval import haystack, key_values, repeated_tokens
from mechlab.organisms.tokenizing import SPECIAL_TOKENS
from mechlab.prompts.countries import RELATIONS, countries

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["LONG", "SHORT", "Batch", "batch", "documents"]

SHORT = (48, 96)
"""Windows and predicted tokens per window of a short step."""

LONG = (9, 512)
"""The same for a long step."""


HAYSTACK = 4.7
"""Characters of filler per token of the window, at most, less 60 tokens for the questions."""


@dataclass(frozen=True)
class Batch:
    """One step's data."""

    tokens: np.ndarray
    """Token ids [batch, pos + 1]."""
    weights: np.ndarray
    """Loss weight of predicting `tokens[:, 1:]`, float32 [batch, pos]."""
    exposures: np.ndarray
    """How often each fact was stated truly, int32 [country, relation]."""


@dataclass
class _Encoded:
    ids: list[int]
    weights: list[float]
    cells: tuple[Cell, ...]


def batch(seed: int, step: int, tokenizer: "Tokenizer") -> Batch:
    """Return the batch of a step; the same arguments give the same bytes."""
    random = Random(f"{seed}:{step}")
    rows, length = LONG if random.random() < LONG_SHARE else SHORT
    stage = stage_of(step)
    plan = [_row(random, stage, length, tokenizer.get_vocab_size()) for _ in range(rows)]
    encoded = _encode([document for row in plan for document in row], tokenizer)
    tokens = np.zeros((rows, length + 1), dtype=np.int64)
    weights = np.zeros((rows, length + 1), dtype=np.float32)
    exposures = np.zeros((len(countries()), len(RELATIONS)), dtype=np.int32)
    for index, row in enumerate(plan):
        filled = 0
        for _ in row:
            item = next(encoded)
            part = len(item.ids[: length + 1 - filled])
            tokens[index, filled : filled + part] = item.ids[:part]
            weights[index, filled : filled + part] = item.weights[:part]
            filled += part
            if part == len(item.ids):
                for cell in item.cells:
                    exposures[cell] += 1
        if filled < length + 1:
            raise AssertionError(f"window {index} of step {step} holds {filled} tokens only")
    return Batch(tokens, weights[:, 1:], exposures)


def documents(seed: int, step: int, vocabulary: int) -> list[Document]:
    """Return the documents of a step before they are cut into windows (for checks and counts)."""
    random = Random(f"{seed}:{step}")
    rows, length = LONG if random.random() < LONG_SHARE else SHORT
    stage = stage_of(step)
    return [d for _ in range(rows) for d in _row(random, stage, length, vocabulary)]


def _row(random: Random, stage: Stage, length: int, vocabulary: int) -> list[Document]:
    """Return documents that fill one window and a little more; what sticks out is cut off."""
    shares = stage.long if length > 100 else stage.short
    kind = random.choices(tuple(shares), tuple(shares.values()))[0]
    row: list[Document] = []
    if kind == "repeats":
        row = _repeats(random, length, range(len(SPECIAL_TOKENS), vocabulary))
    elif kind == "needles":
        # Long ones are more frequent than short ones; questions need some room at the end.
        row = [haystack(random, 40 + int(HAYSTACK * (length - 60) * random.random() ** 0.6))]
    elif kind == "key-values":
        row = [key_values(random, random.randint(3, length // 10))]
    guessed = sum(len(d.ids) or len(d.text) // 5 for d in row)
    while guessed < 1.35 * length + 20:
        row.append(packed_document(random, stage))
        guessed += 1 + len(row[-1].text) // 5
    return row


def _repeats(random: Random, length: int, vocabulary: range) -> list[Document]:
    """Return repeated sequences that fit into the window, with whole copies only."""
    room, row = length, []
    while room > 30:
        copies = random.choice((2, 2, 3, 4))
        longest = min(60, (room - 1) // copies)
        if longest < 10:
            break
        row.append(repeated_tokens(random, vocabulary, random.randint(10, longest), copies))
        room -= len(row[-1].ids) + 1
    return row


def _encode(pieces: list[Document], tokenizer: "Tokenizer"):  # type: ignore[no-untyped-def]
    """Yield every document with its BOS token and one weight per token."""
    texts = [document.text for document in pieces if not document.ids]
    found = iter(tokenizer.encode_batch(texts, add_special_tokens=False))
    for document in pieces:
        if document.ids:
            weights = [0.0] * document.unscored + [1.0] * (len(document.ids) - document.unscored)
            yield _Encoded([0, *document.ids], [0.0, *weights], ())
            continue
        encoding = next(found)
        weights = [document.weight] * len(encoding.ids)
        if document.spans:
            weights = _weights(document, encoding.offsets)
        yield _Encoded([0, *encoding.ids], [0.0, *weights], document.cells)


def _weights(document: Document, offsets: list[tuple[int, int]]) -> list[float]:
    """Return each token's weight: that of the span in which the token ends."""
    by_character = np.full(len(document.text) + 1, document.weight, dtype=np.float32)
    for start, end, weight in document.spans:
        by_character[start:end] = weight
    return [float(by_character[end - 1]) for _, end in offsets]
