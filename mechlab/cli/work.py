"""One request, from the store or computed: what `mechlab trace` and `mechlab run` share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechlab.errors import OptionError

if TYPE_CHECKING:
    import xarray as xr

    from mechlab.models import Model
    from mechlab.prompts import PromptSet
    from mechlab.store import Store

__all__ = ["Completion", "Request", "perform"]

Completion = Callable[["Model"], Mapping[str, Any]]
"""Options that depend on the model; those that were given win."""


@dataclass(frozen=True)
class Request:
    """What to compute, as plain data; nothing is loaded yet."""

    method: str
    """Name of a method, as in the table of `mechlab.methods`."""
    model: Mapping[str, Any]
    """Arguments of `load_model`."""
    prompts: "PromptSet[Any]"
    """What the method is applied to."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options that were given; the others keep the method's own defaults."""


def perform(
    request: Request,
    *,
    cache: str | None = None,
    html: Path | None = None,
    as_json: bool = False,
    estimate: bool = False,
    complete: Completion | None = None,
) -> None:
    """Compute a request or take it from the store, and show it.

    What can be refused without a model is refused before one is loaded.

    Raises:
        MechlabError: when the request cannot be carried out; nothing is half-written.
    """
    from mechlab.cli import estimates, report
    from mechlab.cli.bar import progress_bar
    from mechlab.store import Store

    store = Store(cache)
    if html is not None:
        check_figure_path(html)
    function, model = _function_and_model(request)
    options = {**(complete(model) if complete else {}), **request.options}
    key = store.key(function, model, request.prompts, **options)
    if estimate:
        estimates.show(store, key, function, model, request.prompts, options, as_json=as_json)
        return
    with progress_bar(request.method.replace("_", " ")) as progress:
        trace = store.run(function, model, request.prompts, progress=progress, **options)
    figure = write_figure(trace, html or _default_figure(store, key))
    (report.print_json if as_json else report.print_text)(trace, run=key[:12], html=figure)


def check_figure_path(path: Path) -> None:
    """Refuse a place for the figure before anything is computed.

    Raises:
        OptionError: when `path` is a folder, or lies in one that does not exist.
    """
    if path.is_dir() or not path.expanduser().absolute().parent.is_dir():
        raise OptionError(
            f"--html {path} cannot be written: it is a folder, or lies in one that does not exist. "
            "Allowed: the name of a file in an existing folder. Choose one, or leave it out."
        )


def write_figure(trace: "xr.Dataset", path: Path) -> Path | None:
    """Write the figure as one HTML file; `None` when there is nothing to draw.

    Raises:
        OptionError: when it cannot be written; the result itself is stored by then.
    """
    from mechlab.cli import report
    from mechlab.plots import write_html

    figure = report.draw(trace)
    if figure is None:
        return None
    try:
        return write_html(figure, path)
    except OSError as error:
        raise OptionError(
            f"the figure cannot be written to {path}: {error.strerror or error}. The result is "
            "stored. Give another place with --html."
        ) from error


def _function_and_model(request: Request) -> "tuple[Callable[..., xr.Dataset], Model]":
    from mechlab.methods import METHODS
    from mechlab.models import load_model

    if request.method not in METHODS:
        raise OptionError(
            f"{request.method!r} is not a method. Allowed: {', '.join(METHODS)}. Use one of them."
        )
    return METHODS[request.method].function, load_model(**request.model)


def _default_figure(store: "Store", key: str) -> Path:
    """Return a place beside the results, or the working folder when these are not on this disk."""
    name = f"{key[:12]}.html"
    return Path(name) if "://" in store.root else Path(store.root) / "figures" / name
