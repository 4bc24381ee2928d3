"""The engine: many counterfactual runs, packed and resumed, equal to one run each."""

from mechlab.engine.activations import (
    NextTokens,
    Recording,
    embed_texts,
    next_tokens,
    record,
)
from mechlab.engine.generation import (
    Choose,
    Decoded,
    DecodeRow,
    HeadMask,
    continuation_logits,
    decode,
    greedy,
)
from mechlab.engine.gradients import Gradient, check_differentiable, gradients
from mechlab.engine.grid import Grid, Unit
from mechlab.engine.options import (
    MODES,
    check_bases,
    check_choice,
    check_number,
    check_whole,
    require_heads,
    require_sites,
)
from mechlab.engine.paths import Node, PathPrompt, PathReadings, edges_of, run_paths
from mechlab.engine.positions import Positions, plain_positions
from mechlab.engine.rows import Base, Readings, Row
from mechlab.engine.run import run
from mechlab.engine.verify import (
    Check,
    Checks,
    EngineWarning,
    SiteStatus,
    require_proven,
    verify,
)
from mechlab.engine.windows import default_window, window_layers

__all__ = [
    "Base",
    "Check",
    "Checks",
    "Choose",
    "DecodeRow",
    "Decoded",
    "EngineWarning",
    "Gradient",
    "Grid",
    "HeadMask",
    "MODES",
    "NextTokens",
    "Node",
    "PathPrompt",
    "PathReadings",
    "Positions",
    "Readings",
    "Recording",
    "Row",
    "SiteStatus",
    "Unit",
    "check_bases",
    "check_choice",
    "check_differentiable",
    "check_number",
    "check_whole",
    "continuation_logits",
    "decode",
    "default_window",
    "edges_of",
    "embed_texts",
    "gradients",
    "greedy",
    "next_tokens",
    "plain_positions",
    "record",
    "require_heads",
    "require_proven",
    "require_sites",
    "run",
    "run_paths",
    "verify",
    "window_layers",
]
