"""The methods, and the table of them that the command line and the apps iterate."""

from mechlab.methods.ablation import ablate
from mechlab.methods.attention import attention_pattern
from mechlab.methods.attribution import direct_logit_attribution, head_tokens, token_lens
from mechlab.methods.conflict import (
    conflict_heads,
    conflict_rankings,
    prune_heads,
    split_pairs,
)
from mechlab.methods.decoding import DeCoRe, Sampling, generate, score_answers
from mechlab.methods.editing import (
    Delta,
    DenseDelta,
    Edit,
    KeyStatistics,
    as_variant,
    edit_settings,
    export,
    fine_tune_edit,
    key_statistics,
    memit,
    rank_one_edit,
    stored_key_statistics,
)
from mechlab.methods.evaluation import evaluate_edit
from mechlab.methods.induction import (
    attention_by_lag,
    copy_loss,
    copying_scores,
    icl_score,
    induction_scores,
    output_crp,
)
from mechlab.methods.knockout import knockout
from mechlab.methods.knowledge import keep_known
from mechlab.methods.lens import logit_lens
from mechlab.methods.patching import activation_patch, attribution_patch
from mechlab.methods.paths import path_patch
from mechlab.methods.repair import repair_slope, self_repair
from mechlab.methods.retrieval import (
    compare_rankings,
    needle_recall,
    retrieval_curve,
    retrieval_heads,
    retrieval_histogram,
    retrieval_score,
    retrieval_stability,
    retrieval_summary,
)
from mechlab.methods.scaling import scale_heads
from mechlab.methods.tracing import (
    average_indirect_effect,
    causal_trace,
    default_window,
    subject_embedding_std,
)
from mechlab.results import Method, method_of

__all__ = [
    "DeCoRe",
    "Delta",
    "DenseDelta",
    "Edit",
    "KeyStatistics",
    "METHODS",
    "Sampling",
    "ablate",
    "activation_patch",
    "as_variant",
    "attention_by_lag",
    "attention_pattern",
    "attribution_patch",
    "average_indirect_effect",
    "causal_trace",
    "compare_rankings",
    "conflict_heads",
    "conflict_rankings",
    "copy_loss",
    "copying_scores",
    "default_window",
    "direct_logit_attribution",
    "edit_settings",
    "evaluate_edit",
    "export",
    "fine_tune_edit",
    "generate",
    "head_tokens",
    "icl_score",
    "induction_scores",
    "keep_known",
    "key_statistics",
    "knockout",
    "logit_lens",
    "memit",
    "needle_recall",
    "output_crp",
    "path_patch",
    "prune_heads",
    "rank_one_edit",
    "repair_slope",
    "retrieval_curve",
    "retrieval_heads",
    "retrieval_histogram",
    "retrieval_score",
    "retrieval_stability",
    "retrieval_summary",
    "scale_heads",
    "score_answers",
    "self_repair",
    "split_pairs",
    "stored_key_statistics",
    "subject_embedding_std",
    "token_lens",
]

METHODS: dict[str, Method] = {
    function.__name__: method_of(function)
    for function in (
        ablate,
        activation_patch,
        attention_by_lag,
        attention_pattern,
        attribution_patch,
        causal_trace,
        conflict_heads,
        copy_loss,
        copying_scores,
        direct_logit_attribution,
        evaluate_edit,
        generate,
        head_tokens,
        icl_score,
        induction_scores,
        knockout,
        logit_lens,
        needle_recall,
        output_crp,
        path_patch,
        prune_heads,
        retrieval_curve,
        retrieval_score,
        scale_heads,
        score_answers,
        self_repair,
        token_lens,
    )
}
"""Every method that maps a model and prompts to a result, by name."""
