"""Sites, interventions, and the one place that attaches them to a model."""

from mechlab.hooks.attach import (
    Attached,
    Edits,
    Kept,
    Place,
    Placement,
    apply_writes,
    attach,
    capture,
    compile_edits,
    noise,
)
from mechlab.hooks.interventions import (
    Ablate,
    AddNoise,
    Block,
    Freeze,
    FrozenArray,
    Intervention,
    Patch,
    Scale,
    Steer,
)
from mechlab.hooks.sites import SITES, Site, SiteKind, hook_name, known_kind, live_sites

__all__ = [
    "SITES",
    "Ablate",
    "AddNoise",
    "Attached",
    "Block",
    "Edits",
    "Freeze",
    "FrozenArray",
    "Intervention",
    "Kept",
    "Patch",
    "Place",
    "Placement",
    "Scale",
    "Site",
    "SiteKind",
    "Steer",
    "apply_writes",
    "attach",
    "capture",
    "compile_edits",
    "hook_name",
    "known_kind",
    "live_sites",
    "noise",
]
