"""Which positions of the list are recalled, first, n-th, and at all."""

from typing import Any

import numpy as np
import xarray as xr

from mechlab.methods.recall.sequences import Sequences, read_sequences

__all__ = ["pfr", "pnr", "spc"]

Array = np.ndarray[Any, Any]


def spc(recalls: xr.DataArray) -> xr.Dataset:
    """Return the serial position curve: how often the item at each position is recalled.

    Args:
        recalls: `[list, output_position]`, as `ml.prompts.recall_sequences` makes them.

    Returns:
        Of the axes subject and input_position (from 1): `actual` (lists with the item recalled),
        `possible` (all lists), `prob`, their ratio.

    Raises:
        OptionError: when `recalls` has another form.
    """
    held = read_sequences(recalls)
    actual = held.by_subject(np.where(held.valid, held.places, -1), held.length)
    lists = np.bincount(held.subject_of, minlength=len(held.subjects))
    possible = np.broadcast_to(lists[:, None], actual.shape)
    return _curve(held, actual, possible, "serial position curve")


def pnr(recalls: xr.DataArray) -> xr.Dataset:
    """Return the probability of the n-th recall.

    Repeats and intrusions are passed over: they take no output position. As in psifr a list counts
    as possible at an output position for each item not yet recalled, if it has a recall there.

    Args:
        recalls: `[list, output_position]`, as `ml.prompts.recall_sequences` makes them.

    Returns:
        Of the axes subject, output_position and input_position (both from 1 to the list length):
        `actual`, `possible` (lists), and `prob`, their ratio, NaN where nothing was possible.

    Raises:
        OptionError: when `recalls` has another form.
    """
    held = read_sequences(recalls)
    n = held.length
    recalled = held.without_invalid()
    first = np.arange(n) * n  # cells of a table of output by input position
    actual = held.by_subject(np.where(recalled >= 0, first + recalled, -1), n * n)
    available = np.ones((len(recalled), n), dtype=bool)
    possible = np.zeros_like(actual)
    for output, item in enumerate(recalled.T):
        there = np.flatnonzero(item >= 0)
        open_cells = np.where(available & (item >= 0)[:, None], first[output] + np.arange(n), -1)
        possible += held.by_subject(open_cells, n * n)
        available[there, item[there]] = False
    shape = (len(held.subjects), n, n)
    return _curve(
        held, actual.reshape(shape), possible.reshape(shape), "probability of the n-th recall"
    )


def pfr(recalls: xr.DataArray) -> xr.Dataset:
    """Return the probability of first recall: which position the first recalled item has.

    Lists without any valid recall are left out, so that it sums to 1.

    Args:
        recalls: `[list, output_position]`, as `ml.prompts.recall_sequences` makes them.

    Returns:
        Of the axes subject and input_position (from 1): `actual`, `possible` (lists), and `prob`.

    Raises:
        OptionError: when `recalls` has another form.
    """
    first = pnr(recalls).isel(output_position=0, drop=True)
    return first.assign_attrs(measure="probability of first recall")


def _curve(held: Sequences, actual: Array, possible: Array, measure: str) -> xr.Dataset:
    by_output = ("output_position",) if actual.ndim == 3 else ()
    axes = ("subject", *by_output, "input_position")
    with np.errstate(invalid="ignore"):
        prob = actual / np.where(possible > 0, possible, np.nan)
    places = {name: np.arange(1, held.length + 1) for name in axes[1:]}
    return xr.Dataset(
        {
            "prob": (axes, prob, {"units": "probability"}),
            "actual": (axes, actual, {"units": "lists"}),
            "possible": (axes, possible, {"units": "lists"}),
        },
        {"subject": held.subjects, **places},
        {"list_length": held.length, "measure": measure},
    )
