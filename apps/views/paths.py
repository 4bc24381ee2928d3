"""Paths: through which edges does a head act on the answer, and what acts on the head?"""

import streamlit as st

from components.carry import arrive
from components.page import ResultPage, result_page
from components.paths_fields import paths_fields, paths_options
from components.paths_picture import picture, trail_line
from pair_cost import paths_price
from paths_request import PathsRequest, request_of
from paths_view import partial_views, sender_grid

QUESTION = (
    "**Through which paths does the answer come about?** What senders write on the other prompt is "
    "shown to one receiver alone, everything else held; what that does to the answer is the effect "
    "of the path. Start at the logits, then make a strong sender the receiver and walk back."
)


def fields() -> None:
    """Draw the fields, and the way walked so far."""
    paths_fields()
    trail_line(str(st.session_state["in.paths.receiver"]).strip() or "logits")


def example(model: str) -> PathsRequest:
    """Return a pair that the shipped model answers both ways."""
    return PathsRequest(model=model)


arrive(PathsRequest)
result_page(
    ResultPage(
        first=PathsRequest(),
        question=QUESTION,
        hint="Press Run. Then click a sender to see both ends, and step back along the path.",
        fields=fields,
        options=paths_options,
        request_of=request_of,
        picture=picture,
        example=example,
        price=paths_price,
        partial_views=partial_views,
        views=lambda result: [sender_grid(result)],
        selections=("edge", "threshold"),
    )
)
