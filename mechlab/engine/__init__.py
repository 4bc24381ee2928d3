"""The engine: many counterfactual runs, packed and resumed, equal to one run each."""

from mechlab.engine.activations import (
    NextTokens,
    Recording,
    embed_texts,
    next_tokens,
    record,
)
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
    "Recording",
    "Row",
    "SiteStatus",
    "embed_texts",
    "next_tokens",
    "record",
    "require_proven",
    "run",
    "verify",
]
