"""Attention knockout: what the model does without some of its attention edges."""

from mechlab.methods.knockout.cut import knockout

__all__ = ["knockout"]
