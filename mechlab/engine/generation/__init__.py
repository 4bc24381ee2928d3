"""Continuing prompts token by token, with heads masked and attention read, at linear memory."""

from mechlab.engine.generation.continuations import continuation_logits
from mechlab.engine.generation.decode import decode
from mechlab.engine.generation.masks import HeadMask, MaskKind, MaskPhase
from mechlab.engine.generation.rows import Choose, Decoded, DecodeRow, greedy

__all__ = [
    "Choose",
    "DecodeRow",
    "Decoded",
    "HeadMask",
    "MaskKind",
    "MaskPhase",
    "continuation_logits",
    "decode",
    "greedy",
]
