"""Retrieval heads: which heads copy from far back, and what is left without them."""

from mechlab.methods.retrieval.rankings import (
    compare_rankings,
    retrieval_heads,
    retrieval_histogram,
    retrieval_stability,
    retrieval_summary,
)
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
