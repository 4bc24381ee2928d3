"""Does an edit hold, does it generalise, and what else did it change? (`evaluate_edit`)."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

from mechlab.engine.options import check_choice, check_whole
from mechlab.errors import OptionError
from mechlab.methods.evaluation.generating import Generations, text_variables
from mechlab.methods.evaluation.measures import PROTOCOLS, Protocol
from mechlab.methods.evaluation.scoring import score_continuations
from mechlab.methods.evaluation.table import Table, check_objects
from mechlab.progress import ProgressCallback
from mechlab.prompts import EditCase, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["check_options", "evaluate_edit"]

_HINTS = ("model", "cases", "progress", "max_batch")


@analysis(version=1, prompt_kind="edit", default_plot="edit_bars", per_prompt=False)
def evaluate_edit(
    model: "Model",
    cases: PromptSet[Any] | Sequence[EditCase] | EditCase,
    *,
    protocol: Protocol = "counterfact",
    generation_length: int = 0,
    generation_top_k: int = 5,
    seed: int = 0,
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Score the prompts of edit cases on the model as it is now, edited or not.

    Meng et al. 2022 (arXiv 2202.05262), section 3.3 and its public code; zsRE as in its appendix.

        before = ml.evaluate_edit(model, cases)
        with edit.applied(model):
            after = ml.evaluate_edit(model, cases)
        ml.edit_summary(after, before=before)

    Every prompt is scored with both of its objects, teacher-forced over all their tokens. After
    `rewrite`, `paraphrase`, `languages` and `two_hop` prompts the new object is right, after
    `neighbourhood` and `other_relations` the old one. The protocol says what a success is:

    - `counterfact`: the right object is more probable than the other one, per token in the
      geometric mean; a tie is a failure.
    - `zsre`: the share of the right object's tokens that are the model's top token.
    - `exact`: 1 if all of them are, else 0.

    Args:
        model: any decoder, recurrent ones included.
        cases: what to look at; `ml.prompts.edit_cases` builds cases for `atlas`, and
            `read_counterfact`, `read_zsre`, `read_edit_cases` read files.
        protocol: what counts as a success.
        generation_length: tokens of each generated text, its prompt included (CounterFact: 100);
            0 generates nothing, and what is measured on texts is NaN.
        generation_top_k: so many most probable tokens are sampled from; 1 is greedy.
        seed: of the sampling. A prompt's random numbers depend on nothing but the seed and its
            text, so that texts before and after an edit are comparable.
        max_batch: prompts that run side by side.
        progress: called between batches; may raise `Cancelled`.

    Returns:
        Dataset with

        - `nll` (nats per token, mean) and `accuracy` (share of tokens that are the top token) of
          (case, prompt_kind, prompt, target), `success` of (case, prompt_kind, prompt);
        - the shares `efficacy`, `paraphrase`, `neighbourhood`, `other_relations`, `languages`,
          `two_hop` of (case), means of `success` over the prompts of a case, and for each of them
          `..._magnitude`, the mean of P(right) - P(other) with P = exp(-nll);
        - `generation_entropy` (bits) and `consistency` (0 to 1) of (case), `generation` (text) of
          (case, prompt).

        `prompt` counts the prompts of a case within their kind; cells beyond them, and objects
        that a case does not name, are NaN. Coordinates `subject` of (case), `prompt_text` and
        `about` of (case, prompt_kind, prompt), `n_tokens` of (case, prompt_kind, prompt, target).

    Raises:
        OptionError: an option outside its choices.
        PromptError: prompts or objects that cannot be tokenised or merge, cases that lack the
            objects that the protocol compares; all offenders at once.
        ModelError: generation on a model that the decoding engine does not know.
        Cancelled: when `progress` asked to stop.

    Differs from the paper: shares and cosines are between 0 and 1, not times 100. Words are told
    apart by a regular expression, not by nltk. The inverse document frequencies of `consistency`
    come from the reference texts of all cases of the call, not from a file made of Wikipedia, so it
    compares runs on the same cases only. Prompt and object are tokenised as one text.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in _HINTS}
    del options["started"]
    check_options(model, protocol, generation_length, generation_top_k, seed, max_batch)
    given = as_prompt_set(cases, kind="edit")
    check_objects(given, protocol)
    how = Generations(generation_length, generation_top_k, seed)
    how.check(model, given)
    table = Table(given)
    scores = score_continuations(
        model, table.prompts, table.objects, max_batch=max_batch, progress=progress
    )
    written = how.write(model, given, progress)
    return new_result(
        table.variables(scores, protocol)
        | text_variables(given, [written] * len(given), table.width),
        table.coordinates(scores),
        method="evaluate_edit",
        version=1,
        model=model,
        prompts=given,
        options=options,
        seed=seed,
        started=started,
    )


def check_options(
    model: "Model", protocol: str, length: int, top_k: int, seed: int, max_batch: int | None
) -> None:
    """Refuse options out of range.

    Raises:
        OptionError: naming the option and what is allowed.
    """
    check_choice("protocol", protocol, PROTOCOLS)
    check_whole("generation_length", length, at_least=0)
    check_whole("generation_top_k", top_k, at_least=1)
    check_whole("seed", seed, at_least=0)
    check_whole("max_batch", max_batch, at_least=1, optional=True)
    if top_k > model.d_vocab:
        raise OptionError(
            f"generation_top_k={top_k} of {model.d_vocab} tokens. Allowed: 1 to that. Lower it."
        )
    if model.n_ctx is not None and length > model.n_ctx:
        raise OptionError(
            f"generation_length={length} tokens; {model.name} reads at most {model.n_ctx}. "
            "Allowed: 0 to that. Lower it."
        )
