"""Uncertainty of averages over prompts: intervals, tests over grids, stability of rankings.

Prompts that share a subject or a template are not independent: give their label as `cluster`
(`pairs.groups` for the built-in prompt sets), and whole clusters are drawn or flipped. Numpy only,
all cells of a grid at once.
"""

from mechlab.statistics.intervals import bootstrap_interval
from mechlab.statistics.significance import false_discovery, sign_flip_test
from mechlab.statistics.stability import split_half_stability, top_k_stability

__all__ = [
    "bootstrap_interval",
    "false_discovery",
    "sign_flip_test",
    "split_half_stability",
    "top_k_stability",
]
