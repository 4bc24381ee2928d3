"""Averages over positions and heads: `by_token_role`, `top_heads`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from mechlab.axes import TOKEN_ROLES, Head
from mechlab.errors import OptionError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["by_token_role", "top_heads"]


def by_token_role(
    array: xr.DataArray, average: Literal["pooled", "per_prompt"] = "pooled"
) -> xr.DataArray:
    """Average the positions of each prompt into token roles (Meng et al. 2022, section 2).

    The axis `pos` becomes `token_role`; every other axis stays, so that
    `by_token_role(trace.indirect_effect).mean("prompt")` is the average over facts, with either
    choice of `average`:

    - `"per_prompt"`: an entry is the mean over the prompt's tokens of that role. The mean over
      `prompt` then counts every prompt once.
    - `"pooled"`: an entry is the sum over the prompt's tokens of that role, divided by the number
      of such tokens that a prompt has on average. The mean over `prompt` then is the mean over all
      tokens of all prompts, as published. A single entry is a prompt's contribution, not its own
      mean; the two differ only in roles of which prompts have different numbers of tokens
      (`before_subject`, `middle_subject`, `further`). Choose prompts before pooling, not after.

    Cells that are NaN are left out, for each of the other axes separately. An entry without any
    cell (role absent, prompt skipped) is NaN, which xarray's `mean` leaves out in turn. A one-token
    subject counts as first and as last subject token; a last token that follows the subject
    directly counts as first subsequent token as well.

    Args:
        array: any axes, among them `pos`, with the coordinate `token_role` of (prompt, pos), or of
            (pos) when one prompt was chosen.
        average: how prompts weigh in a role's mean.

    Raises:
        OptionError: when axes or coordinate are missing, or `average` is unknown.
    """
    import xarray as xr

    _check_roles(array, average)
    member = _membership(array.coords["token_role"])
    array = array.drop_vars("token_role")  # the name becomes an axis below
    total = xr.dot(array.fillna(0.0), member, dim="pos")
    count = xr.dot(array.notnull().astype(float), member, dim="pos")
    if average == "pooled" and "prompt" in array.dims:
        with_role = (count > 0).sum("prompt")
        weight = count.sum("prompt") / with_role.where(with_role > 0)
    else:
        weight = count
    order = [dim if dim != "pos" else "token_role" for dim in array.dims]
    mean = (total / weight).where(count > 0).transpose(*order)
    named: xr.DataArray = mean.rename(array.name)
    return named.assign_attrs(array.attrs)


def top_heads(
    array: xr.DataArray, k: int | None = None, at_least: float | None = None
) -> list[Head]:
    """Return the heads with the largest values, largest first; equal ones by layer and head.

    Args:
        array: axes `layer` and `head` only; NaN cells are never returned.
        k: at most so many heads; all by default.
        at_least: smallest value that counts.

    Raises:
        OptionError: when the axes differ, or `k` is negative.
    """
    if set(array.dims) != {"layer", "head"}:
        raise OptionError(
            f"top_heads got the axes {tuple(array.dims)}. Allowed: layer and head only. "
            "Average the others first, e.g. array.mean('prompt')."
        )
    if k is not None and k < 0:
        raise OptionError(f"k={k} heads. Allowed: 0 or more. Leave it out to get all of them.")
    values = array.transpose("layer", "head").values
    kept = ~np.isnan(values) if at_least is None else values >= at_least
    layers, heads = _numbers(array, "layer"), _numbers(array, "head")
    ranked = sorted((-values[i, j], Head(layers[i], heads[j])) for i, j in np.argwhere(kept))
    return [head for _, head in ranked[:k]]


def _numbers(array: xr.DataArray, dim: str) -> list[int]:
    return [int(number) for number in array[dim].values]  # counts from 0 without a coordinate


def _check_roles(array: xr.DataArray, average: str) -> None:
    if average not in ("pooled", "per_prompt"):
        raise OptionError(
            f"average={average!r} is unknown. Allowed: 'pooled', 'per_prompt'. Use one of these."
        )
    roles = array.coords.get("token_role")
    wanted = {dim for dim in ("prompt", "pos") if dim in array.dims}
    if "pos" not in array.dims or roles is None or not {"pos"} <= set(roles.dims) <= wanted:
        found = "no coordinate token_role" if roles is None else f"token_role of {roles.dims}"
        raise OptionError(
            f"by_token_role got the axes {tuple(array.dims)} and {found}. "
            "Allowed: an array with the axis pos and token_role of (prompt, pos) or of (pos). "
            "Call it before averaging over prompts or positions."
        )


def _membership(roles: xr.DataArray) -> xr.DataArray:
    """Return 1 where a position counts in a role, else 0; axes (prompt,) pos, token_role."""
    import xarray as xr

    name = roles.transpose(..., "pos").values
    only = name == "only_subject"
    follows = np.zeros_like(only)
    follows[..., 1:] = np.isin(name[..., :-1], ["last_subject", "only_subject"])
    also = {
        "first_subject": only,
        "last_subject": only,
        "first_subsequent": (name == "last_token") & follows,
    }
    member = np.stack([(name == role) | also.get(role, False) for role in TOKEN_ROLES], axis=-1)
    dims = [*roles.transpose(..., "pos").dims, "token_role"]
    return xr.DataArray(member.astype(float), {"token_role": list(TOKEN_ROLES)}, dims)
