"""Means over subjects with intervals, and the numbers that a recall curve is summarised by."""

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.methods.recall.positions import spc
from mechlab.methods.recall.transitions import lag_crp, lag_rank
from mechlab.statistics import bootstrap_interval

__all__ = ["average_subjects", "recall_indices"]

ENDS = 3
"""Positions at either end that primacy and recency average."""
FAR = 4
"""From this absolute lag on, transitions are far in contiguity."""


def average_subjects(
    curve: xr.Dataset, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> xr.Dataset:
    """Average a measure over subjects, each with the same weight.

    Args:
        curve: what `lag_crp`, `spc`, `pfr`, `pnr`, `lag_rank` or `recall_indices` returned.
        confidence: of the bootstrap interval over subjects.
        resamples: bootstrap samples.
        seed: of the bootstrap.

    Returns:
        Every measure of `curve` without the axis `subject`, and for each `<name>_low`,
        `<name>_high` and `<name>_subjects`: its interval, NaN with one subject, and the number of
        subjects who have it. Counts are left out.

    Raises:
        OptionError: when there is no axis `subject`, or an option of the bootstrap is out of range.
    """
    if "subject" not in getattr(curve, "dims", ()):
        raise OptionError(
            "the curve has no axis `subject`. Allowed: what a measure of recall returned. Average "
            "each only once."
        )
    found = {}
    for name, values in curve.data_vars.items():
        if not np.issubdtype(values.dtype, np.floating):
            continue
        interval = bootstrap_interval(
            values, dim="subject", confidence=confidence, resamples=resamples, seed=seed
        )
        found[f"{name}"] = values.mean("subject", keep_attrs=True)
        found[f"{name}_low"], found[f"{name}_high"] = interval.low, interval.high
        found[f"{name}_subjects"] = values.notnull().sum("subject")
    return xr.Dataset(found, attrs={**curve.attrs, "confidence": confidence})


def recall_indices(recalls: xr.DataArray) -> xr.Dataset:
    """Return primacy, recency, asymmetry, contiguity and lag rank of each subject.

    Args:
        recalls: `[list, output_position]`, as `ml.prompts.recall_sequences` makes them.

    Returns:
        Of the axis subject: `primacy` and `recency`, the mean of the serial position curve over the
        first, respectively last, 3 positions minus its mean between them; `asymmetry`, the lag-CRP
        at +1 minus that at -1; `contiguity`, its mean at lags -1 and +1 minus that at absolute lags
        of 4 and more; `lag_rank`. NaN where a list is too short to have one.

    Raises:
        OptionError: when `recalls` has another form.
    """
    curve, crp = spc(recalls).prob, lag_crp(recalls).prob
    middle = curve.isel(input_position=slice(ENDS, -ENDS)).mean("input_position")
    ends = {
        "primacy": curve.isel(input_position=slice(None, ENDS)).mean("input_position") - middle,
        "recency": curve.isel(input_position=slice(-ENDS, None)).mean("input_position") - middle,
    }
    near, far = (crp.where(where) for where in (abs(crp.lag) == 1, abs(crp.lag) >= FAR))
    next_to = crp.reindex(lag=[-1, 1])
    lags = {
        "asymmetry": next_to.sel(lag=1, drop=True) - next_to.sel(lag=-1, drop=True),
        "contiguity": near.mean("lag") - far.mean("lag"),
    }
    made = xr.Dataset({**ends, **lags, "lag_rank": lag_rank(recalls).lag_rank})
    for name in (*ends, *lags):
        made[name].attrs["units"] = "probability"
    return made.assign_attrs(list_length=curve.sizes["input_position"], measure="recall indices")
