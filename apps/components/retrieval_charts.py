"""Charts of the retrieval page: scores in order, heads masked, and one head along the haystack."""

from typing import Any

import mechlab as ml
from components.plot_style import draw, faint, ink, layout
from retrieval_view import Read

__all__ = ["mask_chart", "scores_chart", "themed", "trace_strip"]

_COPIED, _NEAR, _ELSEWHERE = "#0072b2", "#56b4e9", "#9a9a9a"
_NEEDLE = "rgba(230,159,0,0.35)"
_LAST = 10


def themed(chart: Any, height: int) -> Any:
    """Return a figure of `ml.plots` in the colours of the page, without its heading."""
    chart.update_layout(**layout(height), title=None)
    chart.update_layout(margin={"l": 56, "r": 70, "t": 16, "b": 40}, modebar=None)
    chart.update_layout(legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"})
    chart.update_xaxes(gridcolor=faint(), zerolinecolor=faint())
    chart.update_yaxes(gridcolor=faint(), zerolinecolor=ink())
    return chart


def scores_chart(scores: Any, name: str, threshold: float, count: int) -> None:
    """Draw the scores of all heads in falling order, with the threshold."""
    chart = ml.plots.sorted_scores(scores, value=name, threshold=threshold)
    draw(
        themed(chart, 300), key="chart.scores",
        alt=f"Retrieval scores in falling order; {count} heads reach the threshold {threshold:g}",
    )  # fmt: skip


def mask_chart(curve: Any) -> None:
    """Draw recall against the number of masked heads, best ones and random ones."""
    view = ml.plots.mask_view(curve)
    ends = ", ".join(
        f"{name} {values[-1]:.0f}"
        for name, values in zip(view.col_labels, view.values.T, strict=True)
    )
    alt = f"Recall against masked heads; with {view.row_labels[-1]} heads masked: {ends}"
    draw(themed(ml.plots.mask_curve(curve), 320), key="chart.mask", alt=alt)


def trace_strip(read: Read) -> None:
    """Draw where a head looked at each step: around the needle, and at the end of the prompt."""
    from plotly.subplots import make_subplots

    first, last = read.window
    end = max(0, read.tokens - _LAST)
    chart = make_subplots(
        rows=1, cols=2, shared_yaxes=True, column_widths=[0.65, 0.35], horizontal_spacing=0.04,
        subplot_titles=["around the needle", "end of the prompt"],
    )  # fmt: skip
    for column, span in ((1, (first, last)), (2, (end, read.tokens))):
        _band(chart, read, column, span)
        _steps(chart, read, column, span)
        chart.update_xaxes(
            range=[span[0] - 0.5, span[1] - 0.5], showgrid=False, zeroline=False, nticks=6,
            title={"text": "position", "standoff": 2}, row=1, col=column,
        )  # fmt: skip
    count = len(read.written)
    chart.update_layout(**layout(120 + 18 * min(count, 16)), showlegend=False)
    chart.update_layout(margin={"l": 70, "r": 8, "t": 24, "b": 40})
    chart.update_annotations(font_size=12)
    chart.update_yaxes(
        tickmode="array", tickvals=list(range(count)), range=[count - 0.4, -0.6], automargin=True,
        ticktext=[ml.plots.escape(one.token, "html") + " " for one in read.written],
        gridcolor=faint(), zeroline=False,
    )  # fmt: skip
    copied = sum(one.place == "copied" for one in read.written)
    draw(chart, key="chart.trace", alt=f"The head copied at {copied} of {count} steps")


def _band(chart: Any, read: Read, column: int, span: tuple[int, int]) -> None:
    """Shade the needle's answer."""
    start, end = max(read.start, span[0]), min(read.start + len(read.needle), span[1])
    if read.start >= 0 and start < end:
        chart.add_vrect(
            x0=start - 0.5, x1=end - 0.5, fillcolor=_NEEDLE, line_width=0, row=1, col=column
        )


def _steps(chart: Any, read: Read, column: int, span: tuple[int, int]) -> None:
    """Mark the most attended position of each step that lies in a span."""
    colors = {"copied": _COPIED, "needle": _NEAR, "elsewhere": _ELSEWHERE}
    shapes = {"copied": "square", "needle": "square-open", "elsewhere": "x-thin-open"}
    inside = [(at, w) for at, w in enumerate(read.written) if span[0] <= w.position < span[1]]
    chart.add_scatter(
        x=[one.position for _, one in inside], y=[at for at, _ in inside], mode="markers",
        marker={
            "size": 11, "color": [colors[one.place] for _, one in inside],
            "symbol": [shapes[one.place] for _, one in inside], "line": {"width": 2},
        },
        customdata=[
            ml.plots.escape(
                f"wrote {one.token}, looked at {one.looked_at or f'position {one.position}'}"
                f" ({one.place})", "html",
            ) for _, one in inside
        ],
        hovertemplate="%{customdata}<extra></extra>", row=1, col=column,
    )  # fmt: skip
