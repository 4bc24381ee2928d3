"""What the retrieval page asks for: needles in haystacks, scored by head, and heads masked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self, TypeVar

import mechlab as ml
import runs
from drawn_request import SEEDS, DrawnRequest, asked_with, numbers_of, set_name

__all__ = [
    "FORMS", "MaskRequest", "RetrievalRequest", "example_of", "mask_request_of", "request_of",
]  # fmt: skip

R = TypeVar("R", bound="RetrievalRequest")

FORMS = {
    "atlas": "sentences of the shipped model",
    "text": "a story and a question",
    "key-value": "a list of keys and values",
}
"""Kinds of needles, in words."""

_USUAL_K = (1, 2, 5, 10, 20, 50)
_WRITING = {"stop": None, "success": 50.0, "chat": False}


@dataclass(frozen=True, kw_only=True)
class RetrievalRequest(DrawnRequest):
    """How much of the needle every head copies."""

    PAGE: ClassVar[str] = "retrieval"
    METHODS: ClassVar[tuple[str, ...]] = ("retrieval_score", "retrieval_curve")
    OPTIONS: ClassVar[tuple[str, ...]] = ("max_new_tokens",)
    OTHER_DEFAULTS: ClassVar[Mapping[str, Any]] = {**_WRITING, "dedupe": True}
    PLOT: ClassVar[str] = "ml.plots.sorted_scores(result).show()"
    MAKER: ClassVar[str] = "needles"

    form: str = "atlas"
    lengths: str = "128, 256, 480"
    """Whole numbers with commas between them."""
    depths: int = 5
    """How many, evenly from 0 to 100 per cent."""
    count: int = 1
    """How many different texts."""
    max_new_tokens: int = 12

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of `ml.prompts.needles`.

        Raises:
            PromptError: for lengths that are no numbers.
        """
        return {
            "lengths": numbers_of(self.lengths, "Lengths"), "depths": self.depths,
            "form": self.form, "count": self.count, "seed": self.seed,
        }  # fmt: skip

    @property
    def size(self) -> int:
        """How many prompts there are; 0 while lengths cannot be read."""
        try:
            return len(numbers_of(self.lengths, "Lengths")) * self.depths * self.count
        except ml.PromptError:
            return 0

    @property
    def label(self) -> str:
        """The needles in a few words."""
        if self.other_prompts:
            return "needles made in Python"
        texts = "" if self.count == 1 else f" × {self.count} texts"
        return f"{self.form} needles, {self.lengths} tokens × {self.depths} depths{texts}"

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Self:
        """Return the request that the fields make; lengths are tidied."""
        tidy = dict(values)
        tidy["lengths"] = ", ".join(str(tidy["lengths"]).replace(",", " ").split())
        return super().from_fields(tidy)


@dataclass(frozen=True, kw_only=True)
class MaskRequest(RetrievalRequest):
    """Recall with the best heads masked, against as many random ones."""

    METHODS: ClassVar[tuple[str, ...]] = ("retrieval_curve",)
    OPTIONS: ClassVar[tuple[str, ...]] = (
        "ranking", "exclude", "k", "draws", "mask", "phase", "max_new_tokens",
    )  # fmt: skip
    OTHER_DEFAULTS: ClassVar[Mapping[str, Any]] = {**_WRITING, "seed": 0}
    PLOT: ClassVar[str] = "ml.plots.mask_curve(result).show()"

    ranking: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    k: tuple[int, ...] = ()
    draws: int = 3
    mask: str = "uniform"
    phase: str = "decode"

    @property
    def runs_of_the_model(self) -> int:
        """How many answers are written."""
        return self.size * (1 + len(self.k) * (1 + self.draws))

    @classmethod
    def after(cls, request: RetrievalRequest, scores: Any, **options: Any) -> "MaskRequest":
        """Return what masks the heads of a stored result: those with the highest scores first.

        Heads at random are drawn among those that are no retrieval heads. The needles are others
        than those the scores come from, where the form has others.
        """
        mean = scores["retrieval_score_all"].mean("prompt")
        ranking = [str(head) for head in ml.top_heads(mean, k=mean.size)]
        chosen = [str(head) for head in _retrieval_heads(scores)]
        barred = chosen or ranking[:1]
        most = min(len(ranking), mean.size - len(barred))
        numbers = sorted({k for k in (*_USUAL_K, len(barred)) if k <= most}) or [1]
        same = {f.name: getattr(request, f.name) for f in fields(RetrievalRequest)}
        if request.form != "text":
            same["seed"] = request.seed + 1
        return cls(
            **{**same, "more": "{}"}, ranking=tuple(ranking[: max(numbers)]),
            exclude=tuple(barred), k=tuple(numbers), **options,
        )  # fmt: skip


def _retrieval_heads(scores: Any) -> list[Any]:
    try:
        return list(ml.retrieval_heads(scores))
    except ml.OptionError:  # no prompt was answered
        return list(ml.retrieval_heads(scores, score="retrieval_score_all"))


def example_of(model: str) -> RetrievalRequest:
    """Return needles that a model can read: those of the shipped one, or the published kind."""
    if model == "atlas":
        return RetrievalRequest(model=model)
    return RetrievalRequest(
        model=model, form="text", lengths="500, 1000", depths=5, max_new_tokens=50
    )


def request_of(result: Any, model: str) -> RetrievalRequest:
    """Return the scores that belong to a stored result, of scores or of masked heads."""
    found = _with_needles(RetrievalRequest(model=model), result)
    if result.attrs.get("method") == "retrieval_score" or found.form == "text" or not found.seed:
        return found
    ranked = replace(found, seed=found.seed - 1)  # heads masked: the page ranks on other needles
    return ranked if runs.find(ranked) else found


def mask_request_of(curve: Any, model: str) -> MaskRequest:
    """Return the request that a stored curve of masked heads answers."""
    return _with_needles(MaskRequest(model=model), curve)


def _with_needles(request: R, result: Any) -> R:
    lengths = list(dict.fromkeys(result["length"].values.tolist()))
    depths = len(set(result["depth"].values.tolist()))
    texts = max(1, result.sizes["prompt"] // max(1, len(lengths) * depths))
    grid = {"lengths": ", ".join(map(str, lengths)), "depths": depths, "count": texts}
    return asked_with(request, result, _candidates(grid, set_name(result)))


def _candidates(grid: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    form = name.removeprefix("needles, ")
    for one in FORMS if not name else {form} & FORMS.keys():  # a set of another name has no form
        for seed in SEEDS if one != "text" else SEEDS[:4]:
            yield {**grid, "form": one, "seed": seed}
