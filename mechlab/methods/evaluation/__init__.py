"""What an edit did: whether it holds, how far it reaches, and what else it changed."""

from mechlab.methods.evaluation.drift import next_token_reference, prediction_drift
from mechlab.methods.evaluation.each import evaluate_each_edit
from mechlab.methods.evaluation.evaluate import evaluate_edit
from mechlab.methods.evaluation.summary import edit_summary

__all__ = [
    "edit_summary",
    "evaluate_each_edit",
    "evaluate_edit",
    "next_token_reference",
    "prediction_drift",
]
