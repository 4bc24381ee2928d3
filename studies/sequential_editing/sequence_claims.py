"""The claims about many edits: R-ROME against ROME one after another, MEMIT at once.

Every claim also asks that the model knew the facts that were edited: on one that knows nothing
nothing is overwritten, and it must fail.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

import mechlab as ml

Claim, Condition, Outcome = ml.claims.Claim, ml.claims.Condition, ml.claims.Outcome

ROME, R_ROME = "rome", "r-rome"
HELD = 0.9
"""Edits hold when this share of them does."""
COLLAPSED = 1.0
"""A model has collapsed when it has lost this many nats per token on held-out text."""


@dataclass(frozen=True)
class Measured:
    """What the claims are tested on.

    Attributes:
        turns: `ml.sequential_edits` by variant.
        batches: `ml.batch_edits` on the same cases.
    """

    turns: Mapping[str, xr.Dataset]
    batches: xr.Dataset


def reached(result: xr.Dataset) -> xr.Dataset:
    """Return the last step that was measured."""
    return result.isel(step=int(np.flatnonzero(result.drift.notnull().values)[-1]))


def over_edits(text: str, values: xr.DataArray, bound: float = 0.0) -> Condition:
    """Return a condition on a mean over edits, drawn by subject."""
    subjects = [str(subject) for subject in values.subject.values]
    plain = values.drop_vars([name for name in values.coords if name != "edit"])
    return ml.claims.mean_above(text, plain.rename(edit="prompt"), bound, clusters=[subjects])


def over_texts(text: str, values: xr.DataArray, bound: float = 0.0) -> Condition:
    """Return a condition on a mean over held-out texts."""
    plain = values.drop_vars([name for name in values.coords if name != "prompt"])
    return ml.claims.mean_above(text, plain, bound)


def known(measured: Measured) -> Condition:
    """Return the condition that the unedited model gives the old objects."""
    knew = 1 - measured.turns[R_ROME].held_before
    return over_edits("share of the facts whose old object comes first before", knew, 0.8)


def _stable(measured: Measured) -> Outcome:
    end = reached(measured.turns[R_ROME])
    everything = int(end.step) == measured.turns[R_ROME].sizes["edit"]
    if not everything:
        return Outcome(note=f"it ended early, {measured.turns[R_ROME].attrs['ended']}")
    return Outcome(
        (
            known(measured),
            over_texts(
                f"{COLLAPSED:g} nat minus the rise of the loss", COLLAPSED - end.text_nll_rise
            ),
            over_edits("share of the edits that hold at the end", end.held, HELD),
        ),
        f"after {int(end.step)} edits",
    )


def _gentler(measured: Measured) -> Outcome:
    ratio = np.log(measured.turns[ROME].norm / measured.turns[R_ROME].norm)
    largest = np.log(measured.turns[ROME].norm.max() / measured.turns[R_ROME].norm.max())
    return Outcome(
        (
            known(measured),
            over_edits("log of the ratio of update norms, ROME / R-ROME", ratio.dropna("edit")),
        ),
        f"the largest updates differ by a factor of {float(np.exp(largest)):.2f}",
    )


def _collapse(measured: Measured) -> Outcome:
    end = reached(measured.turns[ROME])
    return Outcome(
        (known(measured), over_texts("rise of the loss, nats", end.text_nll_rise, COLLAPSED)),
        f"after {int(end.step)} edits",
    )


def _at_once(measured: Measured) -> Outcome:
    end = reached(measured.batches)
    return Outcome(
        (
            known(measured),
            over_edits("share of the edits that hold", end.held.dropna("edit"), HELD),
            over_texts(
                f"{COLLAPSED:g} nat minus the rise of the loss", COLLAPSED - end.text_nll_rise
            ),
        ),
        f"{int(end.step)} edits at once",
    )


GUPTA, MEMIT = "Gupta et al. 2024, abstract", "Meng et al. 2023, section 5"
CLAIMS = (
    Claim(
        "stable",
        "R-ROME edits can be made one after another without a collapse.",
        GUPTA,
        f"At the end the loss on held-out text has risen by less than {COLLAPSED:g} nat per token, "
        f"and more than {HELD} of the edits still hold.",
        _stable,
    ),
    Claim(
        "gentler",
        "R-ROME's updates are smaller than ROME's.",
        GUPTA,
        "The logarithm of the ratio of update norms is above 0 on average over edits.",
        _gentler,
    ),
    Claim(
        "collapse",
        "ROME edits made one after another make the model collapse.",
        GUPTA,
        f"At the end the loss on held-out text has risen by more than {COLLAPSED:g} nat per token.",
        _collapse,
    ),
    Claim(
        "at_once",
        "MEMIT writes them all at once, and they hold.",
        MEMIT,
        f"Of the largest batch more than {HELD} of the edits hold, and the loss on held-out text "
        f"has risen by less than {COLLAPSED:g} nat per token.",
        _at_once,
    ),
)
