"""Causal traces of facts before and after their edits, as arrays of one shape."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.methods import Edit, causal_trace
from mechlab.methods.tracing.trace import check_trace
from mechlab.prompts import EditCase, Fact, PromptSet

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Traces", "TraceHow"]

_CELL = ("case", "site", "layer", "pos")
_EACH = ("total_effect", "clean_probability")


@dataclass(frozen=True)
class TraceHow:
    """Options of the traces."""

    window: int | None
    samples: int
    noise_scale: float
    seed: int
    max_batch: int | None

    def options(self, model: "Model", facts: Sequence[Fact]) -> dict[str, Any]:
        """Return the options of `causal_trace` for these facts."""
        writers = ["mlp_out", "attn_out"] if model.has_attention else ["mixer_out"]
        return {
            "sites": [writers[0], "resid_post", *writers[1:]],
            "window": self.window,
            "samples": self.samples,
            "noise_scale": self.noise_scale,
            "seed": self.seed,
            "max_batch": self.max_batch,
            "known_only": False,
            "score": "target" if all(fact.target for fact in facts) else "top",
        }


class Traces:
    """Both traces of every case, as far as they are done."""

    def __init__(self, model: "Model", cases: PromptSet[EditCase], how: TraceHow) -> None:
        """Check the options; nothing is run.

        Raises:
            OptionError, SiteError, PromptError: as `causal_trace`.
        """
        self.model, self.how = model, how
        self.facts = [case.request.fact for case in cases]
        new = [case.request.target for case in cases]
        self.new_facts = [
            replace(fact, target=target) for fact, target in zip(self.facts, new, strict=True)
        ]
        check_trace(model, self.facts, **how.options(model, self.facts))
        self.last = [model.subject_positions(fact)[1] for fact in self.facts]
        self.before: xr.Dataset | None = None
        self.after: dict[int, xr.Dataset] = {}

    def trace_before(self) -> None:
        """Trace all facts on the unedited model, scored on what is true there."""
        options = self.how.options(self.model, self.facts)
        self.before = causal_trace(self.model, PromptSet(tuple(self.facts)), **options)

    def trace_after(self, number: int, edit: Edit) -> None:
        """Trace one fact with its edit in force, scored on the new object."""
        fact = self.new_facts[number]
        with edit.applied(self.model):
            options = self.how.options(self.model, [fact])
            self.after[number] = causal_trace(self.model, fact, **options)

    def variables(self) -> dict[str, Any]:
        """Return `effect`, `trace_effect` and what is known of each fact; NaN where not traced."""
        before = self.before
        assert before is not None
        shape = before.indirect_effect.shape
        effect = np.full((2, *shape), np.nan)
        effect[0] = before.indirect_effect.values
        each = {name: np.full((2, shape[0]), np.nan) for name in _EACH}
        for name in _EACH:
            each[name][0] = before[name].values
        for number, trace in self.after.items():
            values = trace.indirect_effect.values[0]
            effect[1, number, ..., : values.shape[-1]] = values
            for name in _EACH:
                each[name][1, number] = trace[name].values[0]
        unit = {"units": "probability"}
        at_subject = effect[0, np.arange(shape[0]), 0, :, self.last]  # advanced axes come first
        return {
            "trace_effect": (("case", "layer"), at_subject, unit | {"site": self.writer}),
            "effect": (("stage", *_CELL), effect, unit),
            **{name: (("stage", "case"), values, unit) for name, values in each.items()},
        }

    def coordinates(self) -> dict[str, Any]:
        """Return the coordinates of `variables`."""
        before = self.before
        assert before is not None
        scored = np.full((2, len(self.facts)), "", object)
        scored[0] = before.scored_token.values
        for number, trace in self.after.items():
            scored[1, number] = trace.scored_token.values[0]
        return {
            "stage": ["before", "after"],
            "site": before.site.values,
            "pos": before.pos.values,
            "token": (("case", "pos"), before.token.values),
            "token_role": (("case", "pos"), before.token_role.values),
            "scored_token": (("stage", "case"), scored.astype(str)),
        }

    @property
    def writer(self) -> str:
        """The site whose effect is compared with edits: what the edited projection writes."""
        return "mlp_out" if self.model.has_attention else "mixer_out"
