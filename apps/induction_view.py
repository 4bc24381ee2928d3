"""What the induction page shows of its three results, as plain values. No Streamlit here."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import mechlab as ml
import runs
from induction_request import PARTS, InductionRequest

__all__ = [
    "SCORES", "HeadFacts", "LagCurve", "Parts", "demonstration", "facts_of", "grid", "lag_curve",
    "loss_line", "missing", "parts_of", "partial_views", "stripe", "table", "wrong_baseline",
]  # fmt: skip

SCORES = {
    "prefix_matching": "Prefix matching",
    "previous_token": "Previous token",
    "duplicate_token": "Duplicate token",
    "cmr_distance": "CMR distance",
}
"""What the grid shows, in words."""

_SHOWN = 12  # tokens of one copy in the panel's pattern
_MOST_FITS = 6
_fits: OrderedDict[tuple[str, str, str], Any] = OrderedDict()


@dataclass(frozen=True, eq=False)
class Parts:
    """What is stored of one request, None where a part was never run."""

    scores: Any | None
    lags: Any | None
    losses: Any | None
    fit: Any | None
    """Of `fit_cmr`, with `p_value` beside the distance."""
    ids: Mapping[str, str]
    """Run ids by part."""


@dataclass(frozen=True, eq=False)
class LagCurve:
    """Attention of one head by lag, its interval and its fit."""

    lags: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]
    fitted: list[float]
    units: str
    status: str
    """`ok`, or why there is no fit."""
    interval: str
    """`ok`, or why there is no interval."""


@dataclass(frozen=True)
class HeadFacts:
    """Everything that the page knows of one head as numbers; NaN where there is none."""

    layer: int
    head: int
    prefix_matching: float
    previous_token: float
    duplicate_token: float
    cmr_distance: float
    p_value: float
    peak_lag: float
    asymmetry: float
    beta_enc: float
    beta_rec: float
    gamma_ft: float
    scale: float
    near_optimal: float

    @property
    def name(self) -> str:
        """The head as people write it."""
        return f"L{self.layer}H{self.head}"


def parts_of(result: Any, run: str, request: InductionRequest) -> Parts:
    """Return the results of one request: the one that was opened, the others from the store."""
    found, ids = {str(result.attrs["method"]): result}, {str(result.attrs["method"]): run}
    for part in PARTS:
        other = None if part in found else runs.find(request.beside(part))
        if other is not None and (loaded := runs.load(other)) is not None:
            found[part], ids[part] = loaded, other
    lags = found.get("attention_by_lag")
    return Parts(
        found.get("induction_scores"), lags, found.get("copy_loss"),
        None if lags is None else _fitted(lags), ids,
    )  # fmt: skip


def missing(parts: Parts) -> list[str]:
    """Return the parts that are not stored, in words."""
    return [part.replace("_", " ") for part in PARTS if part not in parts.ids]


def _fitted(lags: Any) -> Any:
    """Return the fit of every head's curve with p-values; kept, as it takes a second."""
    key = tuple(str(lags.attrs[n]) for n in ("prompts_digest", "model_fingerprint", "options"))
    if key not in _fits:
        while len(_fits) >= _MOST_FITS:
            _fits.popitem(last=False)
        fit = ml.fit_cmr(lags["curve"])
        fit.attrs.update(lags.attrs)
        usable = lags["curve"].stack(all=("layer", "head")).notnull().all("lag")
        if bool(usable.any()):
            null = ml.cmr_null("matched", curves=lags["curve"])
            fit["p_value"] = ml.cmr_p_value(fit["distance"], null)
        _fits[key] = fit  # type: ignore[index]
    return _fits[key]  # type: ignore[index]


def grid(parts: Parts, score: str) -> Any | None:
    """Return one score of every head by layer; None when its part was not run."""
    if score == "cmr_distance":
        if parts.fit is None:
            return None
        array = parts.fit["distance"].assign_attrs({**parts.fit.attrs, "units": ""})
        view = ml.plots.head_views(array)[0]
        top = float(np.nanmax(view.values, initial=0.0)) or 1.0
        return replace(
            view, title="CMR distance (0 = the shape of the context model)", metric="CMR distance",
            kind="sequential", limits=(0.0, top), sign="small = fits well",
        )  # fmt: skip
    if parts.scores is None:
        return None
    view = ml.plots.head_views(parts.scores, value=score)[0]
    return replace(view, title=SCORES[score], kind="sequential", limits=(0.0, 1.0))


def partial_views(partial: Any) -> list[Any] | None:
    """Return the grid of unfinished scores; None while there is nothing to draw."""
    if "prefix_matching" not in partial or not np.isfinite(partial["prefix_matching"]).any():
        return None
    return [grid(Parts(partial, None, None, None, {}), "prefix_matching")]


def lag_curve(parts: Parts, layer: int, head: int) -> LagCurve:
    """Return a head's attention by lag, with the bootstrap interval over lists and its fit."""
    assert parts.lags is not None and parts.fit is not None
    cell = {"layer": layer, "head": head}
    each = parts.lags["curve_by_prompt"].isel(cell)
    cluster = "group" if "group" in each.coords else None
    band = ml.statistics.bootstrap_interval(each, cluster=cluster)
    enough = parts.lags.attrs.get("interval_status", "ok")
    fit = parts.fit.isel(cell)
    predicted = fit["prediction"].reindex(lag=each["lag"])
    return LagCurve(
        each["lag"].values.tolist(),
        parts.lags["curve"].isel(cell).values.tolist(),
        band["low"].values.tolist() if enough == "ok" else [],
        band["high"].values.tolist() if enough == "ok" else [],
        predicted.values.tolist(),
        str(parts.lags["curve"].attrs.get("units", "")),
        str(fit["status"].values),
        str(enough),
    )


def facts_of(parts: Parts, layer: int, head: int) -> HeadFacts:
    """Return the numbers of one head."""

    def at(data: Any, name: str) -> float:
        if data is None or name not in data:
            return float("nan")
        array = data[name].isel(layer=layer, head=head)
        return float(array.mean("prompt") if "prompt" in array.dims else array)

    fitted = ("p_value", "peak_lag", "asymmetry", "beta_enc", "beta_rec", "gamma_ft", "scale")
    return HeadFacts(
        layer,
        head,
        *(at(parts.scores, n) for n in ("prefix_matching", "previous_token", "duplicate_token")),
        cmr_distance=at(parts.fit, "distance"),
        **{name: at(parts.fit, name) for name in (*fitted, "near_optimal")},
    )


def table(parts: Parts) -> list[dict[str, Any]]:
    """Return a row per head, for a table that can be sorted."""
    there = parts.scores if parts.scores is not None else parts.fit
    if there is None:
        return []
    cells = [
        (layer, head)
        for layer in range(there.sizes["layer"])
        for head in range(there.sizes["head"])
    ]
    return [_row(facts_of(parts, layer, head)) for layer, head in cells]


def _row(facts: HeadFacts) -> dict[str, Any]:
    numbers = {
        "prefix matching": facts.prefix_matching, "previous token": facts.previous_token,
        "duplicate token": facts.duplicate_token, "CMR distance": facts.cmr_distance,
        "p": facts.p_value, "peak lag": facts.peak_lag, "asymmetry": facts.asymmetry,
        "β enc": facts.beta_enc, "β rec": facts.beta_rec, "γ": facts.gamma_ft,
        "scale": facts.scale,
    }  # fmt: skip
    return {
        "head": facts.name,
        **{n: None if v != v else round(v, 4) for n, v in numbers.items()},
    }


def loss_line(parts: Parts) -> tuple[list[float], int, list[float], float]:
    """Return the loss at every place, how long a copy is, the mean of each copy, and the gain."""
    assert parts.losses is not None
    places = parts.losses["loss_by_position"].isel(head_set=0)
    copies = parts.losses["loss"].isel(head_set=0).mean("prompt").values.tolist()
    gain = float(parts.losses["gain"].isel(head_set=0).mean("prompt"))
    return places.values.ravel().tolist(), places.sizes["input_position"], copies, gain


def wrong_baseline(parts: Parts) -> str:
    """Return why scores mean little: the model does not copy the list; else an empty text."""
    if parts.losses is None:
        return ""
    _, _, copies, gain = loss_line(parts)
    if gain > 0:
        return ""
    return (
        f"the second copy is no easier than the first (loss {copies[0]:.2f}, then "
        f"{copies[1]:.2f}): this model does not copy these lists"
    )


def demonstration(model: Any, request: InductionRequest) -> Any | None:
    """Return a short list read twice, as a text, its last token the answer.

    None where the model's tokenizer would read the text as other tokens.
    """
    length = min(request.length, _SHOWN)
    try:
        drawn = ml.prompts.repeated_tokens(1, length, seed=request.seed, model=model)[0]
        tokens = [str(model.token_string(number)) for number in drawn.numbers]
        text = "".join(tokens[:-1])
        if model.token_strings(text)[-len(tokens) + 1 :] != tokens[:-1]:
            return None
        first = next((token.strip() for token in tokens if token.strip()), "")
        return ml.prompts.Fact(text, subject=first, target=tokens[-1].strip() or tokens[-1])
    except ml.MechlabError:  # text that it cannot read, or a pool that is too small
        return None


def stripe(request: InductionRequest, tokens: int) -> Any:
    """Return the cells that an induction head reads on `demonstration`, as (query, key).

    Args:
        request: whose list is shown.
        tokens: how many the model reads, with the token in front if there is one.
    """
    length = min(request.length, _SHOWN)
    cells = np.zeros((tokens, tokens), np.uint8)
    for query in range(tokens - length + 1, tokens):  # second copy, without its last token
        cells[query, query - length + 1] = 1
    return cells
