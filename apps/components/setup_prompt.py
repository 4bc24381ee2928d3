"""The prompt on Setup: its tokens, subject and answer, what the model says, files of facts."""

from typing import Any

import streamlit as st

import loaded
import mechlab as ml
import prompt_files
import runs
from components.go import go
from lens_request import LensRequest, lens_of
from text import lines, words
from trace_request import TraceRequest

__all__ = ["prompt_state", "upload"]

_SAID = "prompt_file_said"


def prompt_state(request: TraceRequest) -> None:
    """Draw what is known of the fact, and the ways on."""
    try:
        fact = ml.prompts.Fact(request.prompt, subject=request.subject, target=request.target)
    except ml.MechlabError as error:
        st.error(lines(str(error)), icon=":material/error:")
        return
    seen = loaded.check(request.load_arguments, fact)
    if seen is None:
        st.caption("The tokens are shown once the model is loaded.")
    else:
        _strip(seen)
        for problem in seen.problems:
            st.warning(words(problem, 600), icon=":material/report:")
        _baseline(request)
    with st.container(horizontal=True):
        go("trace", "Trace it", key="to_trace")
        go("heads", "Heads", key="to_heads", fields={"in.heads.source": "fact"})
        go("induction", "Induction", key="to_induction")


def _strip(seen: loaded.PromptCheck) -> None:
    """Draw the tokens, the subject's in blue."""
    first, last = seen.subject or (-1, -2)
    shown = [
        f":{'blue' if first <= place <= last else 'gray'}-background"
        f"[{ml.plots.show_token(token, place, form='markdown')}]"
        for place, token in enumerate(seen.tokens)
    ]
    st.markdown("Tokens: " + " ".join(shown))
    if seen.target:
        answer = " ".join(
            f":green-background[{ml.plots.show_token(token, form='markdown')}]"
            for token in seen.target
        )
        st.markdown(f"Subject: tokens {first} to {last} · Answer: {answer}")


def _baseline(request: TraceRequest) -> None:
    """Draw what the model says in the end: the answer's rank, and the top tokens."""
    lens = _last_layer(request)
    if lens is None:
        return
    at = lens.isel(prompt=0, site=0, layer=-1, pos=-1)
    show = ml.plots.show_token
    top = zip(at["top_token"].values[:3], at["top_probability"].values[:3], strict=True)
    rows: list[dict[str, Any]] = [
        {"what": f"top {n}", "token": show(str(token)), "p": float(p), "rank": n}
        for n, (token, p) in enumerate(top, 1)
    ]
    if "answer" in [str(name) for name in at["answer"].values]:
        answer = at.sel(answer="answer")
        rank = int(answer["rank"]) + 1
        rows.insert(
            0,
            {
                "what": "answer", "token": show(str(answer["answer_token"].item())),
                "p": float(answer["probability"]), "rank": rank,
            },
        )  # fmt: skip
        if rank > 1:
            st.warning(
                f"The model does not predict this answer (rank {rank}): a trace of it would say "
                "little.",
                icon=":material/report:",
            )
    config = {"p": st.column_config.ProgressColumn(format="%.3f", min_value=0.0, max_value=1.0)}
    st.dataframe(rows, hide_index=True, key="baseline", column_config=config)


def _last_layer(request: TraceRequest) -> Any | None:
    """Return the lens of the last token, read at once when nothing else runs."""
    lens = lens_of(request, "resid_post")
    asked = LensRequest(**{**lens.__dict__, "positions": "last"})
    try:
        run = runs.find(asked)
        busy = any(job.active for job in ml.jobs.TABLE.jobs())
        if run is None and not busy and loaded.support(request.load_arguments) is not None:
            model = loaded.load(request.load_arguments)
            run = asked.compute(model, lambda progress: None, recompute=False)[:12]
        return None if run is None else runs.load(run)
    except ml.MechlabError as error:
        st.caption(words(str(error).splitlines()[0], 300))
        return None


def upload() -> None:
    """Draw the field that takes a file of facts."""
    said = st.session_state.pop(_SAID, None)
    if said is not None:
        kind, text = said
        (st.success if kind == "ok" else st.error)(text)
    with st.expander("A file of facts"):
        st.caption("CSV or JSON with the columns prompt, subject, target; at most 5 MB.")
        file = st.file_uploader("File", type=["csv", "json"], key="fact_file", max_upload_size=5)
        st.button("Take it", key="take_file", disabled=file is None, on_click=_take)
        for set_id, name in prompt_files.known().items():
            st.caption(f"{words(name)} :small[:gray[{set_id}]] · choose it on Causal trace")


def _take() -> None:
    file = st.session_state.get("fact_file")
    if file is None:
        return
    try:
        set_id = prompt_files.take(file.name, file.getvalue())
    except ml.MechlabError as error:
        st.session_state[_SAID] = ("error", words(str(error), 1500))
        return
    st.session_state["in.trace.prompt_set"] = set_id
    name = words(prompt_files.name_of(set_id))
    st.session_state[_SAID] = ("ok", f"{name}: chosen on Causal trace.")
