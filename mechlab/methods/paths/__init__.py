"""Path patching: what one sender does to the metric through chosen receivers alone."""

from mechlab.methods.paths.path_patch import path_patch

__all__ = ["path_patch"]
