"""Causal trace: restore one state at a time in a run on a noised subject; see what comes back."""

from typing import Any

import streamlit as st

import mechlab as ml
import runs
from components.page import ResultPage, result_page
from components.states import Refusal
from components.trace_fields import option_fields, trace_prompt_fields
from components.trace_picture import picture
from cost import Cost, estimate
from request import Request
from trace_request import TraceRequest, example_of
from trace_view import fact_choices, partial_views, request_of

QUESTION = (
    "**Where does the model keep this fact?** The subject is blurred with noise, which makes the "
    "model forget; then one hidden state at a time is put back. Where that brings the answer back, "
    "the fact was there."
)


def asked(trace: Any, model: str) -> Request:
    """Return the request that the chosen fact of a result answers."""
    choices = fact_choices(trace)
    chosen = st.query_params.get("fact")
    return request_of(trace, chosen if chosen in choices else choices[0], model)


def price(request: TraceRequest) -> Cost:
    """Return what a trace would cost."""
    return estimate(request, runs.of_model(request))


def refused(trace: Any) -> Refusal | None:
    """Return why a single fact's trace means nothing: without a known answer nothing comes back.

    A trace that was run regardless (`known_only=False` in its options) is shown with that notice.
    """
    status = str(trace["status"].values[0])
    if trace.sizes["prompt"] > 1:
        return None
    if status == "ok":
        why = _other_answer(trace)
        return Refusal(why, shown=True) if why else None
    clean = float(trace["clean_probability"].values[0])
    said = ml.plots.show_token(str(trace["scored_token"].values[0]))
    return Refusal(
        f"{status} (p = {clean:.3f} for {said})",
        "Trace the model's own answer anyway",
        {"known_only": False},
    )


def _other_answer(trace: Any) -> str:
    """Return what the model says instead of the fact's answer; empty when it says that."""
    scored, target = (str(trace[name].values[0]) for name in ("scored_token", "target"))
    if not target or target.strip().startswith(scored.strip()):
        return ""
    answer, said = (ml.plots.show_token(token) for token in (target, scored))
    return f"the clean run does not predict {answer}: this is the trace of {said}, its own answer"


result_page(
    ResultPage(
        first=example_of("atlas"),
        question=QUESTION,
        hint="Press Run. Then click a cell to see what it brings back.",
        fields=trace_prompt_fields,
        options=option_fields,
        request_of=asked,
        picture=picture,
        example=example_of,
        price=price,
        partial_views=partial_views,
        refused=refused,
        selections=("layer", "pos", "site", "fact"),
    )
)
