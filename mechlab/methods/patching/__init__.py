"""Activation patching: exact, and estimated by gradients."""

from mechlab.methods.patching.attribution import attribution_patch
from mechlab.methods.patching.exact import activation_patch

__all__ = ["activation_patch", "attribution_patch"]
