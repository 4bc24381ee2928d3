"""The path graph: the strongest edges of a path patch, nodes by layer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.figure import figure_layout
from mechlab.plots.palette import DIVERGING
from mechlab.plots.reading import average, plotted, words_of
from mechlab.plots.tokens import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Edge", "Node", "path_edges", "path_graph"]

_UP, _DOWN = DIVERGING[-3], DIVERGING[1]
_WIDEST, _THINNEST = 7.0, 0.8
_WHOLE = ("head", "attn", "mlp", "embed")


@dataclass(frozen=True, order=True)
class Node:
    """Where an edge starts or ends."""

    level: int
    """Layer; -1 is the embedding, the number of layers the top."""
    order: int
    """Place within the layer: heads by number, then whole modules."""
    label: str
    """What is written on it."""


@dataclass(frozen=True)
class Edge:
    """One path, from a sender to a receiver."""

    sender: Node
    receiver: Node
    sender_name: str
    """The sender's label, such as `L5H3`."""
    receiver_name: str
    """The receiver's label, such as `L6H1.q`."""
    effect: float
    low: float
    """Lower end of the 95 % interval; NaN without one."""
    high: float

    @property
    def words(self) -> str:
        """The edge in words, with its numbers."""
        there = np.isfinite(self.low)
        band = f" (95 % interval {self.low:+.4f} to {self.high:+.4f})" if there else ""
        return f"{self.sender_name} → {self.receiver_name}: {self.effect:+.4f}{band}"


def path_graph(
    data: xr.Dataset | xr.DataArray,
    *,
    value: str | None = None,
    prompt: int | str | None = None,
    interval: xr.Dataset | None = None,
    most: int = 25,
    title: str | None = None,
) -> "go.Figure":
    """Draw the strongest paths: nodes by layer, width by size of the effect, colour by its sign.

    Args:
        data: a path patch, or an array with the axes sender and receiver and their coordinates.
        value: the variable to draw when `data` is a Dataset.
        prompt: label or index of one prompt, to be shown instead of the mean.
        interval: `low` and `high`, shown on hovering; by default the t interval over prompts.
        most: edges drawn; the heading says how many there are.
        title: heading; default: metric, prompts and how it was made.

    Returns:
        A plotly figure: layers run upwards, red raises the metric and blue lowers it.

    Raises:
        OptionError: when there are no senders and receivers, or `most` is below 1.
    """
    import plotly.graph_objects as go

    array = plotted(data, value)
    shown = average(array, prompt=prompt, interval=interval)
    edges, total = path_edges(data, value=value, prompt=prompt, interval=interval, most=most)
    nodes = sorted({node for edge in edges for node in (edge.sender, edge.receiver)})
    at = _places(nodes)
    top = max((abs(edge.effect) for edge in edges), default=1.0) or 1.0
    figure = go.Figure([_line(edge, at, top) for edge in reversed(edges)])
    if edges:
        figure.add_trace(_middles(edges, at))
    words = words_of(array, shown)
    facts = [
        words["metric"],
        words["sign"],
        "red +, blue −, width = size",
        f"n = {words['n']} prompts" if words["n"] else "",
        f"{len(edges)} of {total} paths, strongest",
        words["note"],
    ]
    heading = [title] if title else [words["subject"] or "paths", " · ".join(filter(None, facts))]
    levels = sorted({node.level for node in nodes})
    figure.update_layout(
        **figure_layout(heading, meta=title or "paths", height=max(420, 190 + 70 * len(levels))),
        xaxis={"visible": False, "range": [-1.08, 1.08]},
        yaxis={
            "title": "layer",
            "tickmode": "array",
            "tickvals": list(range(len(levels))),
            "ticktext": [_level(level, nodes) for level in levels],
            "range": [-0.6, len(levels) - 0.4],
            "showgrid": True,
            "gridcolor": "#efefef",
            "zeroline": False,
            "automargin": True,
        },
        showlegend=False,
        annotations=[_box(node, *at[node]) for node in nodes],
    )
    return figure


def path_edges(
    data: xr.Dataset | xr.DataArray,
    *,
    value: str | None = None,
    prompt: int | str | None = None,
    interval: xr.Dataset | None = None,
    most: int = 25,
) -> tuple[list[Edge], int]:
    """Return the strongest edges, strongest first, and how many paths there are.

    Arguments and errors are those of `path_graph`.
    """
    array = plotted(data, value)
    shown = average(array, prompt=prompt, interval=interval)
    if set(map(str, shown.mean.dims)) != {"sender", "receiver"}:
        raise OptionError(
            f"a path graph cannot be drawn of dims {tuple(map(str, shown.mean.dims))}. It takes "
            "sender × receiver; select or average the others first."
        )
    if most < 1:
        raise OptionError(f"most={most} edges. Allowed: 1 or more. Leave it out for 25.")
    mean, low, high = (
        a.transpose("sender", "receiver").values for a in (shown.mean, shown.low, shown.high)
    )
    senders, receivers = _nodes(shown.mean, "sender"), _nodes(shown.mean, "receiver")
    names = [[str(v) for v in shown.mean[axis].values] for axis in ("sender", "receiver")]
    there = np.argwhere(np.isfinite(mean))
    order = sorted(there.tolist(), key=lambda cell: -abs(mean[tuple(cell)]))
    edges = [
        Edge(
            senders[s], receivers[r], names[0][s], names[1][r],
            float(mean[s, r]), float(low[s, r]), float(high[s, r]),
        )
        for s, r in order[:most]
    ]  # fmt: skip
    return edges, len(order)


def _nodes(mean: xr.DataArray, axis: str) -> list[Node]:
    """Return the node of every entry of an axis; inputs of one head share its node."""
    known = [int(layer) for a in ("sender", "receiver") for layer in mean[f"{a}_layer"].values]
    top = max(known, default=0) + 1
    kinds, labels = mean[f"{axis}_kind"].values, mean[axis].values
    layers, heads = mean[f"{axis}_layer"].values, mean[f"{axis}_head"].values
    nodes = []
    for kind, label, layer, head in zip(kinds, labels, layers, heads, strict=True):
        if kind == "embed":
            nodes.append(Node(-1, 0, "embed"))
        elif layer < 0 or kind == "set":  # the logits, and receivers that are set together
            nodes.append(Node(top, 0, _short(str(label))))
        elif head >= 0:
            nodes.append(Node(int(layer), int(head), f"L{int(layer)}H{int(head)}"))
        else:
            nodes.append(Node(int(layer), 10_000, "MLP" if kind == "mlp" else "attention"))
    return nodes


def _short(label: str) -> str:
    parts = label.split("+")
    return label if len(parts) < 3 else f"{parts[0]} and {len(parts) - 1} more"


def _level(level: int, nodes: list[Node]) -> str:
    if level < 0:
        return "embed"
    if any(n.level == level and not n.label.startswith(("L", "MLP", "attention")) for n in nodes):
        return "top"
    return str(level)


def _places(nodes: list[Node]) -> dict[Node, tuple[float, float]]:
    """Return x and y of every node: levels that are used upwards, nodes evenly spread in each."""
    levels = sorted({node.level for node in nodes})
    widest = max((sum(n.level == level for n in nodes) for level in levels), default=1)
    at = {}
    for row, level in enumerate(levels):
        here = [node for node in nodes if node.level == level]
        step = 2 / max(widest, 1)
        shift = 0.25 * step * (1 if row % 2 else -1)  # so that edges do not run through nodes
        for place, node in enumerate(here):
            at[node] = ((place - (len(here) - 1) / 2) * step + shift, float(row))
    return at


def _line(edge: Edge, at: dict[Node, tuple[float, float]], top: float) -> Any:
    import plotly.graph_objects as go

    share = abs(edge.effect) / top
    x, y = zip(at[edge.sender], _middle(edge, at), at[edge.receiver], strict=True)
    return go.Scatter(
        x=x, y=y, mode="lines", hoverinfo="skip", name=edge.words, opacity=0.35 + 0.5 * share,
        line={"shape": "spline", "width": _THINNEST + (_WIDEST - _THINNEST) * share,
              "color": _UP if edge.effect > 0 else _DOWN},
    )  # fmt: skip


def _middle(edge: Edge, at: dict[Node, tuple[float, float]]) -> tuple[float, float]:
    """Return the middle of an edge; long ones are bent outwards, around the nodes in between."""
    (x0, y0), (x1, y1) = at[edge.sender], at[edge.receiver]
    side = 1 if x0 + x1 >= 0 else -1
    bend = 0.05 * side * max(abs(y1 - y0) - 1, 0)
    return (x0 + x1) / 2 + bend, (y0 + y1) / 2


def _middles(edges: list[Edge], at: dict[Node, tuple[float, float]]) -> Any:
    """Return invisible points on the edges, which carry their words."""
    import plotly.graph_objects as go

    x, y = zip(*(_middle(edge, at) for edge in edges), strict=True)
    return go.Scatter(
        x=x, y=y, mode="markers", name="paths", marker={"size": 14, "opacity": 0},
        text=[escape(edge.words, "html") for edge in edges], hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _box(node: Node, x: float, y: float) -> dict[str, Any]:
    return {
        "x": x,
        "y": y,
        "text": escape(node.label, "html"),
        "showarrow": False,
        "font": {"size": 11},
        "bgcolor": "#ffffff",
        "bordercolor": "#5f5f5f",
        "borderpad": 3,
    }
