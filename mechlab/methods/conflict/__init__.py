"""Memory heads and context heads under knowledge conflicts: find them, prune them (PH3)."""

from mechlab.methods.conflict.pruning import prune_heads
from mechlab.methods.conflict.ranking import conflict_rankings, split_pairs
from mechlab.methods.conflict.scores import conflict_heads

__all__ = ["conflict_heads", "conflict_rankings", "prune_heads", "split_pairs"]
