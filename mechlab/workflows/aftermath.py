"""What many edits left behind: which hold, what else changed, whether the model still speaks."""

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.engine import check_number, check_whole
from mechlab.errors import OptionError
from mechlab.methods.editing.corpora import texts_of
from mechlab.methods.editing.rank_one import collect
from mechlab.methods.evaluation import next_token_reference, prediction_drift
from mechlab.methods.evaluation.scoring import score_continuations
from mechlab.methods.evaluation.table import check_objects
from mechlab.prompts import EditCase, PromptSet, ScoredPrompt
from mechlab.workflows.sweeping import request_coords

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["MEASURES", "Aftermath", "check_watch"]

MEASURES = (
    "efficacy",
    "efficacy_latest",
    "retention",
    "paraphrase",
    "neighbourhood",
    "drift",
    "nll_rise",
    "cumulative_norm",
    "relative_norm",
)
"""Variables of (step)."""

UNITS = {"drift": "nats", "nll_rise": "nats per token", "cumulative_norm": "weight"}
_LOOKED_THROUGH = 20_000
"""So many texts are looked through for held-out ones."""

Array = np.ndarray[Any, Any]


def check_watch(
    *,
    paraphrases: int,
    neighbourhood: int,
    texts: object,
    collapse_nll: float,
    seed: int,
    max_batch: int | None,
) -> None:
    """Refuse options out of range.

    Raises:
        OptionError: listing them all.
    """
    collect(
        (
            lambda: check_whole("paraphrases", paraphrases, at_least=0),
            lambda: check_whole("neighbourhood", neighbourhood, at_least=0),
            lambda: check_number("collapse_nll", collapse_nll, at_least=0),
            lambda: check_whole("seed", seed, at_least=0),
            lambda: check_whole("max_batch", max_batch, at_least=1, optional=True),
            lambda: _check_texts(texts),
        ),
        [],
    )


def _check_texts(texts: object) -> None:
    if texts is None:
        return
    several = isinstance(texts, Sequence) and not isinstance(texts, str) and len(texts) > 0
    if not several or not all(isinstance(one, str) and one.strip() for one in texts):  # type: ignore[attr-defined]
        raise OptionError(
            f"texts are {type(texts).__name__} {texts!r:.60}. Allowed: a list of texts that no "
            "edit is about, or None for some of the corpus of atlas. Give such a list."
        )


class Aftermath:
    """A series of measurements of one model with more and more edits in force."""

    def __init__(
        self,
        model: "Model",
        cases: PromptSet[EditCase],
        steps: Sequence[int],
        *,
        paraphrases: int,
        neighbourhood: int,
        texts: Sequence[str] | None,
        collapse_nll: float,
        seed: int,
        max_batch: int | None,
    ) -> None:
        """Decide what is watched, and measure the model as it is.

        Raises:
            PromptError: prompts or objects that cannot be tokenised or are missing, all at once.
        """
        check_objects(cases, "counterfact")
        self.model, self.cases, self.steps, self.max_batch = model, cases, list(steps), max_batch
        self._collapse = collapse_nll
        self._own = [case.prompts_of("rewrite")[0] for case in cases]
        self._more = [case.paraphrases[:paraphrases] for case in cases]
        self._near = untouched(cases, neighbourhood)
        self.texts = _held_out(model, cases, seed) if texts is None else list(texts)
        self._reference = next_token_reference(model, self.texts, max_batch=max_batch)
        self.values = {name: np.full(len(self.steps), np.nan) for name in MEASURES}
        self.collapsed = np.zeros(len(self.steps), dtype=bool)
        self.held = np.full((len(self.steps), len(cases)), np.nan)
        self.rise = np.full((len(self.steps), len(self.texts)), np.nan)
        self._before = self._right(self._own + self._near)[: len(cases)]

    def measure(self, column: int, norm: float, weight_norm: float) -> None:
        """Measure the model with the first `steps[column]` edits in force."""
        count = self.steps[column]
        earlier = self.steps[column - 1] if column else 0
        groups = [self._own[:count], [p for of in self._more[:count] for p in of], self._near]
        right = self._right([prompt for group in groups for prompt in group])
        own, more, near = np.split(right, np.cumsum([len(group) for group in groups])[:-1])
        drift = prediction_drift(self.model, self._reference, max_batch=self.max_batch)
        rise = float(drift.nll_change.mean())
        self.held[column, :count], self.rise[column] = own, drift.nll_change.mean("pos")
        found = {
            "efficacy": _mean(own),
            "efficacy_latest": _mean(own[earlier:]),
            "retention": _mean(own[:earlier]),
            "paraphrase": _mean(more),
            "neighbourhood": _mean(near),
            "drift": float(drift.kl.mean()),
            "nll_rise": rise,
            "cumulative_norm": norm,
            "relative_norm": norm / weight_norm if weight_norm else 0.0,
        }
        for name, value in found.items():
            self.values[name][column] = value
        self.collapsed[column] = not rise <= self._collapse

    def _right(self, prompts: Sequence[ScoredPrompt]) -> Array:
        """Return 1 where the right object beats the other one, 0 elsewhere, `[prompt]`.

        After prompts of the edited facts the new object is right, after untouched ones the old.
        """
        near = len(prompts) - len(self._near)
        objects = [text for one in prompts for text in (one.target, one.target_true)]
        texts = [one.prompt for one in prompts for _ in range(2)]
        if not texts:
            return np.empty(0)
        scores = score_continuations(self.model, texts, objects, max_batch=self.max_batch)
        nll = np.array([score.nll for score in scores]).reshape(-1, 2)
        new_wins, old_wins = nll[:, 0] < nll[:, 1], nll[:, 1] < nll[:, 0]
        return np.where(np.arange(len(nll)) < near, new_wins, old_wins).astype(float)

    @property
    def collapse_step(self) -> int:
        """Edits in force when the model was first seen collapsed; -1 for never."""
        found = np.flatnonzero(self.collapsed)
        return self.steps[int(found[0])] if len(found) else -1

    def variables(self) -> dict[str, Any]:
        """Return what is measured so far, NaN elsewhere."""
        held = {
            name: ("step", values, {"units": UNITS.get(name, "share")})
            for name, values in self.values.items()
        }
        about = {"units": "truth value", "criterion": f"nll_rise > {self._collapse:g}"}
        collapsed = {"collapsed": ("step", self.collapsed, about)}
        return {
            **held,
            **collapsed,
            "held": (("step", "edit"), self.held, {"units": "share"}),
            "held_before": ("edit", self._before, {"units": "share"}),
            "text_nll_rise": (("step", "prompt"), self.rise, {"units": "nats per token"}),
        }

    def coordinates(self) -> dict[str, Any]:
        """Return the coordinates of `variables`."""
        return {"step": self.steps, "prompt": self.texts} | request_coords(self.cases, "edit")

    def about(self) -> dict[str, int]:
        """Return attributes that say what was watched."""
        return {
            "watched_neighbours": len(self._near),
            "held_out_texts": len(self.texts),
            "collapse_step": self.collapse_step,
        }


def untouched(cases: PromptSet[EditCase], most: int) -> list[ScoredPrompt]:
    """Return neighbourhood prompts in which no edited subject occurs, each text once, evenly.

    Where countries are edited by the dozen, most neighbours of one are themselves edited sooner or
    later, and what is right after them changes.
    """
    subjects = {case.request.subject for case in cases}
    found: dict[str, ScoredPrompt] = {}
    for case in cases:
        for one in case.neighbourhood:
            if not any(subject in one.prompt for subject in subjects):
                found.setdefault(one.prompt, one)
    every = list(found.values())
    picks = np.unique(np.linspace(0, len(every) - 1, min(most, len(every))).round().astype(int))
    return [every[pick] for pick in picks]


def _held_out(model: "Model", cases: PromptSet[EditCase], seed: int, count: int = 40) -> list[str]:
    """Return texts of the shipped corpus, of another seed, in which no edited subject occurs."""
    subjects = {case.request.subject for case in cases}
    every = islice(texts_of("atlas", seed=seed + 1, vocabulary=model.d_vocab), _LOOKED_THROUGH)
    most = min(model.n_ctx or 512, 256)
    free = (
        text
        for text in every
        if not any(subject in text for subject in subjects)
        and 8 <= len(model.tokenize(text).row(0)) <= most
    )
    if not (found := list(islice(free, count))):
        raise OptionError(
            f"none of {_LOOKED_THROUGH} texts of the shipped corpus is about other things than the "
            "edits. Allowed: texts=, a list of texts. Give held-out texts of your own."
        )
    return found


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")
