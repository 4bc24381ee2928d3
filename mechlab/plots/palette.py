"""Colours and colour limits, shared by every renderer so that screen and export agree.

Effects: blue - white - red (ColorBrewer RdBu, safe for red-green blindness), white at 0, symmetric
limits. Probabilities: white to blue from 0 to 1.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt

from mechlab.errors import OptionError

__all__ = [
    "DIVERGING",
    "QUALITATIVE",
    "SEQUENTIAL",
    "Kind",
    "clipped_cells",
    "color_limits",
    "ink",
    "rgb",
]

Kind = Literal["diverging", "sequential"]
"""Signed effects are `diverging`; probabilities, attention and scores are `sequential`."""

DIVERGING = (
    "#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#ffffff",
    "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f",
)  # fmt: skip
"""Equally spaced stops from the lowest to the highest value; the middle one is exactly white."""

SEQUENTIAL = (
    "#ffffff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6",
    "#4292c6", "#2171b5", "#08519c", "#08306b",
)  # fmt: skip
"""Equally spaced stops from 0 to the maximum."""

QUALITATIVE = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#8a6d3b",
)  # fmt: skip
"""Colours of lines (Okabe and Ito, safe for colour blindness), in the order they are given out."""

_ROUNDING = 1e-6  # effects below this are float32 rounding; they must not fill the colour scale


def color_limits(
    values: npt.ArrayLike | Iterable[npt.ArrayLike],
    kind: Kind,
    *,
    clip: Literal["none", "p99"] = "none",
    maximum: float | None = None,
) -> tuple[float, float]:
    """Return the (lowest, highest) value of a colour scale.

    Args:
        values: one array or several that share the scale; cells that are not finite are ignored.
        kind: `diverging` gives limits symmetric about 0, `sequential` starts at 0.
        clip: `p99` ends the scale at the 99th percentile of |value| instead of the largest.
        maximum: a fixed upper end, for instance 1 for probabilities.

    Returns:
        `(-m, m)` or `(0, m)`. When nothing is known, or all is float32 rounding, m is 1e-6 or more,
        so that noise is never stretched over the scale.

    Raises:
        OptionError: when `maximum` is not a positive number, or a choice is unknown.
    """
    if kind not in ("diverging", "sequential") or clip not in ("none", "p99"):
        raise OptionError(
            f"kind={kind!r}, clip={clip!r}: kind is 'diverging' or 'sequential', "
            "clip is 'none' or 'p99'."
        )
    if maximum is not None and not (np.isfinite(maximum) and maximum > 0):
        raise OptionError(
            f"maximum={maximum!r} cannot end a colour scale. "
            "Give a positive number or leave it out."
        )
    top = _largest(values, clip) if maximum is None else float(maximum)
    return (-top, top) if kind == "diverging" else (0.0, top)


def clipped_cells(
    values: npt.NDArray[np.float32], limits: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    """Return which finite cells lie outside `limits`, with float32 slack; shape of `values`."""
    slack = 1e-6 * max(abs(limits[0]), abs(limits[1]))
    outside = (values < limits[0] - slack) | (values > limits[1] + slack)
    return np.isfinite(values) & outside


def rgb(value: float, limits: tuple[float, float], kind: Kind) -> tuple[int, int, int]:
    """Return the colour of `value` on the scale, as red, green, blue in 0..255."""
    stops = DIVERGING if kind == "diverging" else SEQUENTIAL
    share = min(max((value - limits[0]) / (limits[1] - limits[0]), 0.0), 1.0) * (len(stops) - 1)
    below = min(int(share), len(stops) - 2)
    low, high = _channels(stops[below]), _channels(stops[below + 1])
    red, green, blue = (
        round(a + (b - a) * (share - below)) for a, b in zip(low, high, strict=True)
    )
    return red, green, blue


def ink(background: tuple[int, int, int]) -> Literal["#000000", "#ffffff"]:
    """Return black or white, whichever has the larger contrast on `background` (WCAG luminance)."""
    linear = [_linear(channel / 255) for channel in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.179 else "#ffffff"


def _largest(values: npt.ArrayLike | Iterable[npt.ArrayLike], clip: str) -> float:
    arrays = list(values) if isinstance(values, list | tuple) else [values]
    flat = np.concatenate([np.abs(np.asarray(a, dtype=np.float64)).ravel() for a in arrays])
    finite = flat[np.isfinite(flat)]
    if finite.size == 0:
        return 1.0
    top = float(np.percentile(finite, 99) if clip == "p99" else finite.max())
    return max(top, _ROUNDING)


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _linear(channel: float) -> float:
    return float(channel / 12.92 if channel <= 0.03928 else ((channel + 0.055) / 1.055) ** 2.4)
