"""What is measured of one model: scores, lag curves with their fits, and heads ablated."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from memory_heads import Fitted, fitted, hull, of_heads

import mechlab as ml

Prompts = ml.prompts.PromptSet
OWN = ("CMR", "induction")
"""The groups of heads that are ablated, each beside random ones."""
KINDS = ("zero", "mean")
WINDOW = ((450, 500), (25, 75))
"""Tokens of a text whose mean losses make the ICL score; a single one is too noisy."""
REDRAWN = 100
"""Draws of the lists when an average over them is fitted."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        count: lists that heads are found on, and as many that they are ablated on.
        length: tokens of a list.
        draws: random sets of heads in place of each group.
        texts: for the ICL score; none: it is not measured.
        seed: of lists and draws.
    """

    count: int
    length: int
    draws: int
    texts: Prompts | None
    seed: int


@dataclass(frozen=True)
class Measured:
    """What the claims are tested on.

    Attributes:
        found: lag curves from pre-softmax scores, with fits, nulls and matching scores.
        corrected: the same without what the heads do where no token is repeated.
        lags: `ml.attention_by_lag` of it.
        copying: `ml.copying_scores`, eigenvalues of the full product.
        ablated: `ml.memory_ablation` of the groups `OWN`, on other lists.
    """

    found: Fitted
    corrected: Fitted
    lags: xr.Dataset
    copying: xr.Dataset
    ablated: xr.Dataset

    def heads(self, name: str) -> list[ml.Head]:
        """Return the heads of a group."""
        return self.found.most_like() if name == "CMR" else self.found.most_matching()


def measure(model: ml.Model, settings: Settings) -> Measured:
    """Find heads on some lists, ablate them on others."""
    size = {"count": settings.count, "length": settings.length}
    find = ml.prompts.repeated_tokens(**size, seed=settings.seed)
    held = ml.prompts.repeated_tokens(**size, seed=settings.seed + 1)
    scores = _run(model, ml.induction_scores, find)
    lags = _run(model, ml.attention_by_lag, find, source="scores", baseline="no_repeat")
    matching = scores.prefix_matching.mean("prompt")
    found = fitted(lags.curve, matching, settings.seed)
    corrected = fitted(lags.corrected, matching, settings.seed)
    ways: dict[str, Any] = {"draws": settings.draws, "kinds": KINDS, "seed": settings.seed}
    if settings.texts is not None:
        ways |= {"texts": settings.texts, "window": WINDOW}
    groups = {"CMR": found.most_like(), "induction": found.most_matching()}
    ablated = _run(model, ml.memory_ablation, held, groups=groups, **ways)
    return Measured(found, corrected, lags, ml.copying_scores(model), ablated)


def _run(model: ml.Model, method: Any, prompts: Prompts, **options: Any) -> xr.Dataset:
    started = time.monotonic()
    result: xr.Dataset = ml.Store().run(method, model, prompts, **options)
    seconds = time.monotonic() - started
    print(
        f"{model.name}: {method.__name__}, {len(prompts)} prompts, {seconds:.1f} s", file=sys.stderr
    )
    return result


def texts_of(path: Any, name: str) -> Prompts | None:
    """Return texts for the ICL score: of a file, split at blank lines, or stories for `atlas`."""
    if path is not None:
        parts = path.read_text(encoding="utf-8").split("\n\n")
        return ml.prompts.texts([part for part in parts if part.strip()], name=path.name)
    if name != "atlas":
        return None
    stories = ml.prompts.needles([480], 1, form="atlas", count=8, seed=0)
    return ml.prompts.texts([story.haystack for story in stories], name="stories")


# --- intervals ------------------------------------------------------------------------------------


def redrawn(measured: Measured, heads: Sequence[ml.Head]) -> xr.Dataset:
    """Return fits of heads with the lists drawn anew, `[draw, chosen]`."""
    curves = of_heads(measured.lags.curve_by_prompt, heads).transpose("prompt", "chosen", "lag")
    count = curves.sizes["prompt"]
    rows = np.random.default_rng(0).integers(count, size=(REDRAWN, count))
    means = np.stack([curves.values[row].mean(axis=0) for row in rows])
    array = xr.DataArray(means, {"lag": curves.lag.values}, ("draw", "chosen", "lag"))
    return ml.fit_cmr(array, candidates=1)


def of_top(
    measured: Measured, heads: Sequence[ml.Head], name: str
) -> tuple[float, tuple[float, float]]:
    """Return the mean of one number of the fit over heads, with its interval over lists."""
    value = float(of_heads(measured.found.fit[name], heads).mean())
    drawn = redrawn(measured, heads)[name].mean("chosen").values
    return value, hull(value, drawn.tolist())
