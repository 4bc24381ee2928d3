"""What both forms of patching share: the two runs of each pair, the cells, the result."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab import engine
from mechlab.engine import Grid
from mechlab.metrics import Metric, named_metric, units_of
from mechlab.models import ScoredPairs, scored_pairs
from mechlab.prompts import PromptPair, PromptSet

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["PairPlan", "check_pairs", "prepare"]

DIRECTIONS = ("denoising", "noising")


@dataclass(frozen=True)
class PairPlan:
    """A sweep over pairs, checked.

    Attributes:
        pairs: the pairs.
        grid: the cells.
        scored: texts and tokens of the pairs.
        denoising: whether clean values go into the corrupted run; else the other way round.
        metric: what is read.
        epsilon: smallest difference between clean and corrupted metric that can be recovered.
    """

    pairs: PromptSet[PromptPair]
    grid: Grid
    scored: ScoredPairs
    denoising: bool
    metric: str | Metric
    epsilon: float

    @property
    def targets(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Texts that are patched, and their lengths in tokens."""
        return self._side(corrupted=self.denoising)

    @property
    def sources(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Texts that values come from, and their lengths in tokens."""
        return self._side(corrupted=not self.denoising)

    def _side(self, *, corrupted: bool) -> tuple[tuple[str, ...], tuple[int, ...]]:
        if corrupted:
            return self.scored.corrupted, self.scored.corrupted_lengths
        return self.scored.texts, self.scored.lengths

    def variables(
        self, unpatched: np.ndarray, source: np.ndarray, effect: np.ndarray
    ) -> dict[str, Any]:
        """Return the variables of a result.

        Args:
            unpatched: metric of the runs that are patched, `[prompt]`.
            source: metric of the runs that values come from, `[prompt]`.
            effect: patched minus unpatched, in the axes of the grid.
        """
        clean, corrupted = (source, unpatched) if self.denoising else (unpatched, source)
        gap = np.where(np.abs(clean - corrupted) < self.epsilon, np.nan, clean - corrupted)
        column = (slice(None), *[None] * (effect.ndim - 1))
        start = unpatched - corrupted  # 0 when denoising
        recovered = ((start[column] + effect) / gap[column]).astype(np.float32)
        units = {"units": units_of(self.metric)}
        return {
            "effect": (self.grid.dims, effect, units),
            "recovered": (self.grid.dims, recovered, {"units": "fraction of clean - corrupted"}),
            "clean_metric": ("prompt", clean, units),
            "corrupted_metric": ("prompt", corrupted, units),
        }

    def coordinates(self, model: "Model") -> dict[str, Any]:
        """Return the coordinates of a result; `token` is that of the run that is patched."""
        texts, _ = self.targets
        answers = [[model.token_string(token) for token in pair] for pair in self.scored.answers]
        return {
            "prompt": list(self.pairs.labels),
            **self.grid.coordinates([model.token_strings(text) for text in texts]),
            "clean_prompt": ("prompt", [pair.clean for pair in self.pairs]),
            "corrupted_prompt": ("prompt", [pair.corrupted for pair in self.pairs]),
            "answer_token": ("prompt", [right for right, _ in answers]),
            "wrong_answer_token": ("prompt", [wrong for _, wrong in answers]),
        }


def prepare(
    model: "Model",
    pairs: PromptSet[PromptPair],
    *,
    site: str = "z",
    by: str = "head",
    layers: Sequence[int] | None = None,
    heads: Any = None,
    positions: Any = "all",
    direction: str = "denoising",
    metric: str | Metric = "logit_diff",
    epsilon: float = 1e-4,
) -> PairPlan:
    """Check everything that can be checked without a forward pass.

    Raises:
        OptionError, SiteError, PromptError: as the methods say.
    """
    if by in ("head", "kv_head"):
        engine.require_heads(model)
    engine.check_choice("direction", direction, DIRECTIONS)
    engine.check_choice("by", by, ("head", "kv_head", "layer"))
    engine.check_number("epsilon", epsilon, at_least=0)
    named_metric(metric)
    grid = Grid.make(model, site=site, by=by, layers=layers, heads=heads, positions=positions)
    patterns = site in ("pattern", "scores")  # their keys count positions as well
    scored = scored_pairs(
        model,
        pairs,
        same_length=grid.positions.aligned or patterns,
        way_out="" if patterns else "with positions='last' any",
    )
    denoising = direction == "denoising"
    plan = PairPlan(pairs, grid, scored, denoising, metric, epsilon)
    (_, here), (_, there) = plan.targets, plan.sources
    return replace(plan, grid=grid.within(model, pairs, here, others=there, corrupted=denoising))


def check_pairs(model: "Model", prompts: PromptSet[PromptPair], **options: Any) -> None:
    """Check a whole set, so that the store names all offenders before it computes the first."""
    known = _names(prepare)
    prepare(model, prompts, **{name: value for name, value in options.items() if name in known})


def _names(function: Callable[..., object]) -> set[str]:
    return set(inspect.signature(function).parameters)
