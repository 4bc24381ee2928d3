"""Fit CMR to recall sequences by maximum likelihood."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from scipy.optimize import differential_evolution, minimize

from mechlab.errors import OptionError
from mechlab.methods.recall.likelihood import sequence_log_likelihood
from mechlab.methods.recall.model import CMR, PARAMETERS
from mechlab.methods.recall.search import FREE, Search
from mechlab.methods.recall.sequences import read_sequences
from mechlab.progress import Progress, ProgressCallback

__all__ = ["fit_recalls", "fitted_model"]

Array = np.ndarray[Any, Any]

IMPOSSIBLE = -1e6
"""Stands for the log likelihood of a list that a setting cannot produce, so that settings which
cannot produce fewer of them still win."""
STEP = 1e-5
"""Of the difference quotients, as a share of a parameter's range."""
AT_BOUND = 1e-3
"""A parameter is at a bound when so near to it, as a share of its range."""


@dataclass(frozen=True)
class _Found:
    values: Array
    log_likelihood: float
    converged: bool
    evaluations: int


def fit_recalls(
    recalls: xr.DataArray,
    *,
    model: CMR | None = None,
    free: Sequence[str] = FREE,
    by: Literal["pooled", "subject"] = "pooled",
    bounds: Mapping[str, tuple[float, float]] | None = None,
    population: int = 10,
    generations: int = 100,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Fit CMR to recall sequences by maximum likelihood.

    Differential evolution over the bounds, then L-BFGS-B from its best setting with difference
    quotients; a generation is evaluated over all lists at once. Intrusions and repeats are passed
    over. Temperature and the scale of support (`gamma_cf`) tell nearly the same story, and `phi_d`
    is loose where `phi_s` is small: free few.

    Args:
        recalls: `[list, output_position]`, as `ml.prompts.recall_sequences` makes them.
        model: rules of the model, and the values of the parameters that are not free.
        free: names of the parameters that are fitted.
        by: all lists together, or the lists of each subject by themselves.
        bounds: `(low, high)` of free parameters, in place of the default.
        population: settings per free parameter in a generation.
        generations: of differential evolution at most; it ends earlier when they agree.
        seed: of the search.
        progress: called after each fit; may raise `Cancelled`.

    Returns:
        Of the axis subject (one entry, `all`, when pooled): every parameter under its name, free or
        not; `log_likelihood` (nats), `lists`, `recalled` (valid recalls), `at_bound` (free
        parameters at an end of their bounds), `converged` (whether both searches said so) and
        `evaluations` (settings tried). Attributes tell the rules and what was free. `fitted_model`
        makes a `CMR` of it.

    Raises:
        OptionError: when `recalls` has another form, or naming all options that are wrong.
    """
    search = Search(
        model or CMR(), tuple(free), dict(bounds or {}), by, population, generations, seed
    )
    held = read_sequences(recalls)
    groups = {"all": np.arange(len(held.places))}
    if by == "subject":
        groups = {str(n): np.flatnonzero(held.subject_of == i) for i, n in enumerate(held.subjects)}
    valid = held.without_invalid()
    lists = {name: valid[rows] for name, rows in groups.items()}
    found = []
    for one in lists.values():
        found.append(_fitted(one, held.length, search))
        if progress is not None:
            progress(Progress(len(found), len(lists), "fits"))
    return _dataset(found, lists, search)


def fitted_model(fit: xr.Dataset, subject: object | None = None) -> CMR:
    """Return the model that `fit_recalls` found.

    Args:
        fit: what it returned.
        subject: whose; may be left out when there is one entry.

    Raises:
        OptionError: when there are several entries and none is named, or the name is unknown.
    """
    names = fit.subject.values.tolist()
    wanted = names[0] if subject is None and len(names) == 1 else str(subject)
    if wanted not in names:
        raise OptionError(
            f"subject={subject!r} is not in this fit. Allowed: {', '.join(map(str, names[:20]))}. "
            "Name one of them."
        )
    row = fit.isel(subject=names.index(wanted))
    values: dict[str, Any] = {name: float(row[name]) for name in PARAMETERS}
    rules = {name: fit.attrs[name] for name in ("association", "choice", "stopping")}
    return CMR(**values, **rules)


def _fitted(recalled: Array, items: int, search: Search) -> _Found:
    bounds = search.bounds
    low, high = bounds.T

    def cost(settings: Array) -> Array:
        """Return minus the log likelihood of settings `[parameter, setting]`, `[setting]`."""
        values = search.values(settings)
        each = sequence_log_likelihood(values, recalled, items, search.model.rules)
        made: Array = -np.maximum(each, IMPOSSIBLE).sum(axis=1)
        return made

    def with_slope(setting: Array) -> tuple[float, Array]:
        reach = STEP * np.diag(high - low)
        ahead, behind = (np.clip(setting + sign * reach, low, high) for sign in (1, -1))
        own, *costs = cost(np.concatenate([setting[None], ahead, behind]).T)
        difference = np.subtract(*np.split(np.array(costs), 2))
        return float(own), difference / np.diag(ahead - behind)

    wide = differential_evolution(
        cost,
        bounds.tolist(),
        popsize=search.population,
        maxiter=search.generations,
        tol=1e-3,
        seed=search.seed,
        polish=False,
        vectorized=True,
        updating="deferred",
    )
    near = minimize(with_slope, wide.x, jac=True, method="L-BFGS-B", bounds=bounds.tolist())
    best = near if near.fun <= wide.fun else wide
    tried = (wide.nit + 1) * search.population * len(low) + near.nfev * (1 + 2 * len(low))
    return _Found(best.x, -float(best.fun), bool(wide.success and near.success), int(tried))


def _dataset(found: Sequence[_Found], lists: Mapping[str, Array], search: Search) -> xr.Dataset:
    low, high = search.bounds.T
    close = AT_BOUND * (high - low)
    settings = np.array([one.values for one in found])
    at_bound = (settings <= low + close) | (settings >= high - close)
    columns: dict[str, Any] = {
        **search.values(settings.T),
        "log_likelihood": [one.log_likelihood for one in found],
        "lists": [len(one) for one in lists.values()],
        "recalled": [int((one >= 0).sum()) for one in lists.values()],
        "at_bound": at_bound.sum(axis=1),
        "converged": [one.converged for one in found],
        "evaluations": [one.evaluations for one in found],
    }
    about = {"free": ", ".join(search.free), **asdict(search.model.rules), "seed": search.seed}
    data = {name: ("subject", values) for name, values in columns.items()}
    made = xr.Dataset(data, {"subject": list(lists)}, about)
    made.log_likelihood.attrs["units"] = "nats"
    return made
