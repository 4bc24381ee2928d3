"""Paths: senders to the receiver as a grid, the walk so far as a graph, and one edge in detail."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

import loaded
import mechlab as ml
import paths_view
import runs
from components.carry import ask_whole_page, whole_page_if_asked
from components.cell_grid import cell_grid, opened_cell
from components.color_scale import color_scale
from components.exports import export_menu, table_twin
from components.head_panel import look_or_offer, pattern_grid
from components.plot_style import CONFIG, faint, ink
from components.selection import range_problems, warn_of_link
from heads_view import prompt_labels
from paths_request import INPUTS, PathsRequest, head_of, receiver_of
from paths_walk import Walk, joined
from text import signed, words

__all__ = ["picture", "trail_line"]

_GRID, _GRAPH = "grid.senders", "path_graph"


@st.fragment
def picture(result: Any, run: str, request: PathsRequest, link: Mapping[str, str]) -> None:
    """Draw a stored result: the senders on the left, the graph on the right, the edge below."""
    whole_page_if_asked()
    labels = prompt_labels(result)
    shown = _shown_prompt(labels)
    grid = paths_view.sender_grid(result, prompt=shown)
    walked = [(request, result), *_walked(request)]
    both, places = joined([found for _, found in walked])
    walk = Walk(tuple(walked[place][0] for place in places))
    left, right = st.columns([1, 1], gap="large")
    if paths_view.says_little(result):
        st.warning(
            "No path moves the answer by even a hundredth of what the other prompt does: this "
            "input carries little of it, and the colours show very small effects. Try another "
            "receiver.",
            icon=":material/report:",
        )
    with right:
        edges = _graph(both, link)
        edge = _edge_field(edges, link)
        with st.container(horizontal=True, key="graph_menus"):
            export_menu(
                both, [], walk, run, key="graph",
                figure=lambda: ml.plots.path_graph(both, most=max(len(edges), 1)),
            )  # fmt: skip
    with left:
        _senders(grid, edge)
        told = paths_view.checks(result)
        if told and shown is None:
            st.caption(told)
        with st.container(horizontal=True, vertical_alignment="center", key="menus"):
            export_menu(result, [grid], request, run)
        table_twin([grid])
    if edge is not None:
        _edge(edge, request)
    else:
        st.info(
            "Click a sender, or an edge of the graph, to see the patterns at both of its ends.",
            icon=":material/ads_click:",
        )


def trail_line(receiver: str) -> None:
    """Draw the receivers walked so far, each a way back; say what of them are none."""
    text = st.query_params.get("trail", "")
    trail = paths_view.trail_of(text, receiver)
    if strange := [part for part in text.split("~") if part and not paths_view.is_trail(part)]:
        warn_of_link([f"trail {part!r}: it names no receiver" for part in strange[:3]])
        if len(trail) > 1:
            st.query_params["trail"] = paths_view.trail_text(trail)
        else:
            del st.query_params["trail"]
    if len(trail) < 2:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="trail"):
        st.markdown(":small[trail]", width="content")
        for place, step in enumerate(trail):
            if place:
                st.markdown(":small[◄]", width="content")
            st.button(
                step, key=f"trail.{step}", type="tertiary", disabled=step == receiver,
                on_click=_walk, args=(step, trail[: place + 1]),
            )  # fmt: skip


def _walk(receiver: str, trail: list[str]) -> None:
    st.session_state["in.paths.receiver"] = receiver
    st.session_state["edge"] = None
    ask_whole_page()
    if len(trail) > 1:
        st.query_params["trail"] = paths_view.trail_text(trail)
    else:
        st.query_params.pop("trail", None)


def _walked(request: PathsRequest) -> list[tuple[PathsRequest, Any]]:
    """Return the other receivers of the trail that have a stored result, with it."""
    trail = paths_view.trail_of(st.query_params.get("trail", ""), request.receiver)
    found = []
    for receiver in trail:
        if receiver != request.receiver:
            other = replace(request, receiver=receiver)
            run = runs.find(other)
            result = None if run is None else runs.load(run)
            if result is not None:
                found.append((other, result))
    return found


def _shown_prompt(labels: list[str]) -> int | None:
    if len(labels) == 1:
        return None
    names = {-1: f"mean over {len(labels)} prompts", **dict(enumerate(labels))}
    at = st.selectbox(
        "Shown", [*names], key="paths.shown",
        format_func=lambda i: ml.plots.show_text(names[i], longest=90),
        label_visibility="collapsed",
    )  # fmt: skip
    return None if at is None or at < 0 or at >= len(labels) else at


def _senders(grid: Any, edge: Any) -> None:
    st.markdown(f"**{words(grid.title)}** &nbsp; :small[:gray[{words(grid.facts, 300)}]]")
    cell_grid(_outlined(grid, edge), key=_GRID, on_open=lambda: _opened(grid))
    color_scale([grid])


def _outlined(grid: Any, edge: Any) -> Any:
    if edge is None:
        return grid
    places = [
        (row, column)
        for row in range(grid.shape[0])
        for column in range(grid.shape[1])
        if paths_view.sender_at(grid, row, column) == edge.sender_name
    ]
    return replace(grid, selected=places[0]) if places else grid


def _opened(grid: Any) -> None:
    """Callback of a click on a sender: its edge to the receiver is chosen."""
    if (cell := opened_cell(_GRID)) is not None:
        receiver = grid.title.removeprefix("Senders to ")
        st.session_state["edge"] = f"{paths_view.sender_at(grid, *cell)} → {receiver}"


def _graph(both: Any, link: Mapping[str, str]) -> list[Any]:
    """Draw the strongest edges; return those that the threshold lets through."""
    end = max(paths_view.strongest(both), 1e-3)
    warn_of_link(range_problems(link, threshold=end))
    st.markdown("**Paths** &nbsp; :small[:gray[layers upwards, width = size, red + and blue −]]")
    threshold = st.slider(
        "Smallest |effect| shown", 0.0, end, 0.0, key="threshold", bind="query-params",
        format="%.3f", label_visibility="collapsed",
    )  # fmt: skip
    edges, total = paths_view.edges_shown(both, threshold)
    more = f", at most {paths_view.MOST_EDGES}" if len(edges) == paths_view.MOST_EDGES else ""
    st.caption(f"showing {len(edges)} of {total:,}, |effect| ≥ {threshold:.3f}{more}")
    if edges:
        st.plotly_chart(
            _themed(ml.plots.path_graph(both, most=len(edges))), theme=None, key=_GRAPH,
            config=CONFIG, on_select=lambda: _picked(edges), selection_mode="points",
            alt=f"Path graph; strongest: {'; '.join(edge.words for edge in edges[:5])}",
        )  # fmt: skip
    return edges


def _themed(figure: Any) -> Any:
    """Return the graph of an export as it suits the page: its ground, its ink, no heading."""
    ground = "#0e1117" if ink() == "#e6e6e6" else "#ffffff"
    figure.update_layout(
        title=None, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"color": ink(), "family": '"Source Sans", sans-serif'},
        margin={"l": 50, "r": 10, "t": 10, "b": 10}, clickmode="event+select",
        height=max(300, min(460, figure.layout.height - 90)),
    )  # fmt: skip
    figure.update_yaxes(gridcolor=faint())
    for note in figure.layout.annotations:
        note.update(bgcolor=ground, bordercolor="#8a8a8a")
    for trace in figure.data:
        if trace.mode == "markers":
            trace.update(selected={"marker": {"opacity": 0}}, unselected={"marker": {"opacity": 0}})
    return figure


def _picked(edges: list[Any]) -> None:
    """Callback of a click on the graph: letting go of a point chooses nothing else."""
    points = st.session_state.get(_GRAPH, {}).get("selection", {}).get("points", [])
    if points and 0 <= (index := int(points[0].get("point_index", -1))) < len(edges):
        st.session_state["edge"] = _name(edges[index])


def _name(edge: Any) -> str:
    return f"{edge.sender_name} → {edge.receiver_name}"


def _edge_field(edges: list[Any], link: Mapping[str, str]) -> Any | None:
    """Draw the field that holds the chosen edge; the mouse-free way to it."""
    known = {_name(edge): edge for edge in edges}
    if link.get("edge") and link["edge"] not in known and st.session_state.get("edge") is None:
        st.warning(
            f"The link asked for the path {words(link['edge'], 60)}, which is not shown here.",
            icon=":material/link_off:",
        )
    if st.session_state.get("edge") not in (None, *known):
        st.session_state["edge"] = None
    chosen = st.selectbox(
        "Path", [*known], index=None, key="edge", bind="query-params",
        placeholder="choose a path", label_visibility="collapsed",
    )  # fmt: skip
    return known.get(chosen) if chosen is not None else None


def _edge(edge: Any, request: PathsRequest) -> None:
    """Draw one edge: its effect, both patterns, and the step back."""
    band = ""
    if edge.low == edge.low:
        band = f" :gray[95 % interval {signed(edge.low, 3)} to {signed(edge.high, 3)}]"
    st.markdown(f"##### {words(_name(edge))} &nbsp; {signed(edge.effect, 3)} :small[{band}]")
    sender, receiver = head_of(edge.sender_name), head_of(edge.receiver_name)
    _make_receiver(edge.sender_name, sender, request)
    ends = [f"L{layer}H{head}" for layer, head in (x for x in (sender, receiver) if x is not None)]
    if not ends:
        st.caption("No head at either end: there is no pattern to show.")
        return
    prompts = list(ml.prompts.as_prompt_set(request.prompts(), kind="any"))
    look = look_or_offer(request, prompts[0], list(dict.fromkeys(ends)))
    if look is None:
        return
    names = dict(zip(ends, ["sender", "receiver"] if sender else ["receiver"], strict=False))
    for place, name in zip(st.columns(2, gap="large"), names, strict=False):
        with place:
            st.markdown(f":small[**{names[name]} {name}** · attention on the clean prompt]")
            pattern_grid(look, name, key=f"edge.{names[name]}")


def _make_receiver(name: str, sender: tuple[int, int] | None, request: PathsRequest) -> None:
    """Draw the steps back: the sender's inputs become the receiver."""
    trail = paths_view.trail_of(st.query_params.get("trail", ""), request.receiver)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="step_back"):
        st.markdown(":small[make receiver]", width="content")
        if sender is not None:
            group = loaded.heads_per_key(request.load_arguments)
            for part, said in INPUTS.items():
                wanted = receiver_of(*sender, part, group)
                st.button(
                    said, key=f"receive.{part}", on_click=_walk, args=(wanted, [*trail, wanted])
                )
        elif name.startswith("MLP"):
            wanted = name.replace(" ", "")
            st.button(wanted, key="receive.mlp", on_click=_walk, args=(wanted, [*trail, wanted]))
        else:
            st.caption("Several nodes together, or the embedding, do not receive.")
