"""The same arguments give the same bytes in every version: stored results are keyed by them."""

from collections.abc import Callable

import pytest

from mechlab.prompts import PromptSet, arithmetic, conflicts, ioi, needles, one_to_many

MADE: dict[str, Callable[[], PromptSet]] = {
    "e75cf6b464677b11": lambda: conflicts(20, 3),
    "924caf6a04d69c51": lambda: conflicts(
        20, 3, relations=("language", "currency"), form="distractor"
    ),
    "3a7c3226cf3e94d0": lambda: ioi(20, 3),
    "92fbf1531ce03ed4": lambda: one_to_many(20, 3),
    "b54b6419957d48a6": lambda: one_to_many(
        20, 3, order="drawn", relation="language", form="numbered"
    ),
    "6c3027d77970bffc": lambda: arithmetic(20, 3),
    "03b79ba5f62c31dc": lambda: arithmetic(
        20, 3, operands=3, change="same_result", number_words=True
    ),
}

MADE |= {
    "39895af2091454ee": lambda: needles([100, 300], 3, seed=3),
    "5c1f136619669d1f": lambda: needles([100, 300], 3, form="atlas", seed=3),
    "fdd0117709ed9d87": lambda: needles([100, 300], 3, form="key-value", seed=3),
}


@pytest.mark.parametrize("digest", MADE)
def test_builders_give_the_bytes_they_always_gave(digest: str) -> None:
    assert MADE[digest]().digest[:16] == digest
