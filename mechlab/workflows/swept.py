"""An edit, taken out of a workflow's result (`swept_edit`)."""

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.methods.editing import Delta, Edit
from mechlab.prompts import EditRequest
from mechlab.workflows.sweeping import REQUEST

__all__ = ["swept_edit"]


def swept_edit(result: xr.Dataset, *, layer: int | None = None, case: int = 0) -> Edit:
    """Return one of the edits that a result of an editing workflow holds.

    Args:
        result: of `ml.edit_sweep` or `ml.localize_edit_verify`.
        layer: which layer's; `None` for the one that `localize_edit_verify` chose.
        case: number of the case.

    Raises:
        OptionError: another result, or an edit that is not in it.
    """
    about = getattr(result, "attrs", {})
    known = about.get("method") in ("edit_sweep", "localize_edit_verify")
    chosen = about.get("chosen_layer") if layer is None else layer
    if not known or chosen is None or not 0 <= case < result.sizes["case"]:
        raise OptionError(
            f"no edit of case {case}, layer {chosen} in a result of {about.get('method')}. "
            "Allowed: results of edit_sweep and localize_edit_verify, their cases from 0, and for "
            "edit_sweep a layer. Correct these."
        )
    there = chosen in result.layer.values
    at = result[["left", "right", *(f"request_{name}" for name in REQUEST)]].isel(case=case)
    at = at.sel(layer=chosen) if there else at.isel(layer=0)
    if not there or bool(np.isnan(at.right).any()):
        raise OptionError(
            f"layer {chosen} was not edited in this result. Allowed: "
            f"{[int(n) for n in result.layer[~np.isnan(result.norm[case]).values].values]}. "
            "Choose one of these."
        )
    request = EditRequest(*(str(at[f"request_{name}"].item()) for name in REQUEST))
    factors = (at[name].values[:, None] for name in ("left", "right"))
    delta = Delta(int(chosen), str(about["edit_site"]), *factors)  # type: ignore[arg-type]
    return Edit((delta,), (request,), str(about["model_fingerprint"]))
