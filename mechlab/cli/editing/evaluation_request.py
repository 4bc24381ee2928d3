"""What `mechlab edit-eval` is asked for, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechlab.cli.editing.plan import EditPlan
    from mechlab.prompts import PromptSet

__all__ = ["EvaluationWork"]


@dataclass(frozen=True)
class EvaluationWork:
    """Which edits to evaluate on what, as plain data; nothing is loaded yet."""

    model: Mapping[str, Any]
    """Arguments of `load_model`."""
    cases: "PromptSet[Any] | None"
    """What is edited and looked at; `None` for the requests of `load`."""
    plan: "EditPlan"
    """How edits are made."""
    load: Path | None = None
    """A saved edit instead."""
    together: bool = False
    """Whether all edits are in force at once."""
    protocol: str | None = None
    """What counts as a success; `None`: by what the cases name."""
    generation_length: int = 0
    """Tokens of generated texts."""
    drift: int = 0
    """Held-out texts."""
