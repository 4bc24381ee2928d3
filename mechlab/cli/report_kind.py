"""How one method's results are shown: figure, text and JSON, as one value."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

__all__ = ["Printer", "Report", "beside"]


class Printer(Protocol):
    """Prints a result."""

    def __call__(self, result: "xr.Dataset", /, *, run: str, html: Path | None) -> None:
        """Print it, with the run's id and where the figure is."""


@dataclass(frozen=True)
class Report:
    """How one method's results are shown."""

    draw: "Callable[[xr.Dataset], go.Figure | None]"
    """The figure; `None` when there is nothing to draw."""
    print_text: Printer
    """For people."""
    print_json: Printer
    """One JSON object."""
    more: "Callable[[xr.Dataset], dict[str, go.Figure]]" = lambda _: {}
    """Further figures, by the name that their file ends in."""
    ending: str = ""
    """What the figure's name ends in where none was given, if a method has several reports."""


def beside(html: Path, name: str) -> Path:
    """Return where a further figure of the same run is written."""
    return html.with_name(f"{html.stem}-{name}{html.suffix}")
