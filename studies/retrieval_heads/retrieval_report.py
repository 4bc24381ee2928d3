"""What the study found, as a table of numbers and self-contained pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from retrieval_claims import (
    Measured,
    answered,
    correlation_of_lengths,
    fall,
    share_strong,
)

import mechlab as ml

PUBLISHED = {
    "heads with a score of at least 0.1": "3 to 6 %",
    "heads with a score of at least 0.5": "less than 5 %",
    "heads with a score of exactly 0": "45 to 73 %",
}
"""Wu et al. 2024, on models of 7 billion parameters and more."""


def number_table(model: Measured, control: Measured, name: str) -> list[tuple[str, ...]]:
    """Return what was measured on both models, beside what was published for large ones."""
    found, other = dict(numbers(model)), dict(numbers(control))
    rows = [
        (text, found.get(text, ""), other.get(text, ""), PUBLISHED.get(text, ""))
        for text in dict.fromkeys([*found, *other])
    ]
    return [("measured", name, "untrained", "published, large models"), *rows]


def numbers(measured: Measured) -> Iterator[tuple[str, str]]:
    """Yield what was measured, by name."""
    scores = measured.scores
    yield "recall of needles", f"{float(scores.rouge1_recall.mean()):.1f} %"
    names = [str(head) for head in ml.retrieval_heads(scores)]
    yield "retrieval heads, strongest first", " ".join(names) or "none"
    kept = answered(measured)
    if kept.sizes["prompt"]:
        mean = kept.mean("prompt").values
        yield "heads with a score of at least 0.1", f"{100 * np.mean(mean >= 0.1 - 1e-9):.0f} %"
        yield "heads with a score of at least 0.5", f"{100 * share_strong(kept):.0f} %"
        yield "heads with a score of exactly 0", f"{100 * np.mean(mean == 0):.0f} %"
        yield "rank correlation between lengths", f"{correlation_of_lengths(kept):.2f}"
    for text, result in (("needles", measured.recall), ("closed book", measured.closed)):
        if not result.sizes["prompt"]:
            continue
        yield f"{text}: recall, nothing masked", f"{float(result.unmasked_recall.mean()):.1f} %"
        for k in np.unique(result.k):
            own, random = (float(fall(result, int(k), control=c).mean()) for c in (False, True))
            yield f"{text}: fall with {k} heads masked (random)", f"{own:.1f} ({random:.1f})"
        draws = result.effect.isel(head_set=((result.k == measured.k) & result.is_control).values)
        each = ", ".join(f"{0.0 - float(one):.1f}" for one in draws.mean("prompt"))
        yield f"{text}: fall with {measured.k} random heads, each draw", each


def figures(name: str, measured: Measured, folder: Path) -> list[Path]:
    """Write the pictures and return where they are."""
    grid = measured.scores.retrieval_score_all.mean("prompt")
    scored = f"{name}: share of the needle that each head copies, mean over prompts"
    made = {
        "scores": ml.plots.sorted_scores(
            measured.scores, value="retrieval_score_all", title=scored
        ),
        "heads": ml.plots.head_grid(grid, title=scored),
        "needles": ml.plots.mask_curve(
            measured.recall, title=f"{name}: recall of needles with k heads masked, other texts"
        ),
        "depths": ml.plots.length_by_depth(
            measured.scores, title=f"{name}: share of needles found, by tokens and by depth"
        ),
    }
    if measured.closed.sizes["prompt"]:
        made["closed_book"] = ml.plots.mask_curve(
            measured.closed, title=f"{name}: closed-book recall with k heads masked"
        )
    return [ml.plots.write_html(figure, folder / f"{kind}.html") for kind, figure in made.items()]
