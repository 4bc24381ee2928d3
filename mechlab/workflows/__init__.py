"""Workflows: what chains methods."""

from mechlab.workflows.screening import screen_then_verify

__all__ = ["screen_then_verify"]
