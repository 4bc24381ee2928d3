"""The logit lens at the chosen cell: what the state there would say next."""

from typing import Any

import streamlit as st

import loaded
import mechlab as ml
import runs
from components.progress import progress_words
from lens_request import LensRequest, cell_of_lens, lens_of, operations
from text import words
from trace_request import TraceRequest

__all__ = ["lens_panel"]

_AT_ONCE = 2e11
"""Operations that a processor does in about a second or two; more wait for a click."""


def lens_panel(asked: TraceRequest, site: str, layer: int, pos: int) -> None:
    """Draw the most probable tokens of one state, and where the answer stands among them."""
    request = lens_of(asked, site)
    run = runs.find(request) or _read_now(request)
    with st.container(key="lens"):
        st.markdown("**Logit lens** :small[:gray[the clean run, read here]]")
        if run is None:
            _offer(request)
        else:
            _table(run, asked, layer, pos)


def _table(run: str, asked: TraceRequest, layer: int, pos: int) -> None:
    cell = cell_of_lens(runs.load(run), layer, pos)
    rows = [
        {"rank": n + 1, "next token": ml.plots.show_token(token), "p": probability}
        for n, (token, probability) in enumerate(zip(cell.tokens, cell.probabilities, strict=True))
    ]
    config = {"p": st.column_config.ProgressColumn(format="%.3f", min_value=0.0, max_value=1.0)}
    st.dataframe(rows, hide_index=True, key="lens_rows", height=212, column_config=config)
    if cell.rank is not None:
        answer = words(asked.target, 30)
        st.caption(f"{answer}: rank {cell.rank + 1}, p = {cell.probability:.3f}")
    _take_as_answer(asked, cell.tokens)


def _take_as_answer(asked: TraceRequest, tokens: list[str]) -> None:
    others = [token for token in tokens if token.strip() and token.strip() != asked.target.strip()]
    with st.popover("Take another answer", width="stretch"):
        st.caption("Makes it the answer of the fields; press Run to trace it.")
        for token in others[:6]:
            st.button(
                words(ml.plots.show_token(token)), key=f"answer.{token}", type="tertiary",
                on_click=_set_answer, args=(token.strip(),),
            )  # fmt: skip


def _set_answer(token: str) -> None:
    st.session_state["in.target"] = token


def _read_now(request: LensRequest) -> str | None:
    """Read the lens at once when it is quick and nothing else runs; return its run id."""
    facts = loaded.summary(request.load_arguments)
    if not facts or any(job.active for job in ml.jobs.TABLE.jobs()):
        return None
    try:
        tokens = loaded.tokens(request.load_arguments, request.prompt)
        size = operations(
            int(facts["layers"]), len(tokens), int(facts["width"]),
            int(facts["vocabulary"].replace(",", "")),
        )  # fmt: skip
        if size > _AT_ONCE:
            return None
        key = request.compute(
            loaded.load(request.load_arguments), lambda progress: None, recompute=False
        )
    except ml.MechlabError as error:
        st.caption(words(str(error).splitlines()[0], 300))
        return None
    return key[:12]


def _offer(request: LensRequest) -> None:
    job: Any = runs.job_of(request)
    if job is not None and job.active:
        st.caption(words(progress_words(job)))
        st.button("Look again", key="lens_again", type="tertiary")
        return
    if job is not None and job.state == "failed":
        st.caption(f":red[{words(job.error.splitlines()[0], 200)}]")
    st.button(
        "Read it", key="lens_now", on_click=runs.start, args=(request,),
        help="One forward pass; loads the model first if need be.",
    )  # fmt: skip
