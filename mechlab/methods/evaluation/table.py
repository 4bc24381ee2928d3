"""Where each prompt and object of edit cases stands in a result, and what follows from scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mechlab.errors import PromptError
from mechlab.methods.evaluation.measures import MEASURES, Protocol, magnitudes, successes
from mechlab.methods.evaluation.scoring import Score
from mechlab.prompts import PROMPT_KINDS, PromptSet
from mechlab.prompts.edit_kind import CHANGED_KINDS

__all__ = ["Table", "check_objects"]

TARGETS = ("target", "target_true")
CELL = ("case", "prompt_kind", "prompt")


class Table:
    """Where each prompt and object of the cases stands in the result."""

    def __init__(self, cases: PromptSet[Any]) -> None:
        """Give every prompt its cell, and every object that a case names."""
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

    def variables(self, scores: Sequence[Score], protocol: Protocol) -> dict[str, Any]:
        """Return what follows from the scores of `prompts` and `objects`, in their order."""
        nll, accuracy = (
            self.fill([getattr(one, name) for one in scores]) for name in ("nll", "accuracy")
        )
        there = ~np.isnan(self.fill([0.0] * len(scores)))
        success, size = successes(nll, accuracy, there, protocol), magnitudes(nll)
        shares = {"units": "share", "protocol": protocol}
        found: dict[str, Any] = {
            "nll": ((*CELL, "target"), nll, {"units": "nats per token"}),
            "accuracy": ((*CELL, "target"), accuracy, {"units": "share"}),
            "success": (CELL, success, shares),
        }
        for number, (kind, name) in enumerate(MEASURES.items()):
            about = {"prompt_kind": kind}
            found[name] = ("case", _mean(success[:, number]), shares | about)
            found[f"{name}_magnitude"] = (
                "case", _mean(size[:, number]), {"units": "probability"} | about,
            )  # fmt: skip
        return found

    def coordinates(self, scores: Sequence[Score]) -> dict[str, Any]:
        """Return the coordinates of a result."""
        shape = (len(self.cases), len(PROMPT_KINDS), self.width)
        count = np.nan_to_num(self.fill([one.tokens for one in scores]))
        texts, abouts = np.full(shape, "", object), np.full(shape, "", object)
        for cell, prompt in self.cells.items():
            texts[cell], abouts[cell] = prompt.prompt, prompt.about
        return {
            "case": list(self.cases.labels),
            "subject": ("case", [case.request.subject for case in self.cases]),
            "prompt_kind": list(PROMPT_KINDS),
            "target": list(TARGETS),
            "prompt_text": (CELL, texts),
            "about": (CELL, abouts),
            "n_tokens": ((*CELL, "target"), count.astype(int)),
        }


def check_objects(cases: PromptSet[Any], protocol: str) -> None:
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


def _mean(values: Any) -> Any:
    """Return the mean over prompts, NaN where there are none."""
    count = (~np.isnan(values)).sum(-1)
    return np.where(count > 0, np.nansum(values, -1) / np.maximum(count, 1), np.nan)
