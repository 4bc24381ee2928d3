"""Setup: which model, which fact, and what the model sees of it."""

import streamlit as st

import loaded
import mechlab as ml
from components.picker import current, fact_fields, model_fields, prepare
from request import Request
from text import words
from trace_request import TraceRequest, example_of


def page() -> None:
    """Draw the model on the left, the fact on the right."""
    prepare(example_of("atlas"))
    model, fact = st.columns(2, gap="large")
    with model:
        st.subheader("Model")
        model_fields()
        _model_state(current(TraceRequest))
    with fact:
        st.subheader("Prompt")
        fact_fields(stacked=True)
        _prompt_state(current(TraceRequest))


def _model_state(request: Request) -> None:
    facts = loaded.summary(request.load_arguments)
    if not facts:
        st.info(
            "This model is not loaded. The first run loads it.", icon=":material/hourglass_empty:"
        )
    else:
        st.table([{"loaded model": name, "value": value} for name, value in facts.items()])
    with st.container(horizontal=True):
        st.button("Unload all", key="unload", on_click=loaded.drop_all, disabled=not facts)


def _prompt_state(request: TraceRequest) -> None:
    try:
        request.prompts()
        tokens = loaded.tokens(request.load_arguments, request.prompt)
    except ml.MechlabError as error:
        st.error(words(str(error), 600), icon=":material/error:")
        return
    if tokens:
        shown = [ml.plots.show_token(t, i, form="markdown") for i, t in enumerate(tokens)]
        st.markdown("Tokens: " + " ".join(f":gray-background[{token}]" for token in shown))
    else:
        st.caption("The tokens are shown once the model is loaded.")
    st.page_link("views/tracing.py", label="Trace it", icon=":material/grid_on:")


page()
