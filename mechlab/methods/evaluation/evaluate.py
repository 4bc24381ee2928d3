"""Does an edit hold, does it generalise, and what else did it change? (`evaluate_edit`)."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.engine.options import check_choice, check_whole
from mechlab.errors import OptionError, PromptError
from mechlab.methods.evaluation.generating import Generations, generations
from mechlab.methods.evaluation.measures import (
    MEASURES,
    PROTOCOLS,
    Protocol,
    magnitudes,
    successes,
)
from mechlab.methods.evaluation.scoring import score_continuations
from mechlab.progress import ProgressCallback
from mechlab.prompts import PROMPT_KINDS, EditCase, PromptSet, as_prompt_set
from mechlab.prompts.edit_kind import CHANGED_KINDS
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["evaluate_edit"]

TARGETS = ("target", "target_true")
_HINTS = ("model", "cases", "progress", "max_batch")
_CELL = ("case", "prompt_kind", "prompt")


@analysis(version=1, prompt_kind="edit", default_plot="lines", per_prompt=False)
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
    _check_options(model, protocol, generation_length, generation_top_k, seed, max_batch)
    given = as_prompt_set(cases, kind="edit")
    _check_objects(given, protocol)
    texts = Generations(generation_length, generation_top_k, seed)
    texts.check(model, given)
    table = _Table(given)
    scores = score_continuations(
        model, table.prompts, table.objects, max_batch=max_batch, progress=progress
    )
    nll, accuracy, count = (table.fill([getattr(one, name) for one in scores])
                            for name in ("nll", "accuracy", "tokens"))  # fmt: skip
    there = ~np.isnan(count)
    success = successes(nll, accuracy, there, protocol)
    shares = {"units": "share", "protocol": protocol}
    variables: dict[str, Any] = {
        "nll": ((*_CELL, "target"), nll, {"units": "nats per token"}),
        "accuracy": ((*_CELL, "target"), accuracy, {"units": "share"}),
        "success": (_CELL, success, shares),
    }
    size = magnitudes(nll)
    for number, (kind, name) in enumerate(MEASURES.items()):
        about = {"prompt_kind": kind}
        variables[name] = ("case", _mean(success[:, number]), shares | about)
        variables[f"{name}_magnitude"] = (
            "case", _mean(size[:, number]), {"units": "probability"} | about,
        )  # fmt: skip
    variables |= generations(model, given, texts, table.width, progress)
    return new_result(
        variables,
        table.coordinates(count),
        method="evaluate_edit",
        version=1,
        model=model,
        prompts=given,
        options=options,
        seed=seed,
        started=started,
    )


def _mean(values: Any) -> Any:
    """Return the mean over prompts, NaN where there are none."""
    count = (~np.isnan(values)).sum(-1)
    return np.where(count > 0, np.nansum(values, -1) / np.maximum(count, 1), np.nan)


def _check_options(
    model: "Model", protocol: str, length: int, top_k: int, seed: int, max_batch: int | None
) -> None:
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


def _check_objects(cases: PromptSet[Any], protocol: str) -> None:
    """Refuse cases without the objects that decide a success."""
    bad = []
    for index, case in enumerate(cases):
        for kind in PROMPT_KINDS:
            right = "target" if kind in CHANGED_KINDS else "target_true"
            needed = TARGETS if protocol == "counterfact" else (right,)
            for number, prompt in enumerate(case.prompts_of(kind)):
                if missing := [name for name in needed if not getattr(prompt, name)]:
                    what = " and no ".join(missing)
                    bad.append(f"  #{index} {kind} {number} {prompt.prompt!r:.60} has no {what}")
    if bad:
        shown = bad[:50] + ([f"  and {len(bad) - 50} more"] if len(bad) > 50 else [])
        needs = "both objects" if protocol == "counterfact" else "the right object"
        raise PromptError(
            f"{len(bad)} prompts lack an object that protocol={protocol!r} needs:\n"
            + "\n".join(shown)
            + f"\n  Allowed: prompts with {needs}.\n"
            "  Give requests a target_true, or use protocol='exact', which compares no objects."
        )


class _Table:
    """Where each prompt and object of the cases stands in the result."""

    def __init__(self, cases: PromptSet[Any]) -> None:
        self.cases = cases
        found = [[case.prompts_of(kind) for kind in PROMPT_KINDS] for case in cases]
        self.width = max(max(map(len, of_case)) for of_case in found)
        self.width = max(self.width, *(len(case.generation_prompts) for case in cases))
        self.cells = {
            (c, k, p): prompt
            for c, of_case in enumerate(found)
            for k, of_kind in enumerate(of_case)
            for p, prompt in enumerate(of_kind)
        }
        places = [(*cell, t) for cell, prompt in self.cells.items()
                  for t, name in enumerate(TARGETS) if getattr(prompt, name)]  # fmt: skip
        self.index = tuple(np.array(places).T)
        self.prompts = [self.cells[c, k, p].prompt for c, k, p, _ in places]
        self.objects = [getattr(self.cells[c, k, p], TARGETS[t]) for c, k, p, t in places]

    def fill(self, values: Sequence[float]) -> Any:
        """Return values of (case, prompt_kind, prompt, target), NaN where there is no object."""
        shape = (len(self.cases), len(PROMPT_KINDS), self.width, len(TARGETS))
        array = np.full(shape, np.nan)
        array[self.index] = values
        return array

    def coordinates(self, count: Any) -> dict[str, Any]:
        """Return the coordinates of a result."""
        shape = (len(self.cases), len(PROMPT_KINDS), self.width)
        texts, abouts = np.full(shape, "", object), np.full(shape, "", object)
        for cell, prompt in self.cells.items():
            texts[cell], abouts[cell] = prompt.prompt, prompt.about
        return {
            "case": list(self.cases.labels),
            "subject": ("case", [case.request.subject for case in self.cases]),
            "prompt_kind": list(PROMPT_KINDS),
            "target": list(TARGETS),
            "prompt_text": (_CELL, texts),
            "about": (_CELL, abouts),
            "n_tokens": ((*_CELL, "target"), np.nan_to_num(count).astype(int)),
        }
