"""Workflows: what chains methods."""

from mechlab.workflows.edit_sweep import edit_sweep
from mechlab.workflows.requested import as_edit_cases
from mechlab.workflows.screening import screen_then_verify
from mechlab.workflows.swept import swept_edit

__all__ = ["as_edit_cases", "edit_sweep", "screen_then_verify", "swept_edit"]
