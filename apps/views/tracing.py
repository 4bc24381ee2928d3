"""Causal trace: restore one state at a time in a run on a noised subject; see what comes back."""

from typing import Any

import streamlit as st

import mechlab as ml
import runs
from components.bar import words
from components.picker import adopt, current_request, example_of, fact_fields, option_fields
from components.progress import follow
from components.trace_picture import picture
from cost import estimate
from request import Request
from trace_view import fact_choices, request_of

QUESTION = (
    "**Where does the model keep this fact?** The subject is blurred with noise, which makes the "
    "model forget; then one hidden state at a time is put back. Where that brings the answer back, "
    "the fact was there."
)


def page() -> None:
    """Settle which result is meant, draw the fields, then the state that the page is in."""
    link = st.query_params.to_dict()  # before any field: what a field cannot use, it drops silently
    trace = _linked(link.get("run"))
    if trace is not None:
        _adopt_once(link["run"], trace)
    fact_fields()
    request = current_request()
    trace, request = _settle(trace, request)
    _actions(request, trace is not None)
    job = runs.job_of(request)
    if job is not None and job.active:
        follow(job.id)
    elif trace is not None:
        _result(trace, request, link)
    else:
        _nothing_yet(request, job)


def _linked(run: str | None) -> Any | None:
    """Return the result that the link names; say so when it cannot be shown."""
    if run is None:
        return None
    try:
        trace = runs.load(run)
    except ml.StoreError as error:
        st.error(words(str(error), 1000), icon=":material/broken_image:")
        trace = None
    else:
        if trace is None:
            _bad_link(run)
    if trace is None:
        del st.query_params["run"]
    return trace


def _bad_link(run: str) -> None:
    known = runs.recent()
    newest = f" The newest is {known[0].id}." if known else ""
    why = "is not in this store" if runs.is_run_id(run) else "is not a run id (12 hex digits)"
    st.warning(
        f"The link asked for run {words(run, 40)}, which {why}. "
        f"It holds {len(known)} traces.{newest} Run the trace here.",
        icon=":material/link_off:",
    )


def _adopt_once(run: str, trace: Any) -> None:
    """Take the inputs of a result into the fields when it is first shown, not on every rerun."""
    if st.session_state.get("adopted") != run:
        st.session_state["adopted"] = run
        adopt(request_of(trace, _fact(trace), _loadable(trace)))


def _loadable(trace: Any) -> str:
    """Return what to load: the result's model, or the folder in use if it has that name."""
    name = str(trace.attrs.get("model_name", "atlas"))
    current = current_request()
    return current.model if current.model_name == name else name


def _fact(trace: Any) -> str:
    choices = fact_choices(trace)
    chosen = st.query_params.get("fact")
    return chosen if chosen in choices else choices[0]


def _settle(trace: Any | None, request: Request) -> tuple[Any | None, Request]:
    """Show the stored result of what the fields say, if there is one."""
    if trace is not None and not _differences(trace, request):
        return trace, request
    run = runs.find(request)
    if run is None:
        return trace, request
    st.query_params["run"] = run
    st.session_state["adopted"] = run
    return runs.load(run), request


def _differences(trace: Any, request: Request) -> list[str]:
    return request.differences(request_of(trace, _fact(trace), request.model))


def _actions(request: Request, has_result: bool) -> None:
    """Draw the options and the buttons that run something."""
    problem = _problem(request)
    with st.container(horizontal=True, vertical_alignment="center", key="actions"):
        again = has_result and runs.find(request) is not None
        st.button(
            "Run again" if again else "Run", key="run_now", disabled=bool(problem),
            type="secondary" if again else "primary",
            icon=":material/replay:" if again else ":material/play_arrow:",
            on_click=_start, args=(request, has_result),
        )  # fmt: skip
        with st.popover("Options", icon=":material/tune:", width="content"):
            option_fields()
            if request.more != "{}":
                st.caption(f"Also, from the stored result: {words(request.more)}")
            st.page_link("views/setup.py", label="Change the model", icon=":material/memory:")
        _stored_menu()
        if problem:
            st.markdown(f":red[:material/error: {words(problem, 300)}]")
        else:
            told = estimate(request, runs.of_model(request)).in_words()
            st.caption(
                f"stored result · running again replaces it: {told}" if again else told,
                width="content",
            )


def _problem(request: Request) -> str:
    """Return why the request cannot be run, in a sentence; empty when it can."""
    if not request.sites:
        return "Choose at least one state to restore."
    try:
        request.fact()
    except ml.MechlabError as error:
        return str(error).splitlines()[0]
    return ""


def _start(request: Request, again: bool = False) -> None:
    runs.start(request, recompute=again and runs.find(request) is not None)


def _stored_menu() -> None:
    with st.popover("Stored traces", icon=":material/inventory_2:"):
        known = runs.recent()
        if not known:
            st.caption("Nothing is stored yet.")
        for entry in known[:20]:
            more = f" and {len(entry.labels) - 1} more" if len(entry.labels) > 1 else ""
            when = entry.created[:16].replace("T", " ")
            st.button(
                words(f"{entry.labels[0]}{more} · {entry.model_name} · {when}", 90),
                key=f"open.{entry.id}", type="tertiary", on_click=_open, args=(entry.id,),
            )  # fmt: skip


def _open(run: str) -> None:
    for name in ("layer", "pos", "site", "fact"):
        st.session_state.pop(name, None)
    st.query_params["run"] = run


def _result(trace: Any, request: Request, link: dict[str, str]) -> None:
    stale = _differences(trace, request)
    if stale:
        _stale_notice(stale, trace)
    status = str(trace["status"].values[0])
    if trace.sizes["prompt"] == 1 and status != "ok":
        _skipped(trace, status, request)
        return
    with st.container(key="stale" if stale else "fresh"):
        run = str(st.query_params.get("run", ""))
        shown = request_of(trace, _fact(trace), request.model)
        picture(trace, run, shown, link)


def _stale_notice(differences: list[str], trace: Any) -> None:
    st.html("<style>.st-key-stale { opacity: 0.45; }</style>")
    with st.container(horizontal=True, vertical_alignment="center", key="stale_notice"):
        st.warning(
            "The inputs changed; the picture below belongs to the old ones. "
            + words("; ".join(differences), 300),
            icon=":material/history:",
        )
        st.button(
            "Back to the result's inputs", key="back",
            on_click=adopt, args=(request_of(trace, _fact(trace), current_request().model),),
        )  # fmt: skip


def _skipped(trace: Any, status: str, request: Request) -> None:
    """The baseline is broken: without a known answer there is nothing to bring back."""
    clean = float(trace["clean_probability"].values[0])
    said = words(ml.plots.show_token(str(trace["scored_token"].values[0])))
    st.warning(
        f"This trace would not be meaningful: {words(status, 300)} "
        f"(p = {clean:.3f} for {said}). Correct the answer, or try another fact.",
        icon=":material/report:",
    )
    st.button(
        "Trace the model's own answer anyway", key="anyway", on_click=_start_anyway,
        args=(request,), help="Recorded in the result as known_only = False.",
    )  # fmt: skip


def _start_anyway(request: Request) -> None:
    st.session_state["in.known_only"] = False
    _start(current_request())


def _nothing_yet(request: Request, job: Any | None) -> None:
    if job is not None and job.state == "failed":
        said = job.error.splitlines() or ["no reason was given"]
        shown = [words(line.strip(), 300) for line in said]
        # Long messages list every offender; their last line says what to do.
        kept = shown if len(shown) <= 6 else [*shown[:4], "…", shown[-1]]
        st.error("The run failed.  \n" + "  \n".join(kept), icon=":material/error:")
        with st.expander("Details"):
            st.code(job.error, language=None, wrap_lines=True)
            st.code(job.details, language=None)
            st.code(request.code(), language="python")
    elif job is not None and job.state == "cancelled":
        st.info(
            f"Stopped: {words(job.error)}. Run again to go on; finished batches are kept.",
            icon=":material/pause_circle:",
        )
    else:
        st.markdown(QUESTION)
        st.caption("Press Run. Then click a cell to see what it brings back.")
    prompt, subject, target = example_of(request.model)
    if (request.prompt, request.subject) != (prompt, subject):
        st.button(
            "Load the example", key="example", icon=":material/lightbulb:", on_click=adopt,
            args=(Request(model=request.model, prompt=prompt, subject=subject, target=target),),
        )  # fmt: skip


page()
