"""Self-repair: what later layers do when one is taken away."""

from mechlab.methods.repair.repair import self_repair
from mechlab.methods.repair.slope import repair_slope

__all__ = ["repair_slope", "self_repair"]
