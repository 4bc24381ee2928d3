"""Small models that the project trains itself, shipped with known answers.

`atlas` knows the countries of the world, follows or resists its context, and retrieves needles;
`echo` is attention alone and learns induction, with checkpoints through the phase change. Nothing
here needs torch until a model is trained or measured.
"""

from mechlab.organisms.corpus.facts import held_out_templates
from mechlab.organisms.language_training import Schedule, train_language_model
from mechlab.organisms.shipped import acquisition, card, checkpoints, names, path

__all__ = [
    "Schedule",
    "acquisition",
    "card",
    "checkpoints",
    "held_out_templates",
    "names",
    "path",
    "train_language_model",
]
