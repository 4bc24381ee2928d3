"""The claims about repeated data (Hernandez et al. 2022), fixed before any model was trained on it.

Every number is a difference between models of one seed: the same first weights, the same unique
rows, and repeated rows in the place of some of them.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from repeated_language import WORDS

import mechlab as ml

Claim, Condition, Outcome = ml.claims.Claim, ml.claims.Condition, ml.claims.Outcome

SMALL_LOSS = 0.01
"""A difference of test losses of no more than this counts as none, nats."""
SMALL_COPY = 0.05
"""The same for losses on copies and in-context learning, nats."""
SMALL_FALL = 0.05
"""A fall by no more than this share of the whole counts as none."""
CHANCE = float(np.log(WORDS))
"""Loss of guessing evenly among all words, nats."""


@dataclass(frozen=True)
class Measured:
    """What the claims are tested on.

    Attributes:
        data: see `repeated_measure.measure`; coordinates `repeats`, ascending, the first of them
            1: nothing is repeated, and `seed`.
    """

    data: xr.Dataset

    @property
    def none(self) -> xr.Dataset:
        """Models that read nothing twice."""
        return self.data.isel(repeats=0, drop=True)

    @property
    def most(self) -> xr.Dataset:
        """Models with the most repetitions of the fewest rows."""
        return self.data.isel(repeats=-1, drop=True)

    @property
    def fewest(self) -> xr.Dataset:
        """Models with the fewest repetitions of the most rows."""
        return self.data.isel(repeats=1, drop=True)

    @property
    def middle(self) -> xr.Dataset:
        """Models in between, averaged over their repetitions: nothing is picked by its outcome."""
        found: xr.Dataset = self.data.isel(repeats=slice(2, -1)).mean("repeats")
        return found

    @property
    def middle_text(self) -> str:
        """The repetitions in between."""
        return " and ".join(f"{int(r):,}" for r in self.data.repeats.values[2:-1])


# --- numbers --------------------------------------------------------------------------------------


def copies(data: xr.Dataset) -> xr.DataArray:
    """Return the loss on second and later copies, mean over them."""
    return data.copy_loss.isel(copy=slice(1, None)).mean("copy")


def lost(loss: xr.DataArray, none: xr.DataArray) -> xr.DataArray:
    """Return which share of what models without repetition gained over chance is lost.

    NaN for a seed whose models gained less than 0.1 nats: there is nothing to lose.
    """
    over = [str(dim) for dim in none.dims if dim != "seed"]
    gained = CHANCE - none.mean(over)
    return (loss - none) / gained.where(gained > 0.1)


def fall(value: xr.DataArray, none: xr.DataArray, least: float) -> xr.DataArray:
    """Return the fall of a score as a share of it without repetition; NaN where that is no more."""
    over = [str(dim) for dim in none.dims if dim != "seed"]
    whole = none.mean(over)
    return (none - value) / whole.where(whole > least)


def above(text: str, values: xr.DataArray, bound: float) -> Condition:
    """Return a condition on a mean over held-out prompts that must hold for every seed.

    The interval is the hull of those of single seeds, each a bootstrap over prompts.
    """
    (prompt,) = (dim for dim in values.dims if dim != "seed")
    each = [
        ml.claims.mean_above(text, values.isel(seed=i, drop=True).rename({prompt: "prompt"}), bound)
        for i in range(values.sizes["seed"])
    ]
    low, high = np.min([one.low for one in each]), np.max([one.high for one in each])
    mean = np.mean([one.value for one in each])
    return Condition(text, float(mean), float(low), float(high), bound)


# --- the claims -----------------------------------------------------------------------------------


def _learned(measured: Measured) -> Outcome:
    none = measured.none
    gain = none.copy_loss.sel(copy=1, drop=True) - copies(none)
    return Outcome(
        (
            above("prefix matching of the best head", none.best_head, 0.3),
            above("loss on the first copy minus that on later ones, nats", gain, 0.5),
        ),
        "without repetition",
    )


def _worst_in_the_middle(measured: Measured) -> Outcome:
    middle = measured.middle.test_loss
    others = {
        "no repetition": measured.none,
        "the fewest repetitions": measured.fewest,
        "the most repetitions": measured.most,
    }
    return Outcome(
        tuple(
            above(f"test loss minus that of {name}, nats", middle - other.test_loss, SMALL_LOSS)
            for name, other in others.items()
        ),
        f"at {measured.middle_text} repetitions",
    )


def _copying_hurt(measured: Measured) -> Outcome:
    none, middle = measured.none, measured.middle
    share = lost(copies(middle), copies(none))
    # As many paragraphs as texts, independent of each other: any pairing gives the same spread.
    whole = lost(middle.test_loss, none.test_loss).rename(text="paragraph")
    return Outcome(
        (
            above("loss on copies minus that without, nats", copies(middle) - copies(none),
                  SMALL_COPY),
            above("share lost of what copying gained minus that of the test loss", share - whole,
                  SMALL_FALL),
        ),
        f"at {measured.middle_text} repetitions",
    )  # fmt: skip


def _induction_hurt(measured: Measured) -> Outcome:
    none, middle = measured.none, measured.middle
    matching = fall(middle.prefix_matching, none.prefix_matching, 0.0)
    copying = fall(middle.copying, none.copying, 0.5)
    return Outcome(
        (
            above("fall of prefix matching, all heads, share", matching, SMALL_FALL),
            above("fall of what heads add to the right logit, share", copying, SMALL_FALL),
        ),
        f"at {measured.middle_text} repetitions",
    )


def _context_hurt(measured: Measured) -> Outcome:
    worse = measured.middle.icl - measured.none.icl
    return Outcome(
        (above("late minus early loss, minus that without, nats", worse, SMALL_COPY),),
        f"at {measured.middle_text} repetitions",
    )


PAPER = "Hernandez et al. 2022 (arXiv 2205.10487), abstract"


CLAIMS = (
    Claim(
        "learned",
        "Models that read nothing twice learn to copy by induction.",
        "what the other claims take for granted",
        "Prefix matching of a head above 0.3, and 0.5 nats less on copies than at first.",
        _learned,
    ),
    Claim(
        "worst_in_the_middle",
        "Test loss is worst at a middle number of repetitions (double descent).",
        PAPER,
        "More than 0.01 nats above that of no, of the fewest, and of the most repetitions.",
        _worst_in_the_middle,
    ),
    Claim(
        "copying_hurt",
        "There copying is hurt out of proportion to the test loss.",
        PAPER,
        "More than 0.05 nats on copies; of what models gain over chance, a share is lost that is "
        "larger by more than 0.05 than that of the test loss.",
        _copying_hurt,
    ),
    Claim(
        "induction_hurt",
        "There induction heads match prefixes and copy less.",
        PAPER,
        "Both fall by more than 0.05 of what they are without repetition, summed over heads.",
        _induction_hurt,
    ),
    Claim(
        "context_hurt",
        "There context helps less.",
        "tested here; the paper measures in-context learning as well",
        "The ICL score is more than 0.05 nats above that without repetition.",
        _context_hurt,
    ),
)
