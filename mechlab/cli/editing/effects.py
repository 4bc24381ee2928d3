"""What an edit does, measured before and with it in force: all that the commands show."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.errors import OptionError

if TYPE_CHECKING:
    import xarray as xr

    from mechlab.methods import Edit
    from mechlab.models import Model
    from mechlab.prompts import PromptSet
    from mechlab.store import Store

__all__ = ["Compared", "Effects", "Look", "held_out_texts", "measure"]

_PREDICTED = 5  # next tokens that are told
_MOST = 10  # prompts whose next tokens are told

Tokens = list[tuple[str, float]]


@dataclass(frozen=True)
class Look:
    """What is measured besides the scores of the cases' prompts.

    Attributes:
        new_tokens: how many are written after the longest generation prompt; 0 for no texts.
        texts: texts about something else, on which the drift of predictions is measured.
    """

    new_tokens: int = 16
    texts: tuple[str, ...] = ()

    def options(self, model: "Model", cases: "PromptSet[Any]") -> dict[str, Any]:
        """Return the options of `evaluate_edit`: greedy texts, and a protocol the cases allow."""
        prompts = [text for case in cases for text in case.generation_prompts]
        length = 0
        if self.new_tokens and prompts:
            length = max(model.tokenize(prompts).lengths) + self.new_tokens
            length = length if model.n_ctx is None else min(length, model.n_ctx)
        return {
            "protocol": protocol_of(cases),
            "generation_length": length,
            "generation_top_k": 1,
        }


@dataclass(frozen=True)
class Compared:
    """The same cases before and with an edit.

    Attributes:
        before: result of `evaluate_edit` on the unedited model.
        after: the same with the edit, or edits, in force.
    """

    before: "xr.Dataset"
    after: "xr.Dataset"

    @property
    def summary(self) -> "xr.Dataset":
        """Averages with intervals, and what changed."""
        from mechlab.methods.evaluation import edit_summary

        return edit_summary(self.after, before=self.before)

    @property
    def summary_before(self) -> "xr.Dataset":
        """Averages with intervals of the unedited model."""
        from mechlab.methods.evaluation import edit_summary

        return edit_summary(self.before)


@dataclass(frozen=True)
class Effects(Compared):
    """Measurements of a model before and with an edit.

    Attributes:
        next_before: per case, the most probable tokens after the edited prompt.
        next_after: the same with the edit in force.
        drift: result of `prediction_drift`; `None` without texts.
    """

    next_before: list[Tokens]
    next_after: list[Tokens]
    drift: "xr.Dataset | None"


@dataclass(frozen=True)
class Before:
    """What is known of the model before it is edited, and how to measure the same again."""

    store: "Store"
    model: "Model"
    cases: "PromptSet[Any]"
    look: Look
    evaluation: "xr.Dataset"
    predicted: list[Tokens]
    reference: "xr.Dataset | None"

    def with_edit(self, edit: "Edit") -> Effects:
        """Measure all of it with an edit in force."""
        from mechlab.methods.evaluation import prediction_drift

        options = self.look.options(self.model, self.cases)
        with edit.applied(self.model):
            after = _evaluation(self.store, self.model, self.cases, options)
            predicted = _next_tokens(self.model, self.cases)
            drift = None if self.reference is None else prediction_drift(self.model, self.reference)
        return Effects(self.evaluation, after, self.predicted, predicted, drift)


def measure(store: "Store", model: "Model", cases: "PromptSet[Any]", look: Look) -> Before:
    """Measure the model as it is.

    Args:
        store: where evaluations are kept.
        model: the model.
        cases: what to look at.
        look: what else to measure.

    Raises:
        PromptError, ModelError: as `evaluate_edit`.
    """
    from mechlab.methods.evaluation import next_token_reference

    evaluation = _evaluation(store, model, cases, look.options(model, cases))
    reference = next_token_reference(model, look.texts) if look.texts else None
    return Before(store, model, cases, look, evaluation, _next_tokens(model, cases), reference)


def held_out_texts(corpus: Any, count: int, model: "Model") -> tuple[str, ...]:
    """Return the beginnings of texts of a corpus; of the generated one others than are counted.

    Raises:
        OptionError: for a negative count.
    """
    from itertools import islice

    from mechlab.methods.editing.corpora import check_corpus, texts_of

    if count < 0:
        raise OptionError(f"--drift {count}. Allowed: a number of texts from 0. Correct it.")
    check_corpus(corpus)
    texts = texts_of(corpus, seed=1, vocabulary=model.d_vocab)
    return tuple(dict.fromkeys(text[:300] for text in islice(texts, count)))


def protocol_of(cases: "PromptSet[Any]") -> str:
    """Return `counterfact`, which compares both objects, or `exact` where one may be missing."""
    from mechlab.prompts import PROMPT_KINDS

    both = all(
        prompt.target and prompt.target_true
        for case in cases
        for kind in PROMPT_KINDS
        for prompt in case.prompts_of(kind)
    )
    return "counterfact" if both else "exact"


def _evaluation(
    store: "Store", model: "Model", cases: "PromptSet[Any]", options: dict[str, Any]
) -> "xr.Dataset":
    from mechlab.methods import evaluate_edit

    return store.run(evaluate_edit, model, cases, **options)


def _next_tokens(model: "Model", cases: "PromptSet[Any]") -> list[Tokens]:
    """Return the most probable tokens after the edited prompts of the first cases."""
    from mechlab.methods.evaluation import next_token_reference

    prompts = [case.request.prompt for case in cases][:_MOST]
    logs = next_token_reference(model, prompts)["log_probability"].values
    last = (~np.isnan(logs[..., 0])).sum(1) - 1
    found = []
    for row, place in zip(logs, last, strict=True):
        best = np.argsort(-row[place], kind="stable")[:_PREDICTED]
        found.append([(model.token_string(int(t)), float(np.exp(row[place, t]))) for t in best])
    return found
