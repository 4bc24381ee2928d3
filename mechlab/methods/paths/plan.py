"""A call of path patching, checked: everything that can be refused without a forward pass."""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab import engine
from mechlab.canonical import plain
from mechlab.engine import Node, PathPrompt
from mechlab.errors import OptionError, SiteError
from mechlab.methods.paths.nodes import (
    check_nodes,
    label_of,
    receivers_of,
    require_heads,
    senders_of,
)
from mechlab.methods.paths.positions import Where, check_site_positions, positions_of
from mechlab.metrics import Metric, named_metric
from mechlab.models import ScoredPairs, scored_pairs
from mechlab.prompts import PromptPair, PromptSet

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["PathPatchPlan", "check_paths", "prepare", "proven_edges"]


@dataclass(frozen=True)
class PathPatchPlan:
    """A call, checked.

    Attributes:
        scored: texts, tokens and answers of the pairs.
        senders, receivers: the nodes, in the order of the result.
        where: positions at which each pair's senders are patched.
        direction: which run is patched.
    """

    scored: ScoredPairs
    senders: list[Node]
    receivers: list[Node]
    where: list[Where]
    direction: str

    def prompts(self) -> list[PathPrompt]:
        """Return the original and the other run of each pair, as the engine takes them."""
        original, new = self.scored.texts, self.scored.corrupted
        if self.direction == "denoising":
            original, new = new, original
        rows = zip(original, new, self.scored.answers, self.where, strict=True)
        return [PathPrompt(*row) for row in rows]

    def edges(self, *, parallel: bool) -> np.ndarray:
        """Return which edges exist, `[prompt, sender, receiver]`."""
        return engine.edges_of(
            self.senders, self.receivers, self.where, self.scored.lengths, parallel=parallel
        )


def prepare(
    model: "Model",
    pairs: PromptSet[PromptPair],
    *,
    senders: Any = "all_heads",
    receivers: Any = "logits",
    freeze: str = "heads",
    direction: str = "noising",
    ln: str = "recompute",
    positions: Any = "all",
    metric: str | Metric = "logit_diff",
) -> PathPatchPlan:
    """Check everything that can be checked without a forward pass.

    Raises:
        OptionError, SiteError, PromptError: as `path_patch` says.
    """
    require_heads(model)
    engine.check_choice("freeze", freeze, ("heads", "heads+mlps"))
    engine.check_choice("direction", direction, ("noising", "denoising"))
    engine.check_choice("ln", ln, ("recompute", "frozen"))
    _check_metric(metric)
    sending, receiving = senders_of(model, senders), receivers_of(model, receivers)
    check_nodes(model, sending, receiving)
    scored = scored_pairs(model, pairs)
    where = positions_of(model, pairs, positions, scored.lengths)
    check_site_positions([*sending, *receiving], scored.lengths)
    plan = PathPatchPlan(scored, sending, receiving, where, direction)
    # Sequential blocks have all edges of parallel ones; which of the two these are is measured.
    if not plan.edges(parallel=bool(model.parallel_blocks)).any():
        raise _no_edge(model, plan)
    return plan


def check_paths(model: "Model", prompts: PromptSet[PromptPair], **options: Any) -> None:
    """Check a whole set, so that all offenders are named before the first is computed."""
    known = inspect.signature(prepare).parameters
    prepare(model, prompts, **{name: value for name, value in options.items() if name in known})


def proven_edges(model: "Model", plan: PathPatchPlan) -> np.ndarray:
    """Return which edges exist on a verified model, `[prompt, sender, receiver]`.

    Raises:
        SiteError: when there is none.
    """
    edges = plan.edges(parallel=bool(model.parallel_blocks))
    if not edges.any():
        raise _no_edge(model, plan)
    return edges


def _check_metric(metric: object) -> None:
    """Refuse metrics that give no single number, or that no record can name.

    Raises:
        OptionError: with the reason.
    """
    found = named_metric(metric)  # type: ignore[arg-type]
    if (outputs := getattr(found, "outputs", 1)) != 1:
        raise OptionError(
            f"metric={metric!r:.60} gives {outputs} numbers per row. Allowed: a metric's name, or "
            "a function that gives one. Read one of them at a time."
        )
    try:
        plain(metric)
    except TypeError as error:
        raise OptionError(
            f"metric={metric!r:.60} cannot be recorded: {error}. Allowed: a metric's name, or a "
            "function that a module defines. Define it there instead of inside another function."
        ) from error


def _no_edge(model: "Model", plan: PathPatchPlan) -> SiteError:
    """Return the refusal of a call in which nothing could be measured."""
    pairs = [
        f"{label_of(s)} -> {label_of(r, receiver=True)}"
        for s in plan.senders
        for r in plan.receivers
    ]
    order = {
        True: "attention and MLP of a block read the same residual",
        False: "the MLP of a block comes after its attention",
        None: "the MLP of a block may come after its attention",  # not measured yet
    }[model.parallel_blocks]
    more = f" and {len(pairs) - 10} more" if len(pairs) > 10 else ""
    return SiteError(
        f"no such path on {model.name}: {', '.join(pairs[:10])}{more}.\n  Allowed: receivers after "
        f"the sender ({order}; heads of one block do not see each other), which read a position "
        "that the sender writes (heads are held, so nothing moves between positions; logits read "
        "the last one).\n  Change sender, receiver or positions; in a sweep such edges are NaN."
    )
