"""Results: how a method describes itself, what its Dataset holds, and averages over it."""

from mechlab.results.averages import by_token_role, top_heads
from mechlab.results.dataset import (
    PROVENANCE,
    WORK,
    check_result,
    library_versions,
    new_result,
    plain_labels,
)
from mechlab.results.method import Method, analysis, method_of

__all__ = [
    "PROVENANCE",
    "WORK",
    "Method",
    "analysis",
    "by_token_role",
    "check_result",
    "library_versions",
    "method_of",
    "new_result",
    "plain_labels",
    "top_heads",
]
