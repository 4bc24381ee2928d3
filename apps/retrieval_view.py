"""What the retrieval page shows of a result, as plain values. Nothing here touches Streamlit."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import mechlab as ml

__all__ = [
    "MASKS", "Read", "Written", "answered", "grid", "head_prompt", "mask_title", "partial_views",
    "prompt_names", "read_at", "score_name", "sorted_heads", "wrong_baseline",
]  # fmt: skip

MASKS = {"uniform": "uniform attention", "zero": "zero output"}
"""Ways to mask a head, in words."""


@dataclass(frozen=True)
class Written:
    """One token of an answer, and where a head looked when it was written."""

    token: str
    """As the page shows it."""
    position: int
    """Most attended position of the prompt; -1 where none is known."""
    place: str
    """`copied`, `needle` (looked at the needle, wrote another token), or `elsewhere`."""
    looked_at: str
    """The token there, where it is one of the needle."""


@dataclass(frozen=True)
class Read:
    """One head on one prompt: the haystack as a strip, the needle in it, and the answer."""

    tokens: int
    """Length of the prompt."""
    start: int
    """First token of the needle's answer; -1 without a needle."""
    needle: tuple[str, ...]
    """Tokens of the needle's answer, as the page shows them."""
    copied: tuple[bool, ...]
    """Which of them the head copied."""
    written: tuple[Written, ...]
    """The answer, step by step."""
    score: float
    """Share of the needle's tokens that was copied."""
    success: bool
    """Whether the model answered."""

    @property
    def window(self) -> tuple[int, int]:
        """Positions around the needle that a zoomed strip shows, end excluded."""
        if self.start < 0:
            return 0, self.tokens
        return max(0, self.start - 8), min(self.tokens, self.start + len(self.needle) + 8)


def answered(scores: Any) -> tuple[int, int]:
    """Return how many prompts with a needle were answered, and how many there are."""
    there = scores["found"].values
    return int((scores["success"].values & there).sum()), int(there.sum())


def score_name(scores: Any) -> str:
    """Return the variable to show: of answered prompts, or of all when none was answered."""
    return "retrieval_score" if answered(scores)[0] else "retrieval_score_all"


def grid(scores: Any) -> Any:
    """Return mean retrieval scores of heads by layer, from 0 to 1."""
    name = score_name(scores)
    view = ml.plots.head_views(scores, value=name)[0]
    which = "answered prompts" if name == "retrieval_score" else "all prompts, none was answered"
    top = max(1.0, float(np.nanmax(view.values, initial=0.0)))
    return replace(
        view, title=f"Retrieval score, mean over {which}", kind="sequential", limits=(0.0, top)
    )


def sorted_heads(scores: Any, threshold: float) -> tuple[Any, int]:
    """Return all heads in falling order of their score, and how many reach the threshold."""
    view = ml.plots.score_view(scores, value=score_name(scores))
    return view, int((view.values[view.state == 1] >= threshold - 1e-9).sum())


def partial_views(partial: Any) -> list[Any] | None:
    """Return the grid of an unfinished result; None while there is nothing to draw."""
    if "retrieval_score_all" not in partial:
        return None
    return [grid(partial)]


def wrong_baseline(result: Any) -> str:
    """Return why scores mean little: the model answers no prompt; else an empty text."""
    if "retrieval_score" not in result:
        return ""
    right, there = answered(result)
    if right:
        return ""
    wrote = str(result["text"].values[0])
    return (
        f"the model answers none of the {there} needles (to the first it wrote “{wrote[:60]}”), so "
        "no head can be said to fetch the answer"
    )


def mask_title(result: Any) -> str:
    """Return the title of masked heads, which names how they were masked."""
    mode, phase = str(result.attrs.get("mask", "")), str(result.attrs.get("phase", ""))
    when = "while writing" if phase == "decode" else "in the prompt too"
    return f"Recall with heads masked: {MASKS.get(mode, mode)}, {when}"


def prompt_names(scores: Any) -> list[str]:
    """Return what prompts are called, those with a needle only by their place."""
    return [str(label) for label in scores["prompt"].values]


def read_at(scores: Any, prompt: int, layer: int, head: int) -> Read:
    """Return what one head did on one prompt."""
    one = scores.isel(prompt=prompt)
    cell = one.isel(layer=layer, head=head)
    needle = [str(t) for t in one["needle_token"].values if str(t)]
    start = int(one["needle_start"])
    words = [str(t) for t in one["token"].values]
    looked = cell["attended"].values.astype(int)
    written = tuple(
        _step(word, at, int(looked[at]), start, needle) for at, word in enumerate(words) if word
    )
    return Read(
        tokens=int(one["tokens"]),
        start=start,
        needle=tuple(ml.plots.show_token(t, start + i) for i, t in enumerate(needle)),
        copied=tuple(bool(hit) for hit in cell["hits"].values[: len(needle)]),
        written=written,
        score=float(cell["score"]),
        success=bool(one["success"]),
    )


def _step(word: str, at: int, position: int, start: int, needle: list[str]) -> Written:
    inside = 0 <= position - start < len(needle) and start >= 0
    there = needle[position - start] if inside else ""
    place = "elsewhere" if not inside else "copied" if there == word else "needle"
    return Written(
        ml.plots.show_token(word, at), position, place,
        ml.plots.show_token(there, position) if inside else "",
    )  # fmt: skip


def head_prompt(prompt: Any) -> Any:
    """Return the needle and its question without the haystack, short enough to see a pattern."""
    text = f"{prompt.needle} {prompt.question}"
    return ml.prompts.Fact(text, subject=prompt.answer.strip(), target=prompt.answer.strip())
