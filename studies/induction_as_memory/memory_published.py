"""Refit of the curves that Ji-An et al. published, and what was recomputed from them.

The files are not part of mechlab: `MECHLAB_DATA` names the folder that holds `icl_cmr`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from memory_heads import (
    CLOSE,
    LIKE,
    PARAMETERS,
    Fitted,
    fitted,
    of_heads,
    rank_correlation,
    share_below,
)

import mechlab as ml

SUFFIX = "_heads.npz"
FOLDER = "icl_cmr"
FIRST_LAG = -8
"""The files hold lags from here on."""


@dataclass(frozen=True)
class Published:
    """What was recomputed from the published curves of one model, at its last checkpoint.

    Attributes:
        like: per cent of heads with a distance below 0.5.
        close: per cent below 0.1.
        median: median distance.
        most_like: mean beta_enc, beta_rec, gamma and scale of the top 10 % CMR heads.
        matching_distance: mean distance of the top 10 % induction heads.
        most_matching: their mean beta_enc, beta_rec and gamma.
    """

    like: float
    close: float
    median: float
    most_like: tuple[float, float, float, float]
    matching_distance: float
    most_matching: tuple[float, float, float]


PUBLISHED: Mapping[str, Published] = {
    "gpt2": Published(47.2, 30.6, 0.816, (0.67, 0.48, 0.09, 14.2), 0.033, (0.56, 0.67, 0.09)),
    "qwen-7b": Published(42.7, 21.5, 0.706, (0.55, 0.72, 0.26, 13.2), 0.027, (0.48, 0.82, 0.25)),
    "mistral-7b": Published(41.9, 22.6, 0.754, (0.50, 0.73, 0.47, 13.4), 0.038, (0.43, 0.86, 0.35)),
    "llama3-8b": Published(53.8, 31.4, 0.392, (0.55, 0.77, 0.40, 14.0), 0.021, (0.52, 0.84, 0.30)),
    "pythia-12b": Published(47.2, 17.6, 0.586, (0.60, 0.68, 0.25, 11.5), 0.199, (0.58, 0.61, 0.17)),
    "pythia-2.8b": Published(48.8, 19.8, 0.519, (0.54, 0.73, 0.26, 14.9), 0.115, (0.51, 0.8, 0.24)),
    "pythia-410m": Published(60.7, 28.9, 0.330, (0.64, 0.80, 0.28, 9.7), 0.033, (0.61, 0.89, 0.22)),
    "pythia-70m": Published(52.1, 25.0, 0.490, (0.62, 0.96, 0.25, 42.3), 0.004, (0.61, 0.95, 0.25)),
}
LISTED = {"L1H11": 0.0039, "L5H1": 0.0061, "L5H5": 0.0070, "L3H0": 0.0118, "L5H8": 0.0128,
          "L0H1": 0.0132}  # fmt: skip
"""Distances of GPT-2 small's best heads."""
BY_LAYER = (25, 17, 8, 17, 33, 50, 42, 58, 75, 83, 83, 75)
"""Per cent of GPT-2 small's heads with a distance below 0.5, by layer."""
PEAKS = {1: 76, 0: 19}
"""Of these heads, per cent with their peak at a lag."""
UNMATCHED = 66.2
"""Of these heads, per cent with a matching score below 0.05."""
CORRELATION = -0.76
"""Rank correlation of distance and matching over GPT-2 small's heads."""


def known_as(name: str) -> str:
    """Return the name under which a model stands in the table, or the given one.

    `gpt2_small`, `openai-community/gpt2` and `EleutherAI/pythia-70m-deduped-v0` are known.
    """
    short = name.split("/")[-1].lower().replace("_", "-").removesuffix("-small")
    return next((one for one in PUBLISHED if short == one or short.startswith(f"{one}-d")), short)


def published_files(data: str | None) -> list[Path]:
    """Return the files of published curves below a folder, none without one."""
    return sorted((Path(data) / FOLDER).glob(f"*{SUFFIX}")) if data else []


def refit(file: Path, *, shuffled: bool = False) -> Fitted:
    """Fit published curves; `shuffled` puts every head's lags into an order of its own."""
    with np.load(file, allow_pickle=False) as held:
        curves, matching = held["lag_curve"].astype(float), held["matching_score"].astype(float)
    layers, heads, lags = (np.arange(size) for size in curves.shape)
    coords = {"layer": layers, "head": heads}
    array = xr.DataArray(
        curves,
        {**coords, "lag": FIRST_LAG + lags},
        ("layer", "head", "lag"),
        attrs={"source": "scores", "units": "attention score"},
    ).sel(lag=slice(-5, 5))
    if shuffled:
        array = array.copy(data=np.random.default_rng(0).permuted(array.values, axis=-1))
    return fitted(array, xr.DataArray(matching, coords, ("layer", "head")))


def mean_parameters(found: Fitted, heads: Sequence[ml.Head]) -> dict[str, float]:
    """Return mean parameters and distance of heads."""
    return {
        name: float(of_heads(found.fit[name], heads).mean()) for name in (*PARAMETERS, "distance")
    }


def peaks(found: Fitted) -> dict[int, float]:
    """Return where CMR-like heads have their peak, in per cent of them: at +1, at 0."""
    lags = found.fit.peak_lag.values[found.fit.distance.values < LIKE]
    return {lag: 100 * float((lags == lag).mean()) if len(lags) else np.nan for lag in PEAKS}


def unmatched(found: Fitted) -> float:
    """Return the per cent of CMR-like heads that hardly match."""
    matching = found.matching.values[found.fit.distance.values < LIKE]
    return 100 * float((matching < 0.05).mean()) if len(matching) else float("nan")


def by_layer(found: Fitted) -> list[float]:
    """Return the per cent of CMR-like heads of every layer."""
    return [100 * float(share) for share in (found.fit.distance < LIKE).mean("head")]


def numbers(found: Fitted, name: str) -> Iterator[tuple[str, str, str]]:
    """Yield what the refit gives, with the published value beside it."""
    told = PUBLISHED.get(name)
    for text, threshold, published in (
        ("heads below 0.5", LIKE, told.like if told else None),
        ("heads below 0.1", CLOSE, told.close if told else None),
    ):
        own = f"{100 * share_below(found.fit.distance, threshold):.1f} %"
        yield text, own, "" if published is None else f"{published:g} %"
        for kind, null in found.nulls.items():
            yield f"{text}, {kind} null", f"{100 * share_below(null, threshold):.1f} %", ""
    median = f"{float(found.fit.distance.median()):.3f}"
    yield "median distance", median, f"{told.median:g}" if told else ""
    for text, heads, published in (
        ("top CMR heads", found.most_like(), told.most_like if told else ()),
        ("top induction heads", found.most_matching(), told.most_matching if told else ()),
    ):
        own = mean_parameters(found, heads)
        yield (
            f"{text}: beta_enc / beta_rec / gamma / scale",
            (" / ".join(f"{own[one]:.2f}" for one in PARAMETERS)),
            " / ".join(f"{one:g}" for one in published),
        )
        fitted_told = f"{told.matching_distance:g}" if told and "induction" in text else ""
        yield f"{text}: mean distance", f"{own['distance']:.4f}", fitted_told
    of_gpt2 = name == "gpt2"
    for lag, share in peaks(found).items():
        yield f"heads below 0.5 with their peak at {lag}", f"{share:.0f} %", (
            f"{PEAKS[lag]} %" if of_gpt2 else "")  # fmt: skip
    yield "heads below 0.5 with matching below .05", f"{unmatched(found):.1f} %", (
        f"{UNMATCHED} %" if of_gpt2 else "")  # fmt: skip
    rank = rank_correlation(found.fit.distance.values.ravel(), found.matching.values.ravel())
    yield "rank correlation of distance and matching", f"{rank:.2f}", (
        f"{CORRELATION}" if of_gpt2 else "")  # fmt: skip
