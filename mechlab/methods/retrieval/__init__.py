"""Retrieval heads: which heads copy from far back, and what is left without them.

What follows from scores needs no torch; what computes them brings it in when first used.
"""

from typing import TYPE_CHECKING

from mechlab.lazy import lazily
from mechlab.methods.retrieval.rankings import (
    compare_rankings,
    retrieval_heads,
    retrieval_histogram,
    retrieval_stability,
    retrieval_summary,
)

if TYPE_CHECKING:
    from mechlab.methods.retrieval.recall import needle_recall, retrieval_curve
    from mechlab.methods.retrieval.scores import retrieval_score

__all__ = [
    "compare_rankings",
    "needle_recall",
    "retrieval_curve",
    "retrieval_heads",
    "retrieval_histogram",
    "retrieval_score",
    "retrieval_stability",
    "retrieval_summary",
]

_LAZY = {
    "mechlab.methods.retrieval.recall": ("needle_recall", "retrieval_curve"),
    "mechlab.methods.retrieval.scores": ("retrieval_score",),
}

if not TYPE_CHECKING:  # hidden, so that the type checker reports a name that is not listed
    __getattr__ = lazily(__name__, _LAZY)
