"""The two conventions of drift in context models."""

from typing import Any, Literal, TypeVar

import numpy as np
import xarray as xr

from mechlab.errors import OptionError

__all__ = ["convert_beta"]

Number = TypeVar("Number", float, np.ndarray[Any, Any], xr.DataArray)
FORMS = ("rho", "1 - beta")


def convert_beta(
    beta: Number, to: Literal["rho", "1 - beta"] = "rho", *, cosine: float = 0.0
) -> Number:
    """Convert a drift between the two conventions; betas of different forms are not comparable.

    TCM and CMR (Howard & Kahana 2002, Polyn et al. 2009; `CMR`) move context by
    `c <- rho c + beta c_IN` with the rho that keeps its length at 1. The simplified model of Ji-An
    et al. 2024 (`fit_cmr`) takes `c <- (1 - b) c + b c_IN` and then scales to length 1, which is
    the same step with `beta = b / |(1 - b) c + b c_IN|`. For a `c_IN` orthogonal to `c`:

        beta = b / sqrt((1 - b)^2 + b^2)        0.5 -> 0.707, 0.7 -> 0.919
        b = beta / (beta + sqrt(1 - beta^2))

    Args:
        beta: number, array or DataArray, within 0 and 1; of the form that `to` is not.
        to: `rho` takes b to beta, `1 - beta` takes beta to b.
        cosine: of the angle between context and what enters it, from 0 and below 1. In study of
            new items it is 0; in recall it is not, and the conversion then is that of one step.

    Returns:
        The same kind as `beta`; a DataArray carries `to` as its attribute `drift`.

    Raises:
        OptionError: a beta or cosine out of range, another form, or a DataArray whose attribute
            `drift` says that it has that form already.
    """
    values: np.ndarray[Any, Any] = np.asarray(beta, dtype=float)
    problems = []
    if to not in FORMS:
        problems.append(f"to={to!r} ({' or '.join(map(repr, FORMS))})")
    if ((values < 0) | (values > 1)).any():
        problems.append("beta within 0 and 1")
    if not 0 <= cosine < 1:
        problems.append(f"cosine={cosine!r} (from 0 and below 1)")
    if isinstance(beta, xr.DataArray) and beta.attrs.get("drift") == to:
        problems.append(f"beta has the form {to!r} already")
    if problems:
        raise OptionError(
            f"convert_beta: {'; '.join(problems)}. Allowed: betas of the other form, as the "
            "docstring gives both. Correct it."
        )
    if to == "rho":
        rest = 1 - values
        made = values / np.sqrt(rest**2 + values**2 + 2 * values * rest * cosine)
    else:
        rho = np.sqrt(1 + values**2 * (cosine**2 - 1)) - values * cosine
        made = values / (values + rho)
    if isinstance(beta, xr.DataArray):
        return beta.copy(data=made).assign_attrs(drift=to)
    return np.asarray(made) if isinstance(beta, np.ndarray) else float(made)
