"""Rank-one model editing: ROME, R-ROME, MEMIT, and edits as values that can be undone."""

from mechlab.methods.editing.counting import key_statistics
from mechlab.methods.editing.deltas import Delta, DenseDelta
from mechlab.methods.editing.edits import Edit
from mechlab.methods.editing.exporting import export
from mechlab.methods.editing.fine_tuning import fine_tune_edit
from mechlab.methods.editing.keeping import stored_key_statistics
from mechlab.methods.editing.memit import memit
from mechlab.methods.editing.moments import KeyStatistics, RankDeficientWarning
from mechlab.methods.editing.rank_one import rank_one_edit
from mechlab.methods.editing.settings import edit_settings
from mechlab.methods.editing.variants import as_variant

__all__ = [
    "Delta",
    "DenseDelta",
    "Edit",
    "KeyStatistics",
    "RankDeficientWarning",
    "as_variant",
    "edit_settings",
    "export",
    "fine_tune_edit",
    "key_statistics",
    "memit",
    "rank_one_edit",
    "stored_key_statistics",
]
