"""The engine: many counterfactual runs, packed and resumed, equal to one run each."""

from mechlab.engine.activations import NextTokens, embed_texts, next_tokens
from mechlab.engine.rows import Base, Readings, Row
from mechlab.engine.run import run
from mechlab.engine.verify import (
    Check,
    Checks,
    EngineWarning,
    SiteStatus,
    require_proven,
    verify,
)

__all__ = [
    "Base",
    "Check",
    "Checks",
    "EngineWarning",
    "NextTokens",
    "Readings",
    "Row",
    "SiteStatus",
    "embed_texts",
    "next_tokens",
    "require_proven",
    "run",
    "verify",
]
