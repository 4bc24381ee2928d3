"""Results as grids: a causal trace, or any layer × position array, to one `GridView` per site."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.grid_view import GridView, share_limits
from mechlab.plots.palette import Kind, color_limits
from mechlab.plots.tokens import show_text, show_token

__all__ = ["grid_view", "grid_views"]

_COLUMNS = ("pos", "token_role")


def grid_view(
    data: xr.Dataset | xr.DataArray,
    *,
    site: str | None = None,
    prompt: int | str | None = None,
    value: str = "indirect_effect",
    kind: Kind | Literal["auto"] = "auto",
    clip: Literal["none", "p99"] = "none",
    selected: tuple[int, int] | None = None,
) -> GridView:
    """Return one layer × token grid as plain data.

    Args:
        data: a causal trace, or an array with dims layer × pos or layer × token_role.
        site: which site, when the data hold several.
        prompt: label or index of the prompt, when the data hold several.
        value: the variable to draw when `data` is a Dataset.
        kind: colour scale; `auto` is `sequential` for probabilities, else `diverging`.
        clip: `p99` ends the colour scale at the 99th percentile of |value|.
        selected: (layer, column) of the cell to outline.

    Returns:
        The grid, layers as rows; columns are the positions of the unpadded prompt, or token roles.

    Raises:
        OptionError: when the data hold several sites or prompts and none is named, or the dims are
            not layer × pos or layer × token_role.
    """
    views = grid_views(
        data, sites=site, prompt=prompt, value=value, kind=kind, clip=clip, selected=selected
    )
    if len(views) > 1:
        names = ", ".join(repr(view.title) for view in views)
        raise OptionError(
            f"the data hold {len(views)} sites ({names}), one grid shows one. "
            "Name it with site=..., or draw all of them with layer_by_token(data)."
        )
    return views[0]


def grid_views(
    data: xr.Dataset | xr.DataArray,
    *,
    sites: str | Sequence[str] | None = None,
    prompt: int | str | None = None,
    value: str = "indirect_effect",
    kind: Kind | Literal["auto"] = "auto",
    clip: Literal["none", "p99"] = "none",
    selected: tuple[int, int] | None = None,
) -> list[GridView]:
    """Return one grid per site, all on one colour scale.

    Arguments and errors are those of `grid_view`; `sites` names one site, several, or (`None`) all.
    """
    dataset = _as_dataset(data, value)
    value = value if isinstance(data, xr.Dataset) else _name_of(data)
    dataset = _without_padding(_one_prompt(dataset, prompt))
    arrays = _per_site(dataset[value], sites)
    scale: Kind = _kind_of(value) if kind == "auto" else kind
    limits = color_limits(
        [array.values for array in arrays.values()],
        scale,
        clip=clip,
        maximum=1.0 if _is_probability(value) else None,
    )
    views = [
        _view(dataset, array, name, value=value, kind=scale, limits=limits, selected=selected)
        for name, array in arrays.items()
    ]
    return share_limits(views)


def _view(
    dataset: xr.Dataset,
    array: xr.DataArray,
    site: str | None,
    *,
    value: str,
    kind: Kind,
    limits: tuple[float, float],
    selected: tuple[int, int] | None,
) -> GridView:
    column = _column_of(array)
    array = array.transpose("layer", column)
    low, high, n = _interval(dataset, site, value)
    return GridView(
        values=array.values.astype(np.float32),
        row_labels=tuple(str(layer) for layer in array["layer"].values),
        col_labels=_column_labels(dataset, array, column),
        col_name=column,
        kind=kind,
        limits=limits,
        title=_site_title(dataset, site),
        subject=_subject(dataset),
        metric=value.replace("_", " "),
        unit=str(array.attrs.get("units", "probability" if "prob" in value else "")),
        sign=_sign(dataset, value),
        n=n,
        n_unit="noise samples" if n is not None else "",
        note=_note(dataset),
        ci_low=low,
        ci_high=high,
        selected=selected,
    )


def _as_dataset(data: xr.Dataset | xr.DataArray, value: str) -> xr.Dataset:
    if isinstance(data, xr.DataArray):
        return data.to_dataset(name=_name_of(data)).assign_attrs(data.attrs)
    if value not in data.data_vars:
        raise OptionError(
            f"this result has no variable {value!r}. "
            f"It holds: {', '.join(map(str, data.data_vars))}. Name one of them with value=..."
        )
    return data


def _name_of(array: xr.DataArray) -> str:
    return str(array.name) if array.name is not None else "effect"


def _one_prompt(dataset: xr.Dataset, prompt: int | str | None) -> xr.Dataset:
    """Leave exactly one prompt, so that positions have one list of tokens."""
    if "prompt" not in dataset.dims:
        return dataset
    labels = [str(label) for label in dataset["prompt"].values]
    if prompt is None and len(labels) > 1:
        raise OptionError(
            f"the result holds {len(labels)} prompts, whose tokens differ. Name one with "
            f"prompt={labels[0]!r} or prompt=0, or average them over roles with "
            "ml.by_token_role(...).mean('prompt')."
        )
    index = labels.index(prompt) if isinstance(prompt, str) and prompt in labels else prompt or 0
    if isinstance(index, str) or not 0 <= index < len(labels):
        raise OptionError(
            f"prompt={prompt!r} is not in this result. It holds 0 to {len(labels) - 1}: "
            f"{', '.join(map(repr, labels[:5]))}{', ...' if len(labels) > 5 else ''}."
        )
    return dataset.isel(prompt=index)


def _without_padding(dataset: xr.Dataset) -> xr.Dataset:
    if "pos" not in dataset.dims or "token" not in dataset.coords:
        return dataset
    if dataset["token"].dims != ("pos",):
        return dataset
    return dataset.isel(pos=np.array([str(token) != "" for token in dataset["token"].values]))


def _per_site(
    array: xr.DataArray, sites: str | Sequence[str] | None
) -> dict[str | None, xr.DataArray]:
    array = array.squeeze([d for d in array.dims if array.sizes[d] == 1 and d in _SQUEEZED])
    if "site" not in array.dims:
        name = str(array["site"].item()) if "site" in array.coords else None
        return {name: _checked(array)}
    known = [str(site) for site in array["site"].values]
    wanted = known if sites is None else [sites] if isinstance(sites, str) else list(sites)
    if missing := [site for site in wanted if site not in known]:
        raise OptionError(
            f"no site {', '.join(map(repr, missing))} in this result. It holds: {', '.join(known)}."
        )
    return {site: _checked(array.sel(site=site)) for site in wanted}


_SQUEEZED = ("sample", "checkpoint", "model", "seed")


def _checked(array: xr.DataArray) -> xr.DataArray:
    if set(map(str, array.dims)) not in ({"layer", "pos"}, {"layer", "token_role"}):
        raise OptionError(
            f"a layer × token grid cannot be drawn of dims {tuple(map(str, array.dims))}. It takes "
            "layer × pos or layer × token_role; select or average the others first, for instance "
            "array.mean('prompt')."
        )
    return array


def _column_of(array: xr.DataArray) -> str:
    return next(name for name in _COLUMNS if name in array.dims)


def _column_labels(dataset: xr.Dataset, array: xr.DataArray, column: str) -> tuple[str, ...]:
    places = array[column].values if column in array.coords else range(array.sizes[column])
    if column == "token_role":
        return tuple(str(role).replace("_", " ") for role in places)
    if "token" in dataset.coords and dataset["token"].dims == (column,):
        tokens = [str(token) for token in dataset["token"].values]
        return tuple(show_token(t, int(p)) for t, p in zip(tokens, places, strict=True))
    return tuple(str(int(place)) for place in places)


def _interval(
    dataset: xr.Dataset, site: str | None, value: str
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.float32] | None, int | None]:
    """Return mean ∓ 1.96 standard errors over noise samples, paired by sample, and their number.

    Restored and corrupted runs share their noise, so the spread is that of the differences.
    """
    names = {"restored_probability", "corrupted_probability"}
    if value != "indirect_effect" or site is None or not names <= set(dataset.data_vars):
        return None, None, None
    gain = dataset["restored_probability"].sel(site=site) - dataset["corrupted_probability"]
    n = int(gain.sizes.get("sample", 0))
    if n < 2:
        return None, None, n or None
    gain = gain.transpose("layer", "pos", "sample")
    center = gain.mean("sample").values
    error = 1.96 * gain.std("sample", ddof=1).values / np.sqrt(n)
    return (center - error).astype(np.float32), (center + error).astype(np.float32), n


def _site_title(dataset: xr.Dataset, site: str | None) -> str:
    if site is None:
        return ""
    if not {"window_start", "window_stop"} <= set(dataset.coords):
        return site
    widths = dataset["window_stop"] - dataset["window_start"]
    if "site" in widths.dims:
        widths = widths.sel(site=site)
    width = int(widths.max())
    return site if width <= 1 else f"{site} · windows of {width} layers"


def _text(dataset: xr.Dataset, name: str) -> str:
    coordinate = dataset.coords.get(name)
    return "" if coordinate is None or coordinate.ndim else str(coordinate.item())


def _subject(dataset: xr.Dataset) -> str:
    prompt = _text(dataset, "prompt_text")
    return f"“{show_text(prompt, longest=100)}”" if prompt else ""


def _sign(dataset: xr.Dataset, value: str) -> str:
    token = _text(dataset, "scored_token")
    if value != "indirect_effect" or not token:
        return ""
    return f"+ = restoring raises p({show_token(token)})"


def _note(dataset: xr.Dataset) -> str:
    status = _text(dataset, "status")
    options = _options(dataset.attrs)
    parts = []
    if options.get("noise_scale") is not None:
        parts.append(f"noise {options['noise_scale']:g}σ")
    if options.get("seed") is not None:
        parts.append(f"seed {options['seed']}")
    if status not in ("", "ok"):
        parts.append(f"skipped: {status}")
    return ", ".join(parts)


def _options(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    try:
        options = json.loads(attrs.get("options", "{}"))
    except (TypeError, ValueError):
        return {}
    return options if isinstance(options, dict) else {}


def _kind_of(value: str) -> Kind:
    return "sequential" if _is_probability(value) else "diverging"


def _is_probability(value: str) -> bool:
    return value.endswith("probability")
