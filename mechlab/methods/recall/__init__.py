"""Free recall: its measures, and the context model of Polyn et al. 2009 that explains it."""

from mechlab.methods.recall.fitting import fit_recalls, fitted_model
from mechlab.methods.recall.model import CMR
from mechlab.methods.recall.positions import pfr, pnr, spc
from mechlab.methods.recall.summary import average_subjects, recall_indices
from mechlab.methods.recall.transitions import lag_crp, lag_rank

__all__ = [
    "CMR",
    "average_subjects",
    "fit_recalls",
    "fitted_model",
    "lag_crp",
    "lag_rank",
    "pfr",
    "pnr",
    "recall_indices",
    "spc",
]
