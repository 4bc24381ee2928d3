"""Models: loading, wrapping, and tokenising decided once.

`load_model` takes a name, `wrap_model` a model in memory; both return a `Model`, a thin view on
one TransformerLens bridge with shape facts, tokenising and a fingerprint.
"""

from mechlab.models.answers import AnswerTokenWarning
from mechlab.models.control import untrained
from mechlab.models.heads import chosen_heads, chosen_layers, head_sets, random_heads
from mechlab.models.hub import InstalledModel, installed_models
from mechlab.models.loading import load_model
from mechlab.models.model import Checks, Model, Origin, Shape
from mechlab.models.scored import Scored, ScoredPairs, scored_pairs, scored_prompts
from mechlab.models.stops import stop_tokens
from mechlab.models.tokens import TokenBatch, position_ids
from mechlab.models.wrapping import wrap_model

__all__ = [
    "AnswerTokenWarning",
    "Checks",
    "InstalledModel",
    "Model",
    "Origin",
    "Scored",
    "ScoredPairs",
    "Shape",
    "TokenBatch",
    "chosen_heads",
    "chosen_layers",
    "head_sets",
    "installed_models",
    "load_model",
    "position_ids",
    "random_heads",
    "scored_pairs",
    "scored_prompts",
    "stop_tokens",
    "untrained",
    "wrap_model",
]
