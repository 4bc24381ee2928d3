"""Decoding: continuing prompts and scoring answers, plainly or by contrast with masked heads."""

from mechlab.methods.decoding.decore import DeCoRe
from mechlab.methods.decoding.generate import generate
from mechlab.methods.decoding.sampling import Sampling
from mechlab.methods.decoding.score import score_answers

__all__ = ["DeCoRe", "Sampling", "generate", "score_answers"]
