"""mechlab: a mechanistic-interpretability workbench on TransformerLens 4.

    import mechlab as ml

    model = ml.load_model("atlas")
    trace = ml.causal_trace(model, ml.prompts.Fact("The capital of France is", "France", "Paris"))

Every public name is listed in `__all__`. Names are looked up when first used, so that
`import mechlab` stays fast and imports no torch; only names that compute with a model bring it in.
"""

from typing import TYPE_CHECKING

from mechlab.lazy import lazily

if TYPE_CHECKING:  # what editors and the type checker see; a test compares it with the table below
    from mechlab import claims as claims
    from mechlab import jobs as jobs
    from mechlab import metrics as metrics
    from mechlab import organisms as organisms
    from mechlab import plots as plots
    from mechlab import prompts as prompts
    from mechlab import statistics as statistics
    from mechlab.axes import Head as Head
    from mechlab.axes import heads as heads
    from mechlab.engine.verify import verify as verify
    from mechlab.errors import Cancelled as Cancelled
    from mechlab.errors import MechlabError as MechlabError
    from mechlab.errors import ModelError as ModelError
    from mechlab.errors import OptionError as OptionError
    from mechlab.errors import PromptError as PromptError
    from mechlab.errors import SiteError as SiteError
    from mechlab.errors import StoreError as StoreError
    from mechlab.hooks import Ablate as Ablate
    from mechlab.hooks import AddNoise as AddNoise
    from mechlab.hooks import Block as Block
    from mechlab.hooks import Freeze as Freeze
    from mechlab.hooks import FrozenArray as FrozenArray
    from mechlab.hooks import Insert as Insert
    from mechlab.hooks import Patch as Patch
    from mechlab.hooks import Scale as Scale
    from mechlab.hooks import Site as Site
    from mechlab.hooks import Steer as Steer
    from mechlab.hooks import noise as noise
    from mechlab.methods import DeCoRe as DeCoRe
    from mechlab.methods import Delta as Delta
    from mechlab.methods import DenseDelta as DenseDelta
    from mechlab.methods import Edit as Edit
    from mechlab.methods import KeyStatistics as KeyStatistics
    from mechlab.methods import Sampling as Sampling
    from mechlab.methods import ablate as ablate
    from mechlab.methods import activation_patch as activation_patch
    from mechlab.methods import as_variant as as_variant
    from mechlab.methods import attention_pattern as attention_pattern
    from mechlab.methods import attribution_patch as attribution_patch
    from mechlab.methods import average_indirect_effect as average_indirect_effect
    from mechlab.methods import causal_trace as causal_trace
    from mechlab.methods import compare_rankings as compare_rankings
    from mechlab.methods import conflict_heads as conflict_heads
    from mechlab.methods import conflict_rankings as conflict_rankings
    from mechlab.methods import default_window as default_window
    from mechlab.methods import direct_logit_attribution as direct_logit_attribution
    from mechlab.methods import edit_settings as edit_settings
    from mechlab.methods import export as export
    from mechlab.methods import fine_tune_edit as fine_tune_edit
    from mechlab.methods import generate as generate
    from mechlab.methods import head_tokens as head_tokens
    from mechlab.methods import keep_known as keep_known
    from mechlab.methods import key_statistics as key_statistics
    from mechlab.methods import logit_lens as logit_lens
    from mechlab.methods import memit as memit
    from mechlab.methods import needle_recall as needle_recall
    from mechlab.methods import path_patch as path_patch
    from mechlab.methods import prune_heads as prune_heads
    from mechlab.methods import rank_one_edit as rank_one_edit
    from mechlab.methods import repair_slope as repair_slope
    from mechlab.methods import retrieval_curve as retrieval_curve
    from mechlab.methods import retrieval_heads as retrieval_heads
    from mechlab.methods import retrieval_histogram as retrieval_histogram
    from mechlab.methods import retrieval_score as retrieval_score
    from mechlab.methods import retrieval_stability as retrieval_stability
    from mechlab.methods import retrieval_summary as retrieval_summary
    from mechlab.methods import scale_heads as scale_heads
    from mechlab.methods import score_answers as score_answers
    from mechlab.methods import self_repair as self_repair
    from mechlab.methods import split_pairs as split_pairs
    from mechlab.methods import stored_key_statistics as stored_key_statistics
    from mechlab.methods import subject_embedding_std as subject_embedding_std
    from mechlab.methods import token_lens as token_lens
    from mechlab.methods.checkpoints import over_checkpoints as over_checkpoints
    from mechlab.methods.cmr import TableSettings as TableSettings
    from mechlab.methods.cmr import cmr_null as cmr_null
    from mechlab.methods.cmr import cmr_p_value as cmr_p_value
    from mechlab.methods.cmr import convert_beta as convert_beta
    from mechlab.methods.cmr import crp_distance as crp_distance
    from mechlab.methods.cmr import crp_table as crp_table
    from mechlab.methods.cmr import fit_cmr as fit_cmr
    from mechlab.methods.cmr import gaussian_fit as gaussian_fit
    from mechlab.methods.cmr import shipped_table as shipped_table
    from mechlab.methods.evaluation import edit_summary as edit_summary
    from mechlab.methods.evaluation import evaluate_each_edit as evaluate_each_edit
    from mechlab.methods.evaluation import evaluate_edit as evaluate_edit
    from mechlab.methods.evaluation import next_token_reference as next_token_reference
    from mechlab.methods.evaluation import prediction_drift as prediction_drift
    from mechlab.methods.induction import attention_by_lag as attention_by_lag
    from mechlab.methods.induction import copy_loss as copy_loss
    from mechlab.methods.induction import copying_scores as copying_scores
    from mechlab.methods.induction import icl_score as icl_score
    from mechlab.methods.induction import induction_scores as induction_scores
    from mechlab.methods.induction import output_crp as output_crp
    from mechlab.methods.knockout import knockout as knockout
    from mechlab.methods.recall import CMR as CMR
    from mechlab.methods.recall import average_subjects as average_subjects
    from mechlab.methods.recall import fit_recalls as fit_recalls
    from mechlab.methods.recall import fitted_model as fitted_model
    from mechlab.methods.recall import lag_crp as lag_crp
    from mechlab.methods.recall import lag_rank as lag_rank
    from mechlab.methods.recall import pfr as pfr
    from mechlab.methods.recall import pnr as pnr
    from mechlab.methods.recall import recall_indices as recall_indices
    from mechlab.methods.recall import spc as spc
    from mechlab.models import Model as Model
    from mechlab.models import load_model as load_model
    from mechlab.models import random_heads as random_heads
    from mechlab.models import untrained as untrained
    from mechlab.models import wrap_model as wrap_model
    from mechlab.progress import Progress as Progress
    from mechlab.prompts import EditRequest as EditRequest
    from mechlab.results import analysis as analysis
    from mechlab.results import by_token_role as by_token_role
    from mechlab.results import new_result as new_result
    from mechlab.results import top_heads as top_heads
    from mechlab.store import Remark as Remark
    from mechlab.store import Store as Store
    from mechlab.store import TraceCost as TraceCost
    from mechlab.store import trace_cost as trace_cost
    from mechlab.workflows import as_edit_cases as as_edit_cases
    from mechlab.workflows import batch_edits as batch_edits
    from mechlab.workflows import edit_sweep as edit_sweep
    from mechlab.workflows import localize_edit_verify as localize_edit_verify
    from mechlab.workflows import memory_ablation as memory_ablation
    from mechlab.workflows import memory_heads as memory_heads
    from mechlab.workflows import screen_then_verify as screen_then_verify
    from mechlab.workflows import sequential_edits as sequential_edits
    from mechlab.workflows import swept_edit as swept_edit
    from mechlab.workflows import trace_edit_agreement as trace_edit_agreement

__version__ = "0.1.0"

_NAMES = {
    "mechlab.axes": ("Head", "heads"),
    "mechlab.engine.verify": ("verify",),
    "mechlab.errors": (
        "Cancelled",
        "MechlabError",
        "ModelError",
        "OptionError",
        "PromptError",
        "SiteError",
        "StoreError",
    ),
    "mechlab.hooks": (
        "Ablate",
        "AddNoise",
        "Block",
        "Freeze",
        "FrozenArray",
        "Insert",
        "Patch",
        "Scale",
        "Site",
        "Steer",
        "noise",
    ),
    "mechlab.methods": (
        "DeCoRe",
        "Delta",
        "DenseDelta",
        "Edit",
        "KeyStatistics",
        "Sampling",
        "ablate",
        "activation_patch",
        "as_variant",
        "attention_pattern",
        "attribution_patch",
        "average_indirect_effect",
        "causal_trace",
        "compare_rankings",
        "conflict_heads",
        "conflict_rankings",
        "default_window",
        "direct_logit_attribution",
        "edit_settings",
        "export",
        "fine_tune_edit",
        "generate",
        "head_tokens",
        "keep_known",
        "key_statistics",
        "logit_lens",
        "memit",
        "needle_recall",
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
    ),
    "mechlab.methods.evaluation": (
        "edit_summary",
        "evaluate_each_edit",
        "evaluate_edit",
        "next_token_reference",
        "prediction_drift",
    ),
    "mechlab.methods.checkpoints": ("over_checkpoints",),
    "mechlab.methods.cmr": (
        "TableSettings",
        "cmr_null",
        "cmr_p_value",
        "convert_beta",
        "crp_distance",
        "crp_table",
        "fit_cmr",
        "gaussian_fit",
        "shipped_table",
    ),
    "mechlab.methods.induction": (
        "attention_by_lag",
        "copy_loss",
        "copying_scores",
        "icl_score",
        "induction_scores",
        "output_crp",
    ),
    "mechlab.methods.knockout": ("knockout",),
    "mechlab.methods.recall": (
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
    ),
    "mechlab.models": ("Model", "load_model", "random_heads", "untrained", "wrap_model"),
    "mechlab.progress": ("Progress",),
    "mechlab.prompts": ("EditRequest",),
    "mechlab.results": ("analysis", "by_token_role", "new_result", "top_heads"),
    "mechlab.store": ("Remark", "Store", "TraceCost", "trace_cost"),
    "mechlab.workflows": (
        "as_edit_cases",
        "batch_edits",
        "edit_sweep",
        "localize_edit_verify",
        "memory_ablation",
        "memory_heads",
        "screen_then_verify",
        "sequential_edits",
        "swept_edit",
        "trace_edit_agreement",
    ),
}
"""Each module's public names."""

_MODULES = ("claims", "jobs", "metrics", "organisms", "plots", "prompts", "statistics")
"""Modules that are public as a whole, used as `ml.prompts.Fact`."""

_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted([*_HOME, *_MODULES])


if not TYPE_CHECKING:  # hidden, so that the type checker reports a name that is not listed
    __getattr__ = lazily(__name__, _NAMES, _MODULES)


def __dir__() -> list[str]:
    """List the public names for tab completion, without importing anything."""
    return [*__all__, "__version__"]
