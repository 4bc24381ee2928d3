"""The methods, and the table of them that the command line and the apps iterate.

Names are looked up when first used: those that only reckon on stored numbers bring in no torch.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from mechlab.lazy import lazily
from mechlab.results import Method, method_of

if TYPE_CHECKING:  # a function with the name of its module: from there, or mypy takes the module
    from mechlab.methods.ablation.ablate import ablate
    from mechlab.methods.attention import attention_pattern
    from mechlab.methods.attribution import direct_logit_attribution
    from mechlab.methods.attribution.head_tokens import head_tokens
    from mechlab.methods.attribution.token_lens import token_lens
    from mechlab.methods.conflict import (
        conflict_heads,
        conflict_rankings,
        prune_heads,
        split_pairs,
    )
    from mechlab.methods.decoding import DeCoRe, Sampling, score_answers
    from mechlab.methods.decoding.generate import generate
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
        rank_one_edit,
        stored_key_statistics,
    )
    from mechlab.methods.editing.memit import memit
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
    from mechlab.methods.paths.path_patch import path_patch
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

_METHODS = {
    "ablation": ("ablate",),
    "attention": ("attention_pattern",),
    "attribution": ("direct_logit_attribution", "head_tokens", "token_lens"),
    "conflict": ("conflict_heads", "prune_heads"),
    "decoding": ("generate", "score_answers"),
    "evaluation": ("evaluate_edit",),
    "induction": (
        "attention_by_lag",
        "copy_loss",
        "copying_scores",
        "icl_score",
        "induction_scores",
        "output_crp",
    ),
    "knockout": ("knockout",),
    "lens": ("logit_lens",),
    "patching": ("activation_patch", "attribution_patch"),
    "paths": ("path_patch",),
    "repair": ("self_repair",),
    "retrieval": ("needle_recall", "retrieval_curve", "retrieval_score"),
    "scaling": ("scale_heads",),
    "tracing": ("causal_trace",),
}
"""What maps a model and prompts to a result, by the file or folder that it lives in."""

_OTHERS = {
    "conflict": ("conflict_rankings", "split_pairs"),
    "decoding": ("DeCoRe", "Sampling"),
    "editing": (
        "Delta",
        "DenseDelta",
        "Edit",
        "KeyStatistics",
        "as_variant",
        "edit_settings",
        "export",
        "fine_tune_edit",
        "key_statistics",
        "memit",
        "rank_one_edit",
        "stored_key_statistics",
    ),
    "knowledge": ("keep_known",),
    "repair": ("repair_slope",),
    "retrieval": (
        "compare_rankings",
        "retrieval_heads",
        "retrieval_histogram",
        "retrieval_stability",
        "retrieval_summary",
    ),
    "tracing": ("average_indirect_effect", "default_window", "subject_embedding_std"),
}
"""Further public names, in the same way."""

_NAMES = {
    f"{__name__}.{unit}": (*_METHODS.get(unit, ()), *_OTHERS.get(unit, ()))
    for unit in {**_METHODS, **_OTHERS}
}


if not TYPE_CHECKING:  # hidden, so that the type checker reports a name that is not listed
    __getattr__ = lazily(__name__, _NAMES)


class _Table(Mapping[str, Method]):
    """Methods by name; listing names imports none of them."""

    _homes = {name: unit for unit, names in _METHODS.items() for name in names}

    def __getitem__(self, name: str) -> Method:
        return method_of(getattr(import_module(f"{__name__}.{self._homes[name]}"), name))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._homes))

    def __len__(self) -> int:
        return len(self._homes)


METHODS: Mapping[str, Method] = _Table()
"""Every method that maps a model and prompts to a result, by name."""
