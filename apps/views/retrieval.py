"""Retrieval heads: which heads fetch the answer from a long text, and what is recalled without."""

from typing import Any

import streamlit as st

import cost
from components.page import ResultPage, result_page
from components.picker import KEPT, adopt
from components.retrieval_picture import picture
from components.states import Refusal
from retrieval_request import FORMS, RetrievalRequest, example_of, request_of
from retrieval_view import grid, partial_views, wrong_baseline

QUESTION = (
    "**Which heads fetch the answer from a long text?** A sentence is hidden at several depths of "
    "texts of several lengths, and the model is asked for it. A head's score is the share of the "
    "needle that it copies into the answer; masking the best heads shows what depends on them."
)


def retrieval_fields() -> None:
    """Draw what is hidden, and in what."""
    if st.session_state.get("in.retrieval.other_prompts"):
        st.caption("This result's needles were made in Python; the fields below draw others.")
        st.button("Use the fields", key="use_fields", on_click=adopt, args=(example_of(_model()),))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.selectbox(
            "Needles", list(FORMS), key="in.retrieval.form", format_func=FORMS.__getitem__,
            help="The shipped model reads its own kind; the others are for larger models.",
            width=250, **KEPT,
        )  # fmt: skip
        st.text_input(
            "Lengths", key="in.retrieval.lengths", width=180,
            help="Tokens of the whole prompt, with commas between them.", **KEPT,
        )  # fmt: skip
        st.number_input(
            "Depths", 1, 101, key="in.retrieval.depths", width=110,
            help="How many, evenly from 0 (beginning of the text) to 100 per cent.", **KEPT,
        )  # fmt: skip
        st.number_input(
            "Texts", 1, 20, key="in.retrieval.count", width=110,
            help="Different texts, each with needles of its own.", **KEPT,
        )  # fmt: skip


def retrieval_options() -> None:
    """Draw the options that are rarely changed."""
    st.number_input(
        "New tokens at most", 1, 200, key="in.retrieval.max_new_tokens",
        help="How long an answer may be.", **KEPT,
    )  # fmt: skip
    st.number_input("Seed of the needles", 0, 10_000, key="in.retrieval.seed", **KEPT)


def price(request: RetrievalRequest) -> cost.Cost:
    """Return how many answers would be written."""
    return cost.like_last(
        request, request.size or None, lambda record: len(record.labels), "answers written"
    )


def refused(result: Any) -> Refusal | None:
    """Return why scores say little: no needle is answered."""
    why = wrong_baseline(result)
    return Refusal(why, "Show what heads copied anyway") if why else None


def views(result: Any) -> list[Any]:
    """Return the grid of scores, to lay it beside a pinned run; none for masked heads."""
    return [grid(result)] if "retrieval_score" in result else []


def _model() -> str:
    return str(st.session_state["in.model"])


result_page(
    ResultPage(
        first=RetrievalRequest(),
        question=QUESTION,
        hint="Press Run. Then click a head to see what it copied and where it looked.",
        fields=retrieval_fields,
        options=retrieval_options,
        request_of=request_of,
        picture=picture,
        example=example_of,
        price=price,
        partial_views=partial_views,
        refused=refused,
        views=views,
        selections=("layer", "head"),
    )
)
