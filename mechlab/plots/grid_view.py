"""`GridView`: one heat map as plain data, before anything is drawn.

The plotly figure, the terminal picture, the dashboard's canvas and the table are four renderings of
this value, so they cannot disagree about numbers, order, colours or labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mechlab.errors import OptionError
from mechlab.plots.palette import Kind, clipped_cells, color_limits

__all__ = ["MASKED", "NOT_COMPUTED", "UNDEFINED", "VALUE", "GridView", "share_limits"]

NOT_COMPUTED, VALUE, UNDEFINED, MASKED = 0, 1, 2, 3
"""Cell states: never run; a number; run but without a meaning; not applicable to this model."""


@dataclass(frozen=True, eq=False, kw_only=True)
class GridView:
    """One grid of numbers with everything a reader must be told about it.

    Row 0 is drawn at the bottom when `row_order` is `up` (layers), at the top when it is `down`.
    """

    values: npt.NDArray[np.float32]
    """The numbers, (rows, columns); NaN wherever `state` is not 1."""
    row_labels: tuple[str, ...]
    """One label per row."""
    col_labels: tuple[str, ...]
    """One label per column; tokens come as `index·token` from `show_token`, not yet escaped."""
    row_name: str = "layer"
    """Name of the row dimension."""
    col_name: str = "pos"
    """Name of the column dimension."""
    row_order: Literal["up", "down"] = "up"
    """Direction in which rows are drawn."""
    kind: Kind = "diverging"
    """Colour scale."""
    limits: tuple[float, float] = (0.0, 0.0)
    """(lowest, highest) colour; (0, 0), the default, means: from the values."""
    clipped: int = 0
    """Number of cells outside `limits`; counted here, whatever is passed."""
    state: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0), np.uint8))
    """(rows, columns): 0 not computed, 1 value, 2 undefined, 3 not applicable; from the values
    when it is not given (NaN is not computed, infinity is undefined)."""
    gap: str = "not computed"
    """What a cell of state 0 means here, in words."""
    title: str = ""
    """What this grid is among others, e.g. `mlp_out · windows of 2 layers`."""
    subject: str = ""
    """What all grids of one picture share, e.g. the prompt."""
    metric: str = "value"
    """What the numbers are, e.g. `indirect effect`."""
    unit: str = ""
    """Unit of the numbers, e.g. `probability`."""
    sign: str = ""
    """What a positive number means, in words."""
    n: int | None = None
    """How many measurements each number averages."""
    n_unit: str = ""
    """What is counted by `n`, e.g. `noise samples`."""
    note: str = ""
    """How it was made, e.g. `noise 3σ, seed 0`."""
    ci_low: npt.NDArray[np.float32] | None = None
    """Lower end of a 95 % interval per cell, (rows, columns)."""
    ci_high: npt.NDArray[np.float32] | None = None
    """Upper end of a 95 % interval per cell, (rows, columns)."""
    dots: npt.NDArray[np.uint8] | None = None
    """(rows, columns): 1 where a cell is significant after correction for many tests."""
    hover: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Further named facts per cell, each (rows, columns)."""
    selected: tuple[int, int] | None = None
    """(row, column) of the chosen cell."""

    def __post_init__(self) -> None:
        """Bring arrays into their types, check shapes, and fill in state and limits.

        Raises:
            OptionError: when labels, state, intervals or hover do not match the grid's shape.
        """
        values = np.array(self.values, dtype=np.float32)
        state = np.array(self.state, dtype=np.uint8)
        if state.size == 0:
            state = np.where(np.isfinite(values), VALUE, np.where(np.isnan(values), 0, UNDEFINED))
        self._check(values, state)
        values[state != VALUE] = np.nan
        limits = self.limits
        if tuple(limits) == (0.0, 0.0):
            limits = color_limits(values, self.kind)
        self._set(values=values, state=state.astype(np.uint8), limits=limits)
        self._set(clipped=int(clipped_cells(values, limits).sum()))
        self._set(hover=MappingProxyType(dict(self.hover)))
        values.setflags(write=False)
        self.state.setflags(write=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of (rows, columns)."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def facts(self) -> str:
        """One line with everything but the title: metric, unit, sign, n, how it was made."""
        metric = f"{self.metric} ({self.unit})" if self.unit else self.metric
        count = f"n = {self.n} {self.n_unit}".strip() if self.n is not None else ""
        clipped = f"{self.clipped} cells beyond the scale" if self.clipped else ""
        return " · ".join(part for part in (metric, self.sign, count, self.note, clipped) if part)

    def describe(self, row: int, col: int) -> str:
        """Say one cell in words, e.g. `layer 9 · 4·␣Tower: +0.310` or `L9H6: +0.310`."""
        place = self.place(row, col)
        match int(self.state[row, col]):
            case 1:
                return f"{place}: {self.format(self.values[row, col])}{self._interval(row, col)}"
            case 2:
                return f"{place}: undefined"
            case 3:
                return f"{place}: not applicable"
        return f"{place}: {self.gap}"

    def place(self, row: int, col: int) -> str:
        """Name one cell, e.g. `layer 9 · 4·␣Tower`, or a head as `L9H6`."""
        label = self.col_labels[col]
        if (self.row_name, self.col_name) == ("layer", "head") and label.isdecimal():
            return f"L{self.row_labels[row]}H{label}"
        if self.col_name == "kv_head":
            label = f"kv_head {label}"
        return (
            f"{self.row_name} {self.row_labels[row]} · {label}" if self.row_labels[row] else label
        )

    def format(self, value: float) -> str:
        """Write a value of this grid; effects always carry their sign."""
        return f"{value:+.4f}" if self.kind == "diverging" else f"{value:.4f}"

    def _interval(self, row: int, col: int) -> str:
        if self.ci_low is None or self.ci_high is None:
            return ""
        low, high = self.ci_low[row, col], self.ci_high[row, col]
        return f" (95 % interval {self.format(low)} to {self.format(high)})"

    def _check(self, values: npt.NDArray[np.float32], state: npt.NDArray[Any]) -> None:
        expected = (len(self.row_labels), len(self.col_labels))
        shapes = {"values": values.shape, "state": state.shape}
        optional = {"ci_low": self.ci_low, "ci_high": self.ci_high, "dots": self.dots, **self.hover}
        shapes |= {name: np.shape(array) for name, array in optional.items() if array is not None}
        if wrong := {name: shape for name, shape in shapes.items() if shape != expected}:
            raise OptionError(
                f"arrays of a grid disagree with its labels: {wrong}. The labels allow {expected} "
                f"(rows, columns); pass one label per row and per column."
            )

    def _set(self, **fields: Any) -> None:
        for name, content in fields.items():
            object.__setattr__(self, name, content)


def share_limits(views: Sequence[GridView]) -> list[GridView]:
    """Return the views on one colour scale that holds all of them.

    Raises:
        OptionError: when there is no view, or the views mix diverging and sequential scales.
    """
    if not views:
        raise OptionError("0 grids were given; a picture needs at least one.")
    kinds = {view.kind for view in views}
    if len(kinds) > 1:
        raise OptionError(
            f"grids of kinds {sorted(kinds)} cannot share one colour scale; draw them separately."
        )
    lows, highs = [view.limits[0] for view in views], [view.limits[1] for view in views]
    return [replace(view, limits=(min(lows), max(highs))) for view in views]
