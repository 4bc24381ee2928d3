"""`mechlab cmr`: do heads attend like human recall? Lag curves fitted with a context model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechlab.cli.induction import Copies, Length, Lists, Pool, lists_of
from mechlab.cli.options import (
    Cache,
    Device,
    Dtype,
    Estimate,
    Html,
    JsonOutput,
    ModelName,
    Top,
    given,
)
from mechlab.cli.work import Request, check_figure_path, perform, write_figures
from mechlab.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

__all__ = ["cmr"]

_WHAT, _HOW = "What to run on", "How"


def cmr(
    context: typer.Context,
    model: ModelName = "atlas",
    lists: Lists = 10,
    length: Length = 50,
    copies: Copies = 2,
    pool: Pool = "auto",
    source: Annotated[
        str | None,
        typer.Option(
            help="Curves of attention scores before the softmax (default), or of its pattern.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    curves: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Fit these instead: .csv with layer, head, lag, value; or published .npz.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    human: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Compare with free recall: subject, list, trial_type, position, item.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    null_draws: Annotated[
        int | None, typer.Option(help="Curves without memory; 1000.", rich_help_panel=_HOW)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of lists and nulls.", rich_help_panel=_WHAT)] = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
    top: Top = 10,
    estimate: Estimate = False,
    html: Html = None,
    as_json: JsonOutput = False,
    cache: Cache = None,
) -> None:
    """Fit every head's attention by lag with a model of human recall, and say how much it means.

    Without arguments it measures the heads of the shipped model `atlas` on ten repeated lists. A
    small CMR distance alone is no sign of memory: peak lag, prefix matching, copying, near-optimal
    cells and two nulls stand beside it, and both thresholds are shown.
    """
    from mechlab.cli.memory_reports import cmr_report

    people = None if human is None else _from_people(human)
    report = cmr_report(top, people)
    options = {"seed": seed, **given(source=source, null_draws=null_draws)}
    if curves is not None:
        _refuse_beside_curves(context)
        _fit_file(curves, options, report, html, as_json=as_json)
        return
    perform(
        Request(
            "memory_heads",
            {"name": model, "device": device, "dtype": dtype},
            lists_of(lists, length, copies=copies, pool=pool, seed=seed),
            options,
        ),
        cache=cache,
        html=html,
        as_json=as_json,
        estimate=estimate,
        top=top,
        report=report,
    )


def _refuse_beside_curves(context: typer.Context) -> None:
    """Refuse options that say how curves are measured, beside curves that were (OptionError)."""
    measured = ("model", "lists", "length", "copies", "pool", "source", "device", "dtype",
                "estimate")  # fmt: skip
    typed = [name for name in measured if _was_typed(context, name)]
    if typed:
        raise OptionError(
            f"--curves with {', '.join(f'--{name}' for name in typed)}. Allowed: curves as they "
            "are in the file, of no model here. Leave one or the other out."
        )


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _fit_file(path: Path, options: Any, report: Any, html: Path | None, *, as_json: bool) -> None:
    """Fit the curves of a file; no model is loaded and nothing is stored."""
    from mechlab.prompts import read_lag_curves
    from mechlab.workflows.heads_as_memory import fitted_with_nulls

    if html is not None:
        check_figure_path(html)
    held = read_lag_curves(path)
    draws = options.get("null_draws", 1000)
    fit = fitted_with_nulls(held.curve, draws=draws, seed=options["seed"])
    result = fit.assign(held.sel(lag=fit.lag).data_vars)
    result.attrs = {"model_name": path.name, "options": json.dumps({"curves": path.name})}
    figure = write_figures(report, result, html or Path(f"{path.stem}-cmr.html"))
    (report.print_json if as_json else report.print_text)(result, run="not stored", html=figure)


def _from_people(path: Path) -> "Callable[[xr.Dataset], xr.Dataset]":
    """Return what adds each head's distance from the lag-CRP of people.

    Raises:
        PromptError: when the file is no free-recall experiment.
        OptionError: when its lists are too short, or its recalls too few, for lags up to 5.
    """
    import numpy as np
    import xarray as xr

    from mechlab.methods.cmr import crp_distance
    from mechlab.methods.recall import average_subjects, lag_crp
    from mechlab.prompts import read_free_recall

    crp = average_subjects(lag_crp(read_free_recall(path))).prob
    ramp = xr.DataArray(np.arange(11.0), {"lag": np.arange(-5, 6)}, ("lag",))
    crp_distance(ramp, crp)  # refuses what no head can be compared with before any run

    def add(result: "xr.Dataset") -> "xr.Dataset":
        found = crp_distance(result.curve, crp)
        return result.assign(human_distance=found.distance.drop_vars("status", errors="ignore"))

    return add
