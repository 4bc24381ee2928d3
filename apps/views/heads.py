"""Heads: which ones write the answer, and what it loses without them.

Target and foil of the URL are what the chosen head's writes are split between, in its panel; the
grid stays that of the result's own answers.
"""

from typing import Any

from components.carry import arrive
from components.heads_fields import heads_fields, heads_options
from components.heads_picture import picture
from components.page import ResultPage, result_page
from components.states import Refusal
from heads_request import HeadsRequest, request_of
from heads_view import grid, partial_views, wrong_baseline
from pair_cost import heads_price

QUESTION = (
    "**Which heads write the answer?** Attribution splits the answer's logits into what every head "
    "and MLP wrote; ablation takes one away and patching replaces it by its value on the other "
    "prompt, to see what becomes of the answer."
)


def refused(result: Any) -> Refusal | None:
    """Return why the heads of a single pair say little: the model prefers the other answer.

    A set is shown all the same: conflicts in which the memory wins are what one looks for.
    """
    why = wrong_baseline(result) if result.sizes["prompt"] == 1 else ""
    return Refusal(why, "Show it anyway") if why else None


def example(model: str) -> HeadsRequest:
    """Return a pair that the shipped model answers both ways."""
    return HeadsRequest(model=model)


arrive(HeadsRequest)
result_page(
    ResultPage(
        first=HeadsRequest(),
        question=QUESTION,
        hint="Press Run. Then click a head to see where it looks and what it writes.",
        fields=heads_fields,
        options=heads_options,
        request_of=request_of,
        picture=picture,
        example=example,
        price=heads_price,
        partial_views=partial_views,
        refused=refused,
        views=lambda result: [grid(result)],
        selections=("layer", "head"),
    )
)
