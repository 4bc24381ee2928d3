"""The engine: many counterfactual runs, packed and resumed, equal to one run each."""

from mechlab.engine.rows import Base, Readings, Row
from mechlab.engine.run import run
from mechlab.engine.verify import Check, Checks, EngineWarning, SiteStatus, verify

__all__ = [
    "Base",
    "Check",
    "Checks",
    "EngineWarning",
    "Readings",
    "Row",
    "SiteStatus",
    "run",
    "verify",
]
