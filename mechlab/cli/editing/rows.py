"""What an edit does to each request, prompt and written text, as rows of plain data."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.cli.editing.tables import plain

if TYPE_CHECKING:
    from mechlab.cli.editing.effects import Effects
    from mechlab.prompts import PromptSet

__all__ = ["generation_rows", "prompt_rows", "request_rows"]


def request_rows(cases: "PromptSet[Any]", effects: "Effects") -> list[dict[str, Any]]:
    """Return one row per request: its texts, probabilities and next tokens before and after."""
    rows = []
    found = [row for row in prompt_rows(cases, effects) if row["kind"] == "rewrite"]
    for number, (case, row) in enumerate(zip(cases, found, strict=True)):
        rows.append(
            {
                "prompt": case.request.prompt,
                "subject": case.request.subject,
                "target": case.request.target.strip(),
                "target_true": case.request.target_true.strip(),
                **{name: value for name, value in row.items() if name.startswith("prob")},
                "next_before": _named(effects.next_before, number),
                "next_after": _named(effects.next_after, number),
            }
        )
    return rows


def prompt_rows(cases: "PromptSet[Any]", effects: "Effects") -> list[dict[str, Any]]:
    """Return one row per scored prompt, in the order of cases and kinds."""
    from mechlab.prompts import PROMPT_KINDS

    after, before = effects.after, effects.before
    chance, earlier = np.exp(-after["nll"].values), np.exp(-before["nll"].values)
    rows = []
    for c, case in enumerate(cases):
        for k, kind in enumerate(PROMPT_KINDS):
            for p, prompt in enumerate(case.prompts_of(kind)):
                at = (c, k, p)
                rows.append({
                    "case": str(after["case"].values[c]), "kind": kind,
                    "prompt": prompt.prompt, "target": prompt.target.strip(),
                    "target_true": prompt.target_true.strip(), "about": prompt.about,
                    "success_before": plain(before["success"].values[at]),
                    "success": plain(after["success"].values[at]),
                    "probability_new_before": plain(earlier[at][0]),
                    "probability_new": plain(chance[at][0]),
                    "probability_true_before": plain(earlier[at][1]),
                    "probability_true": plain(chance[at][1]),
                })  # fmt: skip
    return rows


def generation_rows(cases: "PromptSet[Any]", effects: "Effects") -> list[dict[str, str]]:
    """Return the texts that were written before and after, where there are any."""
    after, before = effects.after["generation"], effects.before["generation"]
    return [
        {"prompt": prompt, "before": str(before.values[c, p]), "after": str(after.values[c, p])}
        for c, case in enumerate(cases)
        for p, prompt in enumerate(case.generation_prompts)
        if str(after.values[c, p])
    ]


def _named(found: Sequence[Sequence[tuple[str, float]]], number: int) -> list[dict[str, Any]]:
    if number >= len(found):
        return []
    return [{"token": token, "probability": plain(chance)} for token, chance in found[number]]
