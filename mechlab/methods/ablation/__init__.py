"""Ablation: what the model does without a component."""

from mechlab.methods.ablation.ablate import ablate

__all__ = ["ablate"]
