"""`copying_scores`: does what a head moves raise the very token it was moved from?

Three quantities go by the name of a copying score. They differ, and each has its own name here.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import xarray as xr

from mechlab import engine
from mechlab.canonical import digest
from mechlab.engine.options import HINTS
from mechlab.errors import OptionError, PromptError
from mechlab.methods.induction.ablating import Ablation, Average, Names, prepared
from mechlab.methods.induction.cells import sem
from mechlab.methods.induction.circuits import ov_eigenvalues
from mechlab.methods.induction.rows import lay_out
from mechlab.methods.induction.scores import refuse_unrepeated
from mechlab.methods.induction.writing import behavioural, most_attended
from mechlab.progress import ProgressCallback
from mechlab.prompts import PromptSet, TokenList, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["copying_scores"]

Array = np.ndarray[Any, Any]
Kind = Literal["ov_eigenvalue", "olsson", "behavioural"]
CONVENTIONS = {
    "olsson": "share of the raised logits of visible tokens that falls on the most attended one, "
    "BOS left out; final norm's gain folded, its scale cancels",
    "behavioural": "direct logit of the token that followed, minus the mean over the vocabulary; "
    "final norm's scale as it was",
}


@dataclass(frozen=True)
class _NoPrompts:
    """What a result of weights alone says of its prompts."""

    digest: str = digest({"kind": "none"})


@analysis(version=1, prompt_kind="tokens", default_plot="head_grid", per_prompt=False)
def copying_scores(
    model: "Model",
    prompts: PromptSet[Any] | Sequence[TokenList] | TokenList | None = None,
    *,
    kind: Kind = "ov_eigenvalue",
    product: Literal["full", "ov"] = "full",
    ablate: Names | None = None,
    ablation: Ablation = "zero",
    reference: PromptSet[Any] | None = None,
    average: Average = "over_positions",
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Score every query head for copying, in one of three ways that are not comparable.

    `ov_eigenvalue` (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits",
    section on copying): sum of the real parts of the eigenvalues of W_E W_V W_O W_U over the sum of
    their sizes, from -1 to 1; 1 where every token raises itself. It reads weights alone.

    `olsson` (Olsson et al. 2022, arXiv 2209.11895, appendix): on lists without a repeat, the share
    of what a head's output raises among the tokens it can see, each against their mean, that falls
    on the token it attends to most; from 0 to 1, not rescaled.

    `behavioural`: on repeated lists, what a head's output at a repeated token adds directly to the
    logit of the token that followed it; in logits. What the whole model does is `copy_loss`.

    Args:
        model: a decoder with attention.
        prompts: lists; `ml.prompts.without_repeats` of some for `olsson`, `repeated_tokens` for
            `behavioural`; none for `ov_eigenvalue`.
        kind: which score.
        product: of `ov_eigenvalue`: `full`, with embedding and unembedding; `ov`, W_V W_O alone.
            Norms are folded into W_V and W_U (gain and, where the norm has it, centring), and W_U
            is centred over the vocabulary.
        ablate: as for `induction_scores`; not for `ov_eigenvalue`.
        ablation: as for `induction_scores`.
        reference: as for `induction_scores`.
        average: as for `induction_scores`.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        progress: called after each batch; may raise `Cancelled`.

    Returns:
        Dataset with `copying[layer, head]` (mean over prompts) and `sem[layer, head]`, its standard
        error over prompts (NaN for weights alone); the coordinate `status[layer, head]` is `ok`, or
        says why a score is NaN. The two kinds that read prompts keep
        `copying_by_prompt[prompt, layer, head]` as well. Attributes `kind` and `convention`, which
        matrices or logits were taken. `head` counts query heads: under grouped queries several
        share one W_V.

    Raises:
        OptionError: unknown choices, prompts where there should be none or the other way round.
        SiteError: a model without attention, or without separate matrices W_V and W_O.
        PromptError: lists with repeats for `olsson`, without them for `behavioural`; lists longer
            than the context.
        ModelError: a norm that is neither LayerNorm nor RMSNorm.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in HINTS}
    engine.require_heads(model, "models with attention")
    engine.check_choice("kind", kind, get_args(Kind))
    engine.check_choice("product", product, ("full", "ov"))
    engine.check_whole("max_batch", max_batch, at_least=1, optional=True)
    if (prompts is None) != (kind == "ov_eigenvalue") or (prompts is None and ablate is not None):
        raise OptionError(
            f"kind={kind!r}, prompts={'none' if prompts is None else 'given'}, ablate={ablate!r}. "
            "Allowed: token lists with 'olsson' and 'behavioural'; neither prompts nor ablate with "
            "'ov_eigenvalue', which reads weights. Give or leave out prompts."
        )
    coords: dict[str, Any] = {
        "layer": np.arange(model.n_layers),
        "head": np.arange(model.n_heads or 0),
    }
    read: Any = _NoPrompts()
    if prompts is None:
        score, status, convention = ov_eigenvalues(model, product)
        variables = {"copying": score, "sem": np.full_like(score, np.nan)}
        by_prompt = None
    else:
        read = as_prompt_set(prompts, kind="tokens")
        laid = lay_out(model, read)
        (_refuse_repeated if kind == "olsson" else refuse_unrepeated)(read)
        sites = ["z", "pattern"] if kind == "olsson" else ["z", "resid_post"]
        runner, sets = prepared(model, ablate, ablation, reference, average, sites)
        runner = runner.of(sets[-1].heads)
        runner.check_width(laid)
        measure = most_attended if kind == "olsson" else behavioural
        by_prompt = measure(runner, laid, max_batch, progress)
        variables, status = _averaged(by_prompt)
        convention = CONVENTIONS[kind]
        coords["prompt"] = list(read.labels)
    units = {"units": "logits" if kind == "behavioural" else "fraction"}
    data: dict[str, Any] = {n: (("layer", "head"), v, units) for n, v in variables.items()}
    if by_prompt is not None:
        data["copying_by_prompt"] = (("prompt", "layer", "head"), by_prompt, units)
    return new_result(
        data,
        coords | {"status": (("layer", "head"), status)},
        method="copying_scores",
        version=1,
        model=model,
        prompts=read,
        options=options,
        seed=None,
        started=started,
    ).assign_attrs(kind=kind, convention=convention)


def _averaged(by_prompt: Array) -> tuple[dict[str, Array], Array]:
    there = (~np.isnan(by_prompt)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there > 0, np.nansum(by_prompt, axis=0) / there, np.nan)
    status = np.where(there > 0, "ok", "the head raises no token it can see")
    return {"copying": mean, "sem": sem(by_prompt)}, status


def _refuse_repeated(lists: PromptSet[TokenList]) -> None:
    """Refuse lists in which a token stands twice (PromptError)."""
    wrong = [
        f"#{index} {lists.labels[index]!r:.60}"
        for index, one in enumerate(lists)
        if len(set(one.numbers)) < len(one.numbers)
    ]
    if wrong:
        raise PromptError(
            f"{len(wrong)} of {len(lists)} lists hold a token twice: {', '.join(wrong[:10])}.\n"
            "  Allowed with kind='olsson': lists without a repeat.\n"
            "  Hand in ml.prompts.without_repeats(prompts)."
        )
