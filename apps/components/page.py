"""The course of every page that runs a method and shows its result.

    link → fields → the stored result of what they say → Run with its cost → progress → picture

A page says what is its own in a `ResultPage`; states are the same everywhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

import cost
import mechlab as ml
import runs
from compare_view import views_of
from components import states
from components.bar import announce, pinned_run
from components.compare import against_pinned
from components.picker import adopt, current, field_key, prepare
from components.progress import PartialViews, follow
from components.states import Refusal
from request import Request
from text import words

__all__ = ["ResultPage", "result_page"]


@dataclass(frozen=True)
class ResultPage:
    """What one page adds to the common course."""

    first: Request
    """Values of its fields at the start; its type is the page's kind of request."""
    question: str
    """What the page answers, in Markdown; shown while there is no result."""
    hint: str
    """What to do and what a click will do, e.g. `Press Run. Then click a cell to …`."""
    fields: Callable[[], None]
    """Draws the prompt fields."""
    options: Callable[[], None]
    """Draws the options, inside a popover."""
    request_of: Callable[[Any, str], Request]
    """`(result, model)`: the request that a stored result answers; `model` is what to load."""
    picture: Callable[[Any, str, Request, Mapping[str, str]], None]
    """`(result, run, request, link)`: draws the result; `link` is the URL before any field."""
    example: Callable[[str], Request]
    """The request to try on a model of that name; one that it answers well."""
    price: Callable[[Any], cost.Cost] = cost.like_last
    """What a request would cost."""
    partial_views: PartialViews = lambda partial: None
    """Grids of an unfinished result."""
    refused: Callable[[Any], Refusal | None] = lambda result: None
    """Why a result means nothing (its baseline is broken), or None; says nothing of overrides."""
    views: Callable[[Any], list[Any]] = views_of
    """The grids of a result, to lay it beside the pinned run."""
    selections: tuple[str, ...] = ("layer", "head", "pos")
    """Session keys to forget when another stored result is opened by hand."""

    @property
    def kind(self) -> type[Request]:
        """The page's kind of request."""
        return type(self.first)


def result_page(page: ResultPage) -> None:
    """Settle which result is meant, draw the fields, then the state that the page is in.

    Everything has its fixed place: Streamlit knows a fragment by the number of elements before it,
    and a click on one that has moved meanwhile would be lost.
    """
    link = st.query_params.to_dict()  # before any field: what a field cannot use, it drops silently
    prepare(page.first)
    with st.container():
        result = _linked(page, link.get("run"))
    if result is not None:
        _adopt_once(page, link["run"], result)
    with st.container():
        page.fields()
    result, request = _settle(page, result, current(page.kind))
    answered = None if result is None else page.request_of(result, request.model)
    announce(request, answered)
    job = runs.job_of(request)
    _actions(page, request, job, result is not None)
    with st.container():
        if job is not None and job.active:
            follow(job.id, page.partial_views)
        elif result is not None and answered is not None:
            with st.container():
                _ended_badly(job, request)  # the picture below is that of other inputs, or older
            _result(page, result, request, answered, link)
        else:
            _nothing_yet(page, request, job)


def _ended_badly(job: Any | None, request: Request) -> bool:
    """Say that the request's run failed or was stopped; return whether it did."""
    if job is not None and job.state == "failed":
        states.failed(job, request)
    elif job is not None and job.state == "cancelled":
        states.stopped(job)
    else:
        return False
    return True


def _linked(page: ResultPage, run: str | None) -> Any | None:
    """Return the result that the link names; say so when it cannot be shown."""
    if run is None:
        return None
    result = None
    try:
        record = runs.entry(run)
        if record is not None and record.method in page.kind.METHODS:
            result = runs.load(run)
        else:
            states.bad_link(run, page.kind)
    except ml.StoreError as error:
        states.cannot_be_read(error)
    if result is None:
        del st.query_params["run"]
        # Not silently another one in its place: somebody wanted to see these very numbers.
        st.session_state[_held(page)] = current(page.kind).id
    return result


def _held(page: ResultPage) -> str:
    return f"held.{page.kind.PAGE}"


def _is_held(page: ResultPage, request: Request) -> bool:
    """Return whether a link asked for a run that is not here, and nothing else was asked since."""
    return st.session_state.get(_held(page)) == request.id and runs.find(request) is not None


def _let_go(page: ResultPage) -> None:
    st.session_state.pop(_held(page), None)


def _adopt_once(page: ResultPage, run: str, result: Any) -> None:
    """Take the inputs of a result into the fields when it is first shown, not on every rerun."""
    key = f"adopted.{page.kind.PAGE}"
    if st.session_state.get(key) != run:
        st.session_state[key] = run
        adopt(page.request_of(result, _loadable(page, result)))


def _loadable(page: ResultPage, result: Any) -> str:
    """Return what to load: the result's model, or the folder in use if it has that name."""
    name = str(result.attrs.get("model_name", "atlas"))
    now = current(page.kind)
    return now.model if now.model_name == name else name


def _settle(page: ResultPage, result: Any | None, request: Request) -> tuple[Any | None, Request]:
    """Show the stored result of what the fields say, if there is one."""
    if result is not None and not _differences(page, result, request):
        return result, request
    run = runs.find(request)
    if run is None or _is_held(page, request):
        return result, request
    st.query_params["run"] = run
    st.session_state[f"adopted.{page.kind.PAGE}"] = run
    return runs.load(run), request


def _differences(page: ResultPage, result: Any, request: Request) -> list[str]:
    return request.differences(page.request_of(result, request.model))


def _actions(page: ResultPage, request: Request, job: Any | None, has_result: bool) -> None:
    """Draw the options and the buttons that run something."""
    problem = request.problem()
    with st.container(horizontal=True, vertical_alignment="center", key="actions"):
        again = has_result and runs.find(request) is not None
        under_way = job is not None and job.active
        st.button(
            "Run again" if again else "Run", key="run_now", disabled=bool(problem) or under_way,
            type="secondary" if again else "primary",
            icon=":material/replay:" if again else ":material/play_arrow:",
            on_click=_run, args=(page, request, has_result),
        )  # fmt: skip
        with st.popover("Options", icon=":material/tune:", width="content"):
            page.options()
            st.button(
                "Run detached", key="run_detached", disabled=bool(problem), type="tertiary",
                icon=":material/rocket_launch:", on_click=_start, args=(request, False, True),
                help="In a process of its own, which goes on when the dashboard is closed.",
            )  # fmt: skip
            if request.more != "{}":
                st.caption(f"Also, from the stored result: {words(request.more)}")
            st.page_link("views/setup.py", label="Change the model", icon=":material/memory:")
        _stored_menu(page)
        if problem:
            st.markdown(f":red[:material/error: {words(problem, 300)}]")
        else:
            told = page.price(request).in_words()
            said = f"stored result · running again replaces it: {told}" if again else told
            st.caption(said, width="content")


def _run(page: ResultPage, request: Request, again: bool) -> None:
    _let_go(page)
    _start(request, again)


def _start(request: Request, again: bool = False, detached: bool = False) -> None:
    recompute = again and runs.find(request) is not None
    try:
        runs.start(request, recompute=recompute, detached=detached)
    except ml.MechlabError as error:  # the fields changed under the button
        st.toast(words(str(error), 300), icon=":material/error:")


def _stored_menu(page: ResultPage) -> None:
    with st.popover("Stored", icon=":material/inventory_2:"):
        known = runs.recent(page.kind.METHODS)
        if not known:
            st.caption("Nothing of this kind is stored yet.")
        for entry in known[:20]:
            first = entry.labels[0] if entry.labels else entry.name
            more = f" and {len(entry.labels) - 1} more" if len(entry.labels) > 1 else ""
            when = entry.created[:16].replace("T", " ")
            st.button(
                words(f"{first}{more} · {entry.model_name} · {when}", 90),
                key=f"open.{entry.id}", type="tertiary", on_click=_open, args=(page, entry.id),
            )  # fmt: skip


def _open(page: ResultPage, run: str) -> None:
    for name in page.selections:
        st.session_state.pop(name, None)
    st.query_params["run"] = run


def _result(
    page: ResultPage, result: Any, request: Request, stored: Request, link: Mapping[str, str]
) -> None:
    """Draw a result; `stored` is what it answers, `request` what the fields ask for."""
    stale = request.differences(stored)
    with st.container():
        if stale:
            states.stale_notice(stale, lambda: adopt(stored))
    why, run = page.refused(result), str(st.query_params.get("run", ""))
    recorded = runs.remark(run).shown_although
    if why is not None and not (why.shown or recorded):
        states.refusal(why, lambda: _go_on(page, why, run))
        return
    with st.container(key="stale" if stale else "fresh"):
        if why is not None or recorded:
            states.shown_although(recorded if why is None else why.reason)
        page.picture(result, run, stored, link)
        _against_pinned(page, result, run)


def _against_pinned(page: ResultPage, result: Any, run: str) -> None:
    pinned = pinned_run()
    if pinned is None or pinned == run:
        return
    record = runs.entry(pinned)
    if record is None:
        st.warning(f"The pinned run {pinned} is not in this store.", icon=":material/link_off:")
    elif record.method not in page.kind.METHODS:
        st.caption(f"The pinned run {pinned} is of another kind: there is nothing to compare here.")
    else:
        try:
            against_pinned(page.views(result), page.views(runs.load(pinned)))
        except ml.MechlabError as error:
            st.warning(words(str(error), 400), icon=":material/compare:")


def _go_on(page: ResultPage, why: Refusal, run: str) -> None:
    """Callback: run it regardless, or record beside the result that it is shown regardless."""
    for name, value in (why.fields or {}).items():
        st.session_state[field_key(page.kind, name)] = value
    if why.reruns:
        _start(current(page.kind))
        return
    try:
        ml.Store().remark(run, shown_although=why.reason)
    except ml.StoreError as error:  # what is not recorded is not shown
        st.toast(words(str(error), 300), icon=":material/error:")


def _nothing_yet(page: ResultPage, request: Request, job: Any | None) -> None:
    if _ended_badly(job, request):
        pass
    elif (other := runs.elsewhere(request)) is not None:
        states.elsewhere(other, lambda: _start(request))
    elif _is_held(page, request):
        st.caption("A result of the inputs above is stored; it is not what the link asked for.")
        st.button("Show it", key="show_stored", on_click=_let_go, args=(page,))
    else:
        st.markdown(page.question)
        st.caption(page.hint)
    example = page.example(request.model)
    if request.label != example.label:
        same_model = replace(
            example, **{n: getattr(request, n) for n in ("model", "device", "dtype")}
        )
        st.button(
            "Load the example", key="example", icon=":material/lightbulb:", on_click=adopt,
            args=(same_model,),
        )  # fmt: skip
