"""Edit: write another fact into one layer, and see what came of it, before and after."""

from typing import Any

import streamlit as st

import edit_view
import runs
from components.active_edits import banner
from components.edit_fields import arrive_from_trace, edit_fields, edit_options
from components.edit_picture import picture
from components.page import ResultPage, result_page
from components.picker import model_request
from components.states import Refusal
from edit_request import example_of
from edit_stored import request_of
from edit_traces import partial_views, trace_pair
from request import Request

QUESTION = (
    "**Can this fact be rewritten here, and what else changes?** A change of rank one in one layer "
    "gives the prompt another object; the model is measured and traced before and after. The edit "
    "is put on the weights for each look and taken off again."
)


def asked(story: Any, model: str) -> Request:
    """Return the request that a result answers; its options are in the store's record."""
    record = runs.entry(str(st.query_params.get("run", "")))
    options = record.options if record is not None else {}
    return request_of(story, options, model)


def refused(story: Any) -> Refusal | None:
    """Return why an edit means nothing: the model said the new object before."""
    why = edit_view.wrong_baseline(story)
    return Refusal(why, "Show it anyway") if why else None


def views(story: Any) -> list[Any]:
    """Return the grids that are laid beside a pinned run: the trace after the edit."""
    return list(trace_pair(story)[2])


with st.container():  # whatever it shows, what is below keeps its place
    banner(model_request())
arrive_from_trace()
result_page(
    ResultPage(
        first=example_of("atlas"),
        question=QUESTION,
        hint="Press Run: the edit is made in a sandbox. Then put it in force to try other prompts.",
        fields=edit_fields,
        options=edit_options,
        request_of=asked,
        picture=picture,
        example=example_of,
        partial_views=partial_views,
        refused=refused,
        views=views,
        selections=("edit_case", "edit_site"),
    )
)
