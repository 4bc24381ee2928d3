"""Edits of many facts in many layers, as far as they are made and measured."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from mechlab.methods.editing import Edit
from mechlab.methods.evaluation import evaluate_each_edit, evaluate_edit
from mechlab.methods.evaluation.measures import MEASURES, Protocol, harmonic_mean
from mechlab.methods.evaluation.summary import SCORED
from mechlab.progress import Journal
from mechlab.prompts import EditCase, PromptSet
from mechlab.workflows.edit_plan import EditPlan
from mechlab.workflows.made_edits import NUMBERS, MadeEdit

__all__ = ["REQUEST", "Sweep", "plan_options", "request_coords"]

MEASURED = tuple(name for kind in MEASURES.values() for name in (kind, f"{kind}_magnitude"))
"""What an evaluation says of each case."""

CELLS = (*MEASURED, "case_score", "probability_true", "rewrite_score", "drift", *NUMBERS)
"""Variables of (case, layer), but for `probability_new_before`, which needs no layer."""

UNITS = {
    "drift": "nats", "steps": "count", "norm": "weight", "division_factor": "activation",
    "residual": "activation", "residual_bare": "activation",
}  # fmt: skip
REQUEST = ("template", "subject", "target", "target_true")
"""Fields of a request, kept as coordinates `request_...` of (case)."""


def plan_options(plan: EditPlan) -> dict[str, object]:
    """Return the options that decide a plan's edits, as results record them."""
    return {
        "variant": plan.variant, "site": plan.site, "key_statistics": plan.statistics.digest,
        "settings": dict(plan.settings), "contexts": list(plan.contexts), "seed": plan.seed,
    }  # fmt: skip


def request_coords(cases: PromptSet[EditCase], dim: str = "case") -> dict[str, Any]:
    """Return the labels and requests of cases as coordinates of an axis."""
    texts = {
        f"request_{name}": (dim, [getattr(case.request, name) for case in cases])
        for name in REQUEST
    }
    subjects = [case.request.subject for case in cases]
    return {dim: list(cases.labels), "subject": (dim, subjects)} | texts


class Sweep:
    """Edits of all cases in all layers, as far as they are measured."""

    def __init__(
        self,
        plan: EditPlan,
        cases: PromptSet[EditCase],
        layers: Sequence[int],
        protocol: Protocol,
        reference: xr.Dataset | None,
        max_batch: int | None,
    ) -> None:
        """Evaluate the model without an edit, and leave all else NaN."""
        self.plan, self.cases, self.layers = plan, cases, list(layers)
        self._how = {"protocol": protocol, "max_batch": max_batch}
        self._reference = reference
        self.before = evaluate_edit(plan.model, cases, **self._how)  # type: ignore[arg-type]
        shape = len(cases), len(self.layers)
        self.cells = {name: np.full(shape, np.nan) for name in CELLS}
        self.edits: dict[tuple[int, int], MadeEdit] = {}

    def run(self, journal: Journal | None) -> Iterator[int]:
        """Make and measure edits, layer by layer, and yield how many are done."""
        for column, layer in enumerate(self.layers):
            for row, case in enumerate(self.cases):
                made = self.plan.edit(case.request, layer, journal)
                self._measure(row, column, case, made)
                yield column * len(self.cases) + row + 1

    def edit_of(self, row: int, layer: int) -> Edit:
        """Return the edit of a case in a layer."""
        return self.edits[row, self.layers.index(layer)].edit

    def _measure(self, row: int, column: int, case: EditCase, made: MadeEdit) -> None:
        found = evaluate_each_edit(
            self.plan.model, PromptSet((case,)), [made.edit], reference=self._reference,
            **self._how,  # type: ignore[arg-type]
        )  # fmt: skip
        values = {name: float(found[name][0]) for name in (*MEASURED, "drift")}
        values |= made.numbers
        new, true = _probabilities(found)
        was = float(_probabilities(self.before)[0][row])
        values |= {
            "probability_new": float(new[0]), "probability_true": float(true[0]),
            "rewrite_score": (float(new[0]) - was) / (1 - was) if was < 1 else np.nan,
            "case_score": float(harmonic_mean(np.array([values[name] for name in SCORED]))),
        }  # fmt: skip
        for name in CELLS:
            self.cells[name][row, column] = values[name]
        self.edits[row, column] = made

    def variables(self) -> dict[str, Any]:
        """Return the variables of a result."""
        found: dict[str, Any] = {
            name: (("case", "layer"), self.cells[name], {"units": _unit(name)})
            for name in CELLS
            if name != "probability_new_before"
        }
        new, true = _probabilities(self.before)
        found |= {
            f"{name}_before": ("case", self.before[name].values, {"units": _unit(name)})
            for name in MEASURED
        }
        found["probability_new_before"] = ("case", new, {"units": "probability"})
        found["probability_true_before"] = ("case", true, {"units": "probability"})
        found["score"] = ("layer", self.scores(), {"units": "share"})
        return found | self._factors()

    def scores(self) -> np.ndarray[Any, Any]:
        """Return S of each layer over the cases, NaN where no case is measured."""
        found: np.ndarray[Any, Any] = harmonic_mean(self._means(SCORED))
        return found

    def margins(self) -> np.ndarray[Any, Any]:
        """Return the mean of the three magnitudes of each layer."""
        found: np.ndarray[Any, Any] = self._means([f"{name}_magnitude" for name in SCORED]).mean(0)
        return found

    def _means(self, names: Sequence[str]) -> np.ndarray[Any, Any]:
        """Return means over the cases, `[name, layer]`, NaN where no case is measured."""
        held = np.stack([self.cells[name] for name in names])
        there = (~np.isnan(held)).sum(1)
        return np.where(there > 0, np.nansum(held, 1) / np.maximum(there, 1), np.nan)

    def _factors(self) -> dict[str, Any]:
        place = self.plan.place(self.layers[0])
        width = {"left": place.d_out, "right": place.d_in}
        held = {
            name: np.full((len(self.cases), len(self.layers), size), np.nan)
            for name, size in width.items()
        }
        for at, made in self.edits.items():
            held["left"][at], held["right"][at] = made.factors
        return {
            "left": (("case", "layer", "d_out"), held["left"]),
            "right": (("case", "layer", "d_in"), held["right"]),
        }

    def coordinates(self) -> dict[str, Any]:
        """Return the coordinates of a result."""
        return request_coords(self.cases) | {"layer": self.layers}


def _unit(name: str) -> str:
    if "probability" in name or name.endswith("_magnitude"):
        return "probability"
    return UNITS.get(name, "share")


def _probabilities(result: xr.Dataset) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the probabilities of new and old object after the rewrite prompt, `[case]` each."""
    rewrite = np.exp(-result.nll.sel(prompt_kind="rewrite").isel(prompt=0))
    return rewrite.sel(target="target").values, rewrite.sel(target="target_true").values
