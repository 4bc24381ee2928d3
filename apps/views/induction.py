"""Induction & CMR: which heads continue a list that comes again, and do they recall like people?"""

from typing import Any

import streamlit as st

import cost
from components.induction_picture import picture
from components.page import ResultPage, result_page
from components.picker import KEPT, adopt, checkpoint_field
from induction_request import InductionRequest, example_of, request_of
from induction_view import SCORES, Parts, grid, partial_views

QUESTION = (
    "**Which heads continue what was read before?** The model reads lists of random tokens, then "
    "the same lists again: only a head that finds the token's earlier place can tell what follows. "
    "The lag curve shows where around that place a head looks, beside a model of human recall."
)


def induction_fields() -> None:
    """Draw the lists."""
    if st.session_state.get("in.induction.other_prompts"):
        st.caption("This result's lists were made in Python; the fields below draw others.")
        model = str(st.session_state["in.model"])
        st.button("Use the fields", key="use_fields", on_click=adopt, args=(example_of(model),))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.number_input(
            "Tokens of a copy", 6, 2000, key="in.induction.length", width=150,
            help="Random distinct tokens.", **KEPT,
        )  # fmt: skip
        st.number_input(
            "Copies", 2, 8, key="in.induction.copies", width=110,
            help="How often each list is read.", **KEPT,
        )  # fmt: skip
        st.number_input(
            "Lists", 1, 200, key="in.induction.count", width=110,
            help="Intervals need at least four.", **KEPT,
        )  # fmt: skip
        st.number_input("Seed", 0, 10_000, key="in.induction.seed", width=110, **KEPT)


def induction_options() -> None:
    """Draw the model's training step, which is shared by all pages; say what a run carries out."""
    checkpoint_field()
    st.caption(
        "A run measures the scores, the attention by lag and the loss of each copy, on the same "
        "lists. Attention by lag is of scores before the softmax, as published."
    )


def price(request: InductionRequest) -> cost.Cost:
    """Return how many lists would be read."""
    return cost.like_last(
        request, 3 * request.count, lambda record: 3 * len(record.labels), "lists read"
    )


def views(result: Any) -> list[Any]:
    """Return the grid of prefix matching, to lay it beside a pinned run."""
    if "prefix_matching" not in result:
        return []
    parts = Parts(result, None, None, None, {})
    found = [grid(parts, name) for name in SCORES if name != "cmr_distance"]
    return [view for view in found if view is not None]


result_page(
    ResultPage(
        first=InductionRequest(),
        question=QUESTION,
        hint="Press Run. Then click a head to see its attention by lag.",
        fields=induction_fields,
        options=induction_options,
        request_of=request_of,
        picture=picture,
        example=example_of,
        price=price,
        partial_views=partial_views,
        views=views,
        selections=("layer", "head"),
    )
)
