"""`memory_ablation`: what a model still recalls without its memory heads, against random heads."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import xarray as xr

from mechlab.engine import check_choice, check_whole, require_heads
from mechlab.engine.options import HINTS
from mechlab.errors import OptionError
from mechlab.methods.induction.rows import lay_out
from mechlab.methods.induction.scores import refuse_unrepeated
from mechlab.progress import ProgressCallback
from mechlab.prompts import PromptSet, Text, TokenList, as_prompt_set, without_repeats
from mechlab.results import analysis, new_result
from mechlab.statistics.clusters import refuse, wrong_level
from mechlab.workflows.ablated_recall import AblatedRecall, Kind
from mechlab.workflows.head_draws import Names, controlled_sets, set_coordinates
from mechlab.workflows.head_set_tests import HARM, summary

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["memory_ablation"]


@analysis(version=1, prompt_kind="tokens", default_plot="ablation_bars", per_prompt=False)
def memory_ablation(
    model: "Model",
    repeats: PromptSet[Any] | Sequence[TokenList] | TokenList,
    texts: PromptSet[Any] | Sequence[Text] | Text | None = None,
    *,
    groups: Mapping[str, Names],
    k: int | None = None,
    draws: int = 20,
    kinds: Sequence[Kind] = ("zero", "mean", "pattern_preserving"),
    reference: PromptSet[Any] | None = None,
    hi: int = 500,
    lo: int = 50,
    window: tuple[tuple[int, int], tuple[int, int]] | Literal["standard"] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Ablate groups of heads, and as many random heads, and see what the model still recalls.

    Ji-An et al. 2024 (arXiv 2405.14992), section on the causal role of CMR-like heads: without
    them the ICL score is lost, without random heads it is not. Mistry et al. 2025 (arXiv
    2502.06902): without induction heads the recall of the next token of a list is lost.

    Args:
        model: a decoder with attention.
        repeats: lists of `ml.prompts.repeated_tokens`.
        texts: texts for the ICL score, longer than `hi` tokens; without them it is NaN.
        groups: heads that are ablated together, by name, such as the heads of `ml.memory_heads`
            with the smallest CMR distance and those with the highest prefix matching. They may
            overlap.
        k: take the first so many of each group; all by default.
        draws: random sets beside each group: as many heads, from the same layers, none of them in
            any group. Where a layer has too few left, the nearest one gives them
            (`layer_distance`); where there are fewer different sets, all of them are taken.
        kinds: how heads are ablated, see `ml.induction_scores`.
        reference: token lists or texts whose mean replaces an output; for kind `mean`. By default
            `ml.prompts.without_repeats(repeats)`, as a mean over repeated lists would tell places.
        hi: as for `ml.icl_score`.
        lo: as for `ml.icl_score`.
        window: as for `ml.icl_score`; the windowed score then is `icl_score`.
        confidence: of the intervals over prompts.
        resamples: bootstrap samples.
        seed: of the draws and the bootstrap.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        progress: called after each batch; may raise `Cancelled`.

    Returns:
        Dataset. By prompt, `[prompt, ablation, head_set]`: `copy_loss`, of all copies after the
        first, and `first_copy_loss` (nats; it rises where ablation harms more than memory);
        `recall_next`, the probability of the token at lag +1 of the output CRP, and
        `recall_next_share`, its share of the probability of the whole list. By text, `[text,
        ablation, head_set]`: `icl_score`, `loss_hi`, `loss_lo` (nats). Over `outcome` (the first
        five, `icl_score` among them), `[outcome, ablation, head_set]`: `mean`; `effect`, ablated
        minus intact, with its bootstrap interval `effect_low`, `effect_high` over prompts (NaN
        below four independent ones, see `interval_status`, `icl_interval_status`); and for the
        groups `random_mean`, `random_low`, `random_high`, mean and range of the effects of the
        random sets, and `p_value`: the rank of a group among its random sets in the direction in
        which memory is lost, (1 + sets that harm as much) / (1 + sets). It is never below 1 / (1 +
        sets), and NaN for a group whose layers have too few other heads, as heads of other layers
        are no control of it. Coordinates of `head_set`: `members`, `k`, `is_control`, `control_of`
        (the group), `draw`, `layer_distance`. Attribute `draws_status`: `ok`, or what draws cannot
        say.

    Raises:
        OptionError: groups without a name or not there, unknown kinds, k beyond a group, options
            out of range, too few heads to draw from.
        SiteError: a model without attention, heads that it does not have.
        PromptError: lists or texts that cannot be read.
        Cancelled: when `progress` asked to stop.

    Differs from the paper: heads are ablated at their output, not their value, which under grouped
    queries is another thing; random heads come from the same layers, are none of the ablated ones,
    and are drawn many times instead of once.
    """
    started = time.time()
    options = {n: v for n, v in locals().items() if n not in {*HINTS, "repeats"}}
    require_heads(model, "models with attention")
    lists = as_prompt_set(repeats, kind="tokens")
    read = None if texts is None else as_prompt_set(texts, kind="text")
    _check(kinds, k, draws, seed, reference)
    refuse("memory_ablation", wrong_level(confidence, resamples))
    lay_out(model, lists)
    refuse_unrepeated(lists)
    sets, missing = controlled_sets(model, groups, k, draws, seed)
    if reference is None and "mean" in kinds:
        reference = without_repeats(lists)
    runs = AblatedRecall(model, sets, lists, read, reference, max_batch, progress)
    table = runs.of_kinds(kinds, hi=hi, lo=lo, window=window)
    how = {"confidence": confidence, "resamples": resamples, "seed": seed}
    found, told = summary(table, sets, lists.groups, **how)
    return new_result(
        {str(name): table[name].variable for name in table.data_vars} | found,
        {
            "prompt": list(lists.labels),
            "text": ["none"] if read is None else list(read.labels),
            "ablation": list(kinds),
            "outcome": list(HARM),
            **set_coordinates(sets),
        },
        method="memory_ablation",
        version=1,
        model=model,
        prompts=lists,
        options=options,
        seed=seed,
        started=started,
    ).assign_attrs(draws_status=missing, **told)


def _check(kinds: Sequence[str], k: int | None, draws: int, seed: int, reference: object) -> None:
    """Refuse options outside their range (OptionError)."""
    if isinstance(kinds, str) or not kinds or len(set(kinds)) < len(kinds):
        raise OptionError(
            f"kinds={kinds!r}. Allowed: a list of {', '.join(get_args(Kind))}, each once. "
            "Correct it."
        )
    for one in kinds:
        check_choice("kinds", one, get_args(Kind))
    if reference is not None and "mean" not in kinds:
        raise OptionError(
            f"a reference without 'mean' among kinds={list(kinds)}. Allowed: with it, and only "
            "there. Leave the reference out."
        )
    check_whole("k", k, at_least=1, optional=True)
    check_whole("draws", draws, at_least=0)
    check_whole("seed", seed, at_least=0)
