"""The logit lens at the chosen cell: what the state there would say next."""

from typing import Any

import streamlit as st

import loaded
import mechlab as ml
import runs
from components.carry import ask_whole_page
from components.progress import progress_words
from components.selection import select_tokens
from lens_request import LensCell, LensRequest, cell_of_lens, lens_of, operations
from text import signed, words
from trace_request import TraceRequest

__all__ = ["lens_panel"]

_AT_ONCE = 2e11
"""Operations that a processor does in about a second or two; more wait for a click."""


def lens_panel(asked: TraceRequest, site: str, layer: int, pos: int) -> None:
    """Draw the most probable tokens of one state, and where target and foil stand among them.

    The target is the fact's answer unless the URL names another token. That changes what is read
    here alone: the trace goes on answering for its own token until another one is traced.
    """
    with st.container(key="lens"):
        st.markdown("**Logit lens** :small[:gray[the clean run, read here]]")
        place = st.container()
        tokens = select_tokens(asked, asked.prompt, usual=(asked.target, ""))
        request = lens_of(asked, site, target=tokens.target, foil=tokens.foil)
        run = runs.find(request) or _read_now(request)
        told = run or runs.find(lens_of(asked, site))  # its top tokens are the same
        if told is not None:
            cell = cell_of_lens(runs.load(told), layer, pos)
            with place:
                _table(cell, request)
        if run is None:
            _offer(request)
        else:
            _followed(cell)
        if tokens.target:
            st.button(
                f"Trace {words(tokens.target, 30)} instead", key="trace_target", type="tertiary",
                on_click=_trace_target, args=(tokens.target,),
                help="Makes it the answer of the fields; the picture stays until you press Run.",
            )  # fmt: skip


def _table(cell: LensCell, request: LensRequest) -> None:
    """Draw the top tokens, each with a button that makes it the target and one for the foil."""
    sides = {"target": request.target, "foil": request.foil}
    # Only a token that begins with a space can follow the prompt as an answer.
    rows = [
        {"next token": ml.plots.show_token(token), "p": probability}
        | {side: _mark(token, text) for side, text in sides.items()}
        for token, probability in zip(cell.tokens, cell.probabilities, strict=True)
    ]
    config: dict[str, Any] = {
        side: st.column_config.ButtonColumn(
            side, type="tertiary", width=44, help=f"Read for this token as the {side}.",
            on_click=_take, args=(side, cell.tokens), key=f"take.{side}",
        )
        for side in sides
    }  # fmt: skip
    config["p"] = st.column_config.NumberColumn(format="%.3f", width=48)
    st.dataframe(rows, hide_index=True, key="lens_rows", height=212, column_config=config)


def _mark(token: str, chosen: str) -> str | None:
    if not token.startswith(" ") or not token.strip():
        return None
    return "●" if token.strip() == chosen else "○"


def _take(side: str, tokens: list[str]) -> None:
    """Callback of a button in the table: only writes the field, which the URL follows."""
    click = st.session_state[f"take.{side}"]
    if click is not None and click["row"] < len(tokens):
        st.session_state[side] = tokens[click["row"]].strip()


def _followed(cell: LensCell) -> None:
    """Write where target and foil stand, and their difference."""
    lines = [
        f"{one.name} {words(ml.plots.show_token(one.token))}: rank {one.rank + 1}, "
        f"p = {one.probability:.3f}"
        for one in cell.followed
    ]
    if len(cell.followed) == 2:
        target, foil = cell.followed
        lines.append(f"target − foil: {signed(target.logit - foil.logit, 2)} logits")
    st.caption("  \n".join(lines))


def _trace_target(token: str) -> None:
    """Callback: the fields ask for another answer; the stored trace is not touched."""
    st.session_state["in.target"] = token
    st.session_state["target"] = ""
    ask_whole_page()


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
