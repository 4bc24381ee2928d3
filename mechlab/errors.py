"""The errors mechlab raises, as one tree.

    MechlabError
    ├── ModelError     load, checks, unsupported architecture
    ├── SiteError      a site that does not exist, is dead, or is not verified on this model
    ├── PromptError    alignment, token counts, unknown answer tokens (all offenders in one error)
    ├── OptionError    an option outside its range or its choices
    ├── StoreError     corrupt, unreadable or foreign entry; unkeyable option
    └── Cancelled      a progress callback asked to stop

Every message has four parts: what is wrong, what was received, what is allowed, what to do next.
"""

__all__ = [
    "Cancelled",
    "MechlabError",
    "ModelError",
    "OptionError",
    "PromptError",
    "SiteError",
    "StoreError",
]


class MechlabError(Exception):
    """Base of every error that mechlab raises on purpose."""


class ModelError(MechlabError):
    """A model cannot be loaded, failed its checks, or has an architecture that is not supported."""


class SiteError(MechlabError):
    """A site does not exist on this model, never fires, or was not verified."""


class PromptError(MechlabError):
    """Prompts cannot be used as given; the message lists every offender at once."""


class OptionError(MechlabError, ValueError):
    """An option lies outside its range or its choices."""


class StoreError(MechlabError):
    """A stored entry is corrupt, unreadable or foreign, or an option cannot be keyed."""


class Cancelled(MechlabError):
    """A progress callback asked to stop; what was finished before is kept."""
