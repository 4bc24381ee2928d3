"""Induction heads and the temporal structure of attention."""

from mechlab.methods.induction.copying import copying_scores
from mechlab.methods.induction.lags import attention_by_lag
from mechlab.methods.induction.losses import copy_loss, icl_score
from mechlab.methods.induction.recall import output_crp
from mechlab.methods.induction.scores import induction_scores

__all__ = [
    "attention_by_lag",
    "copy_loss",
    "copying_scores",
    "icl_score",
    "induction_scores",
    "output_crp",
]
