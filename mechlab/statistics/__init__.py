"""Intervals for averages over prompts."""

from mechlab.statistics.intervals import bootstrap_interval

__all__ = ["bootstrap_interval"]
