"""Causal tracing (Meng et al. 2022): which hidden states carry a fact."""

from mechlab.engine import default_window
from mechlab.methods.tracing.averages import average_indirect_effect
from mechlab.methods.tracing.corruption import subject_embedding_std
from mechlab.methods.tracing.trace import causal_trace

__all__ = [
    "average_indirect_effect",
    "causal_trace",
    "default_window",
    "subject_embedding_std",
]
