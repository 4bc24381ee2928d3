"""Workflows: what chains methods."""

from mechlab.workflows.agreement import trace_edit_agreement
from mechlab.workflows.batches import batch_edits
from mechlab.workflows.group_ablation import memory_ablation
from mechlab.workflows.heads_as_memory import memory_heads
from mechlab.workflows.layer_edits import edit_sweep
from mechlab.workflows.localize import localize_edit_verify
from mechlab.workflows.requested import as_edit_cases
from mechlab.workflows.screening import screen_then_verify
from mechlab.workflows.sequence import sequential_edits
from mechlab.workflows.swept import swept_edit

__all__ = [
    "as_edit_cases",
    "batch_edits",
    "edit_sweep",
    "localize_edit_verify",
    "memory_ablation",
    "memory_heads",
    "screen_then_verify",
    "sequential_edits",
    "swept_edit",
    "trace_edit_agreement",
]
