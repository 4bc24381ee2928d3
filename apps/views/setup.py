"""Setup: which model, which prompt, and what the model makes of it."""

import streamlit as st

from components.picker import current, fact_fields, model_fields, prepare
from components.setup_model import model_state
from components.setup_prompt import prompt_state, upload
from trace_request import TraceRequest, example_of


def page() -> None:
    """Draw the model on the left, the fact on the right."""
    prepare(example_of("atlas"))
    model, fact = st.columns(2, gap="large")
    with model:
        st.subheader("Model")
        model_fields()
        model_state(current(TraceRequest))
    with fact:
        st.subheader("Prompt")
        fact_fields(stacked=True)
        prompt_state(current(TraceRequest))
        upload()


page()
