"""Rank-one model editing: ROME, R-ROME, MEMIT, and edits as values that can be undone."""
