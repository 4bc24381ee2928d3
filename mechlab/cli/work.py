"""One request, from the store or computed: what all commands that compute share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechlab.errors import OptionError

if TYPE_CHECKING:
    import xarray as xr

    from mechlab.cli.report_kind import Report
    from mechlab.models import Model
    from mechlab.prompts import PromptSet
    from mechlab.results import Method
    from mechlab.store import Store

__all__ = ["Completion", "Request", "default_figure", "method_table", "perform"]

Completion = Callable[["Model", "PromptSet[Any]"], Mapping[str, Any]]
"""Options that depend on the model or the prompts; those that were given win."""


@dataclass(frozen=True)
class Request:
    """What to compute, as plain data; nothing is loaded yet."""

    method: str
    """Name of a method, as in the table of `mechlab.methods`."""
    model: Mapping[str, Any]
    """Arguments of `load_model`."""
    prompts: "PromptSet[Any] | Callable[[Model], PromptSet[Any]]"
    """What the method is applied to, or what makes it once the model is known."""
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
    top: int = 10,
    report: "Report | None" = None,
) -> None:
    """Compute a request or take it from the store, and show it.

    What can be refused without a model is refused before one is loaded.

    Args:
        request: what to compute.
        cache: where results are kept.
        html: where the figure is written; in the store if left out.
        as_json: print one JSON object instead of text.
        estimate: say what it would cost, and stop.
        complete: gives options that depend on the model.
        top: how many of the strongest cells are listed.
        report: how the result is shown; by default as its method's results are.

    Raises:
        MechlabError: when the request cannot be carried out; nothing is half-written.
    """
    from mechlab.cli import estimates
    from mechlab.cli.bar import progress_bar
    from mechlab.cli.reports import report_of
    from mechlab.store import Store

    store = Store(cache)
    if html is not None:
        check_figure_path(html)
    function, model = _function_and_model(request)
    prompts = request.prompts(model) if callable(request.prompts) else request.prompts
    options = {**(complete(model, prompts) if complete else {}), **request.options}
    key = store.key(function, model, prompts, **options)
    if estimate:
        estimates.show(store, key, function, model, prompts, options, as_json=as_json)
        return
    with progress_bar(request.method.replace("_", " ")) as progress:
        result = store.run(function, model, prompts, progress=progress, **options)
    if "case" not in result.dims and result.sizes.get("prompt") == len(prompts.groups):
        result = result.assign_coords(group=("prompt", list(prompts.groups)))
    report = report or report_of(request.method, top=top)
    figure = write_figures(report, result, html or default_figure(store, key, report.ending))
    (report.print_json if as_json else report.print_text)(result, run=key[:12], html=figure)


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


def write_figures(report: "Report", result: "xr.Dataset", path: Path) -> Path | None:
    """Write the figures as HTML files; `None` when there is nothing to draw.

    Raises:
        OptionError: when one cannot be written; the result itself is stored by then.
    """
    from mechlab.cli.report_kind import beside
    from mechlab.plots import write_html

    figure = report.draw(result)
    if figure is None:
        return None
    try:
        written = write_html(figure, path)
        for name, further in report.more(result).items():
            write_html(further, beside(written, name))
    except OSError as error:
        raise OptionError(
            f"the figure cannot be written to {path}: {error.strerror or error}. The result is "
            "stored. Give another place with --html."
        ) from error
    return written


def method_table() -> "Mapping[str, Method]":
    """Return every method that can be asked for, by name: those that chain others too."""
    from mechlab import workflows
    from mechlab.methods import METHODS
    from mechlab.results import method_of

    chains = (
        workflows.batch_edits,
        workflows.edit_sweep,
        workflows.localize_edit_verify,
        workflows.memory_ablation,
        workflows.memory_heads,
        workflows.screen_then_verify,
        workflows.sequential_edits,
    )
    return {**METHODS, **{chain.__name__: method_of(chain) for chain in chains}}


def _function_and_model(request: Request) -> "tuple[Callable[..., xr.Dataset], Model]":
    from mechlab.models import load_model

    table = method_table()
    if request.method not in table:
        raise OptionError(
            f"{request.method!r} is not a method. Allowed: {', '.join(sorted(table))}. "
            "Use one of them."
        )
    return table[request.method].function, load_model(**request.model)


def default_figure(store: "Store", key: str, ending: str = "") -> Path:
    """Return a place beside the results, or the working folder when these are not on this disk."""
    name = f"{key[:12]}{ending}.html"
    return Path(name) if "://" in store.root else Path(store.root) / "figures" / name
