"""What a result says about itself: which variable is its picture, averages, words for the title."""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mechlab.errors import OptionError
from mechlab.plots.palette import Kind
from mechlab.plots.tokens import show_text

__all__ = [
    "Average",
    "average",
    "is_along_prompts",
    "kind_of",
    "labels_along",
    "main_variable",
    "options_of",
    "plotted",
    "spread_prompts",
    "words_of",
]

_MAIN = (
    "indirect_effect",
    "head_attribution",
    "share",
    "source_logit",
    "retrieval_score",
    "recall",
    "effect",
    "component_attribution",
    "probability",
    "alpha",
    "prefix_matching",
    "copying",
    "curve",
    "loss",
    "score",
)
"""Variables that are a result's picture, the first that is there."""

_TOLD = ("direction", "freeze", "ln", "kind", "norm", "cut", "run", "window")
"""Options that are said in the heading."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Average:
    """A mean over prompts; `low` and `high` are NaN where there is no interval."""

    mean: xr.DataArray
    low: xr.DataArray
    high: xr.DataArray
    n: int | None
    """Prompts, or `None` when there was no axis of prompts."""

    @property
    def has_interval(self) -> bool:
        """Whether any cell has an interval."""
        return bool(np.isfinite(self.low.values).any())

    def isel(self, **at: Any) -> "Average":
        """Return the same selection of mean and interval."""
        return Average(self.mean.isel(at), self.low.isel(at), self.high.isel(at), self.n)


def main_variable(result: xr.Dataset) -> str:
    """Return the name of the variable that is drawn when none is named.

    Raises:
        OptionError: when the result holds none that is known.
    """
    for name in _MAIN:
        if name in result.data_vars:
            return name
    raise OptionError(
        f"none of {', '.join(_MAIN)} is in this result. "
        f"It holds: {', '.join(map(str, result.data_vars))}. Name one of them with value=..."
    )


def plotted(data: xr.Dataset | xr.DataArray, value: str | None = None) -> xr.DataArray:
    """Return the array to draw, with the attributes of the result it belongs to.

    Raises:
        OptionError: when the result has no such variable.
    """
    if isinstance(data, xr.DataArray):
        return data if data.name is not None else data.rename(value or "effect")
    name = main_variable(data) if value is None else value
    if name not in data.data_vars:
        raise OptionError(
            f"this result has no variable {name!r}. "
            f"It holds: {', '.join(map(str, data.data_vars))}. Name one of them with value=..."
        )
    return data[name].assign_attrs({**data.attrs, **data[name].attrs})


def average(
    array: xr.DataArray,
    *,
    prompt: int | str | None = None,
    interval: xr.Dataset | None = None,
) -> Average:
    """Return the mean over prompts, or one prompt, with its interval.

    Args:
        array: any axes.
        prompt: label or index of the one prompt to show; by default the mean over all.
        interval: `low` and `high` over the other axes, as of `ml.statistics.bootstrap_interval`.
            By default the t interval, which takes prompts as independent, cut off at what a
            probability, a share or a percentage can be.

    Raises:
        OptionError: a prompt that is not there, or an interval of other axes.
    """
    if "prompt" not in array.dims:
        return _with_interval(array, interval, None)
    if prompt is not None:
        return _with_interval(array.isel(prompt=_index(array, prompt)), interval, None)
    n = array.sizes["prompt"]
    if n == 1:
        return _with_interval(array.isel(prompt=0), interval, 1)
    mean = array.mean("prompt", skipna=True, keep_attrs=True)
    if interval is not None:
        return _with_interval(mean, interval, n)
    reach, (least, most) = _reach(array), kind_of(array)[1]
    low, high = mean - reach, mean + reach
    if least < most:
        low, high = low.clip(least, most), high.clip(least, most)
    return Average(mean, low, high, n)


def _reach(array: xr.DataArray) -> xr.DataArray:
    """Return half the width of the t interval of a mean over prompts."""
    from scipy import stats

    count = array.notnull().sum("prompt")
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = array.std("prompt", ddof=1, skipna=True) if array.sizes["prompt"] > 1 else None
        if spread is None:
            return array.isel(prompt=0) * np.nan
        t = xr.DataArray(stats.t.ppf(0.975, np.maximum(count.values - 1, 1)), dims=count.dims)
        reach: xr.DataArray = (t * spread / np.sqrt(count)).where(count > 1)
    return reach


def spread_prompts(array: xr.DataArray, name: str) -> xr.DataArray:
    """Return an array with a coordinate of its prompts as an axis of its own.

    Each prompt keeps its values at its own entry of the new axis, in rising order, and is NaN at
    the others: means and intervals over prompts then are those of every entry by itself.

    Raises:
        OptionError: when there is no such coordinate along `prompt` alone.
    """
    if not is_along_prompts(array, name):
        known = [str(c) for c in array.coords if array[c].dims == ("prompt",) and c != "prompt"]
        raise OptionError(
            f"the prompts have no coordinate {name!r}. They have: {', '.join(known) or 'none'}. "
            "Name one of these."
        )
    own = array[name]
    entries = np.unique(own.values)  # a prompt without a depth has no needle: it is in no entry
    entries = entries[entries == entries]
    axis = xr.DataArray(entries, dims=(name,), coords={name: entries})
    bare = array.astype(float).drop_vars(name)
    spread: xr.DataArray = bare.where(own.drop_vars(name) == axis)
    return spread.assign_attrs(array.attrs).rename(array.name)


def is_along_prompts(array: xr.DataArray, name: str) -> bool:
    """Return whether an array has a coordinate of its prompts of that name."""
    return name in array.coords and array[name].dims == ("prompt",)


def _with_interval(mean: xr.DataArray, interval: xr.Dataset | None, n: int | None) -> Average:
    if interval is None:
        empty = xr.full_like(mean, np.nan, dtype=float)
        return Average(mean, empty, empty, n)
    if set(interval["low"].dims) != set(mean.dims) or dict(interval.sizes) != dict(mean.sizes):
        raise OptionError(
            f"interval has the axes {dict(interval.sizes)}, the picture {dict(mean.sizes)}. "
            "Allowed: low and high of the array that is drawn, averaged over prompts, such as "
            "ml.statistics.bootstrap_interval(result.effect). Give that, or leave it out."
        )
    low, high = (interval[name].transpose(*mean.dims) for name in ("low", "high"))
    return Average(mean, low, high, n)


def _index(array: xr.DataArray, prompt: int | str) -> int:
    labels = [str(label) for label in array["prompt"].values] if "prompt" in array.coords else []
    if isinstance(prompt, str) and prompt in labels:
        return labels.index(prompt)
    if isinstance(prompt, int) and 0 <= prompt < array.sizes["prompt"]:
        return prompt
    raise OptionError(
        f"prompt={prompt!r} is not in this result. It holds 0 to {array.sizes['prompt'] - 1}: "
        f"{', '.join(map(repr, labels[:5]))}{', ...' if len(labels) > 5 else ''}."
    )


def kind_of(array: xr.DataArray) -> tuple[Kind, tuple[float, float]]:
    """Return the colour scale of an array and its fixed limits, (0, 0) when they follow values."""
    units = str(array.attrs.get("units", ""))
    if _is_probability(str(array.name)) or units.startswith("share"):
        return "sequential", (0.0, 1.0)
    if units == "per cent":
        return "sequential", (0.0, 100.0)
    return "diverging", (0.0, 0.0)


def _is_probability(name: str) -> bool:
    return name.endswith("probability") and not name.endswith("log_probability")


def options_of(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the options in a result's attributes; empty when there are none."""
    try:
        options = json.loads(attrs.get("options", "{}"))
    except (TypeError, ValueError):
        return {}
    return options if isinstance(options, dict) else {}


def words_of(array: xr.DataArray, shown: Average) -> dict[str, Any]:
    """Return the fields of a `GridView` that say what an array is."""
    options = options_of(array.attrs)
    told = [f"{name} {options[name]}" for name in _TOLD if options.get(name) is not None]
    name = str(array.name)
    metric = options.get("metric")
    of = f" on {_spaced(metric)}" if isinstance(metric, str) and name == "effect" else ""
    model = array.attrs.get("model_name")
    unit = str(array.attrs.get("units", ""))
    spaced = _spaced(name)
    if unit.startswith(spaced):  # a share of prompts, a probability
        spaced, unit = unit, ""
    return {
        "subject": _subject(array, shown),
        "metric": f"{spaced}{of}",
        "unit": "" if unit == metric else unit,
        "sign": _sign(name, options),
        "n": shown.n if shown.n != 1 else None,
        "n_unit": "prompts",
        "note": ", ".join(part for part in (model, *told) if isinstance(part, str)),
    }


def _subject(array: xr.DataArray, shown: Average) -> str:
    if shown.n is not None and shown.n > 1:
        method = _spaced(array.attrs.get("method", ""))
        return f"{method}, mean over prompts" if method else "mean over prompts"
    for name in ("prompt_text", "clean_prompt"):
        if name in shown.mean.coords and shown.mean.coords[name].ndim == 0:
            return f"“{show_text(str(shown.mean.coords[name].item()), longest=100)}”"
    return ""


def _sign(name: str, options: Mapping[str, Any]) -> str:
    metric = options.get("metric", "logit_diff")
    if name.endswith("_attribution"):
        against = ", − the wrong answer" if metric == "logit_diff" else ""
        return f"+ = writes the answer{against}"
    if name in ("effect", "estimate"):
        return f"+ = the change raises the {_spaced(metric)}" if isinstance(metric, str) else ""
    return ""


def _spaced(name: Hashable) -> str:
    return str(name).replace("_", " ")


def labels_along(array: xr.DataArray, dim: str) -> Sequence[str]:
    """Return the labels of an axis as text; whole numbers without a fraction."""
    values = array[dim].values if dim in array.coords else np.arange(array.sizes[dim])
    return [f"{v:g}" if isinstance(v, float) else str(v) for v in values.tolist()]
