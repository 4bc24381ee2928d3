"""How one method's results are shown: figure, text and JSON, as one value."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

__all__ = ["Printer", "Report", "beside", "report_of_parts"]


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


def report_of_parts(
    method: str,
    draw: "Callable[[xr.Dataset], go.Figure | None]",
    tell: "Callable[[xr.Dataset], Iterable[Any]]",
    numbers: "Callable[[xr.Dataset], dict[str, Any]]",
    *,
    more: "Callable[[xr.Dataset], dict[str, go.Figure]]" = lambda _: {},
    width: int = 8,
) -> Report:
    """Return a report that prints parts one after the other, and then the run and its figures.

    Args:
        method: its name, for the JSON object.
        draw: makes the figure.
        tell: what is printed for people: lines, and tables of rich.
        numbers: what the JSON object holds besides where it comes from.
        more: further figures, by the name that their file ends in.
        width: of the words before run and figures.
    """

    def print_text(result: "xr.Dataset", /, *, run: str, html: Path | None) -> None:
        from rich.console import Console

        console = Console()
        files = {} if html is None else {n: beside(html, n) for n in more(result)}
        named = {"run": run, **({} if html is None else {"figure": html}), **files}
        last = [f"{name:<{width - 1}} {value}" for name, value in named.items()]
        for part in (*tell(result), *last):
            if isinstance(part, str):
                console.print(part, markup=False, highlight=False, soft_wrap=True)
            else:
                console.print(part)

    def print_json(result: "xr.Dataset", /, *, run: str, html: Path | None) -> None:
        about = {
            "run": run,
            "method": method,
            "model": result.attrs.get("model_name"),
            "options": json.loads(result.attrs.get("options", "{}")),
            "figure": None if html is None else str(html),
            **numbers(result),
        }
        print(json.dumps(about, ensure_ascii=False, allow_nan=False))

    return Report(draw, print_text, print_json, more)
