"""Heads by layer: one grid, its strongest cells, and the panel of the head that was chosen."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

import heads_view
import mechlab as ml
import runs
from components.carry import ask_whole_page, whole_page_if_asked
from components.cell_grid import cell_grid, opened_cell
from components.color_scale import color_scale
from components.exports import export_menu, table_twin
from components.head_panel import head_panel
from components.plot_style import draw, faint, figure, ink, layout
from components.selection import choose, link_problems, option_problems, select, warn_of_link
from heads_request import HeadsRequest
from heads_view import HeadValue
from text import signed, words

__all__ = ["picture"]

_KEY, _ONLY = "grid.heads", "heads.only"


@st.fragment
def picture(result: Any, run: str, request: HeadsRequest, link: Mapping[str, str]) -> None:
    """Draw a stored result: the grid on the left, the chosen head on the right."""
    whole_page_if_asked()
    labels = heads_view.prompt_labels(result)
    left, right = st.columns([6, 5], gap="large")
    with left:
        shown = _shown_prompt(labels)
    whole = heads_view.grid(result, _beside(request), prompt=shown)
    counts = {"layer": whole.shape[0], "head": _heads(whole)}
    warn_of_link(link_problems(link, **counts) + option_problems(link, sort=("grid", "top")))
    with right:
        chosen = select(**counts)
    layer, head = chosen["layer"], chosen["head"]
    with left:
        _left(result, run, request, whole, layer, head)
    with right:
        _right(result, request, whole, layer, head)


def _beside(request: HeadsRequest) -> Any | None:
    """Return the stored result of whole MLPs that belongs to this one, or None."""
    companion = request.companion()
    run = None if companion is None else runs.find(companion)
    return None if run is None else runs.load(run)


def _heads(view: Any) -> int:
    return sum(label.isdecimal() for label in view.col_labels) or 1


def _shown_prompt(labels: list[str]) -> int | None:
    """Return the prompt to show; None for the mean over all of them."""
    if len(labels) == 1:
        return None
    names = {-1: f"mean over {len(labels)} prompts", **dict(enumerate(labels))}
    at = st.selectbox(
        "Shown", [*names], key="heads.shown",
        format_func=lambda i: ml.plots.show_text(names[i], longest=90),
        label_visibility="collapsed",
    )  # fmt: skip
    return None if at is None or at < 0 or at >= len(labels) else at


def _left(
    result: Any, run: str, request: HeadsRequest, whole: Any, layer: int | None, head: int | None
) -> None:
    st.markdown(f"**{words(whole.title)}** &nbsp; :small[:gray[{words(whole.facts, 300)}]]")
    only = _only(layer, head)
    sort, fade = _switches(whole, only)
    view = whole if only is None else heads_view.in_layer(whole, only)
    if sort == "top":
        _top_list(whole, only)
    else:
        faded = heads_view.crosses_zero(view) if fade else None
        cell_grid(_outlined(view, layer, head, only), key=_KEY, on_open=_opened(only), faded=faded)
    color_scale([view])
    _top_line(whole, only)
    with st.container(horizontal=True, vertical_alignment="center", key="menus"):
        export_menu(result, [whole], request, run)
    table_twin([whole])


def _only(layer: int | None, head: int | None) -> int | None:
    """Return the one layer that is shown: chosen without a head, until another one is chosen."""
    if layer is not None and head is None:
        st.session_state[_ONLY] = layer
    elif st.session_state.get(_ONLY) != layer:
        st.session_state.pop(_ONLY, None)
    only: int | None = st.session_state.get(_ONLY)
    return only


def _switches(whole: Any, only: int | None) -> tuple[str, bool]:
    """Draw sorting, fading, and the filter by layer."""
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="switches"):
        sort = st.segmented_control(
            "Sort", ["grid", "top"], key="sort", bind="query-params", default="grid",
            required=True, label_visibility="collapsed",
        )  # fmt: skip
        fade = whole.ci_low is not None and st.toggle(
            "Fade cells whose interval holds 0", key="fade",
            help="95 % t interval over prompts; hover shows it.",
        )  # fmt: skip
        if only is not None:
            st.button(
                f"Layer {only} alone · show all", key="all_layers", type="tertiary",
                icon=":material/filter_alt_off:", on_click=_all_layers,
            )  # fmt: skip
    return str(sort or "grid"), bool(fade)


def _all_layers() -> None:
    st.session_state.pop(_ONLY, None)
    if st.session_state.get("head") is None:
        st.session_state["layer"] = None


def _outlined(view: Any, layer: int | None, head: int | None, only: int | None) -> Any:
    if layer is None or head is None:
        return view
    row = layer if only is None else 0
    if row >= view.shape[0] or head >= view.shape[1]:
        return view
    return replace(view, selected=(row, head))


def _opened(only: int | None) -> Any:
    """Return the callback of a click on the grid; an MLP's cell chooses its layer."""

    def write() -> None:
        cell = opened_cell(_KEY)
        if cell is not None:
            layer = cell[0] if only is None else only
            _choose(layer, cell[1])

    return write


def _choose(layer: int, column: int | str) -> None:
    """Choose a head; what is no head chooses nothing."""
    if isinstance(column, int) or column.isdecimal():
        choose(layer=layer, head=int(column))


def _top_line(whole: Any, only: int | None) -> None:
    """Draw the strongest cells as buttons."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="top"):
        st.markdown(":small[strongest]", width="content")
        for cell in heads_view.ranked(whole, most=5, layer=only):
            st.button(
                f"{cell.name} {signed(cell.value, 2)}", key=f"top.{cell.name}", type="tertiary",
                on_click=_choose, args=(cell.layer, cell.column),
                disabled=not cell.column.isdecimal(),
            )  # fmt: skip


def _top_list(whole: Any, only: int | None) -> None:
    """Draw the strongest cells as bars with their intervals, strongest on top."""
    cells = heads_view.ranked(whole, most=24, layer=only)
    places = list(range(len(cells)))
    chart = figure()
    chart.add_bar(
        x=[cell.value for cell in cells], y=places, orientation="h",
        marker_color=["#b2182b" if cell.value > 0 else "#2166ac" for cell in cells],
        customdata=[_said(cell) for cell in cells], hovertemplate="%{customdata}<extra></extra>",
        error_x=_whiskers(cells),
    )  # fmt: skip
    chart.update_layout(**layout(60 + 17 * len(cells)), bargap=0.25)
    chart.update_layout(margin={"l": 60, "r": 10, "t": 6, "b": 40})
    chart.update_yaxes(
        tickmode="array", tickvals=places, ticktext=[c.name for c in cells], autorange="reversed",
        showgrid=False,
    )  # fmt: skip
    chart.update_xaxes(
        gridcolor=faint(), zerolinecolor=ink(), zerolinewidth=1, range=list(whole.limits),
        title={"text": ml.plots.escape(whole.metric, "html"), "standoff": 4},
    )  # fmt: skip
    strongest = _said(cells[0]) if cells else "none"
    draw(chart, key="top_list", alt=f"The strongest cells, strongest first: {strongest}")


def _said(cell: HeadValue) -> str:
    band = "" if cell.low is None or cell.high is None else (
        f", 95 % interval {signed(cell.low, 3)} to {signed(cell.high, 3)}"
    )  # fmt: skip
    return f"{cell.name}: {signed(cell.value, 3)}{band}"


def _whiskers(cells: list[HeadValue]) -> dict[str, Any] | None:
    if not cells or any(cell.low is None or cell.high is None for cell in cells):
        return None
    return {
        "type": "data", "symmetric": False, "thickness": 1, "width": 2, "color": ink(),
        "array": [cell.high - cell.value for cell in cells if cell.high is not None],
        "arrayminus": [cell.value - cell.low for cell in cells if cell.low is not None],
    }  # fmt: skip


def _right(
    result: Any, request: HeadsRequest, whole: Any, layer: int | None, head: int | None
) -> None:
    if layer is None or head is None:
        st.info(
            "Click a head to see where it looks and what it writes.", icon=":material/ads_click:"
        )
        return
    cell = heads_view.head_value(whole, layer, head)
    prompts = ml.prompts.as_prompt_set(request.prompts(), kind="any") if _known(request) else []
    told = "" if cell is None or not cell.column.isdecimal() else words(_said(cell).split(": ")[1])
    head_panel(request, layer, head, list(prompts), told=told, rerun=_ablate_and_rerun)


def _known(request: HeadsRequest) -> bool:
    """Return whether the prompts stand in the result; those of an older mechlab do not."""
    return request.source != "rows" or request.rows not in ("", "[]")


def _ablate_and_rerun(head: str) -> None:
    """Pin what is shown, and attribute again with one more head at zero."""
    run = st.query_params.get("run")
    if run is not None:
        st.query_params["b"] = run
    without = list(st.session_state.get("in.heads.without", []))
    st.session_state["in.heads.without"] = list(dict.fromkeys([*without, head]))
    st.session_state["in.heads.how"] = "attribution"
    ask_whole_page()
    from components.picker import current

    request = current(HeadsRequest)
    if not request.problem() and runs.find(request) is None:
        runs.start(request)
