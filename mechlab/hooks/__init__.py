"""Sites, interventions, and the one place that attaches them to a model.

What only describes a change needs no torch; what attaches it brings it in when first used.
"""

from typing import TYPE_CHECKING

from mechlab.hooks.interventions import (
    Ablate,
    AddNoise,
    Block,
    Freeze,
    FrozenArray,
    Insert,
    Intervention,
    Patch,
    Scale,
    Steer,
    single_sites,
    source_of,
)
from mechlab.hooks.sites import SITES, Site, SiteKind, hook_name, known_kind, live_sites
from mechlab.lazy import lazily

if TYPE_CHECKING:
    from mechlab.hooks.attaching import (
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
    from mechlab.hooks.probing import Probe, probes

__all__ = [
    "SITES",
    "Ablate",
    "AddNoise",
    "Attached",
    "Block",
    "Edits",
    "Freeze",
    "FrozenArray",
    "Insert",
    "Intervention",
    "Kept",
    "Patch",
    "Place",
    "Placement",
    "Probe",
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
    "probes",
    "single_sites",
    "source_of",
]

_LAZY = {
    "mechlab.hooks.attaching": (
        "Attached",
        "Edits",
        "Kept",
        "Place",
        "Placement",
        "apply_writes",
        "attach",
        "capture",
        "compile_edits",
        "noise",
    ),
    "mechlab.hooks.probing": ("Probe", "probes"),
}

if not TYPE_CHECKING:  # hidden, so that the type checker reports a name that is not listed
    __getattr__ = lazily(__name__, _LAZY)
