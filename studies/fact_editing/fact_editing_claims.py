"""The claims about editing one fact (Meng et al. 2022, Gupta et al. 2024)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import xarray as xr

import mechlab as ml

Claim, Condition, Outcome = ml.claims.Claim, ml.claims.Condition, ml.claims.Outcome

RROME, ROME, PROME, FT, FTL, MEMIT = "R-ROME", "ROME", "p-ROME", "FT", "FT+L", "MEMIT"
WAYS = (RROME, ROME, PROME, FT, FTL, MEMIT)
FIGURES = {"efficacy": (0.98, 0.95), "paraphrase": (0.85, 0.80), "neighbourhood": (0.85, 0.80)}
"""What the best single-layer edit must reach: the mean, and the interval's lower end. Of 100 edits
of which none fails a binomial interval still begins at 96.4 %."""


@dataclass(frozen=True)
class Measured:
    """What the claims are tested on.

    Attributes:
        before: `ml.evaluate_edit` without an edit.
        ways: `ml.evaluate_each_edit` by way of editing, all of the same cases; with `edit_norm`.
    """

    before: xr.Dataset
    ways: Mapping[str, xr.Dataset]


def condition(text: str, values: xr.DataArray, bound: float = 0.0) -> Condition:
    """Return a condition on a mean over cases, drawn by subject.

    Where all cases agree a bootstrap has no width: then the binomial bound, 1 - 0.025^(1/n).
    """
    values = values.rename(case="prompt").reset_coords(drop=True)
    subjects = list(map(str, values.get_index("prompt")))
    found = ml.claims.mean_above(text, values, bound, clusters=[subjects])
    if not found.high - found.low < 1e-9:
        return found
    unseen = 1 - 0.025 ** (1 / values.sizes["prompt"])
    return Condition(text, found.value, found.value - unseen, found.high, bound)


def _reaches(measured: Measured) -> Outcome:
    conditions = []
    for name, (mean, low) in FIGURES.items():
        values = by_subject(measured.ways[RROME], name)
        share = float(values.mean())
        figure = f"mean {name} of the edits made (a figure of these, without an interval)"
        conditions.append(Condition(figure, share, share, share, mean - 1e-9))
        found = condition(name, values, low)
        conditions.append(replace(found, high=min(found.high, 1.0)))
    return Outcome(tuple(conditions))


def by_subject(result: xr.Dataset, name: str) -> xr.DataArray:
    """Return a variable of (case), the axis labelled by subject."""
    subjects = [str(subject) for subject in result["subject"].values]
    return xr.DataArray(result[name].values, {"case": subjects}, dims="case")


def difference(measured: Measured, name: str, more: str, less: str) -> xr.DataArray:
    """Return by how much a variable is larger with one way than with another, per case."""
    ways = measured.ways
    return by_subject(ways[more], name) - by_subject(ways[less], name)


def compared(*pairs: tuple[str, str, str]) -> Callable[[Measured], Outcome]:
    """Return the test that variables are larger with one way of editing than with another."""

    def test(measured: Measured) -> Outcome:
        if missing := {way for _, *ways in pairs for way in ways} - set(measured.ways):
            return Outcome(note=f"not run: {', '.join(sorted(missing))}", applies=False)
        return Outcome(
            tuple(
                condition(f"{name}: {more} minus {less}", difference(measured, name, more, less))
                for name, more, less in pairs
            )
        )

    return test


MENG, GUPTA = "Meng et al. 2022, table 4", "Gupta et al. 2024, abstract"
CLAIMS = (
    Claim(
        "reaches",
        "One rank-one edit makes the new object the more probable one, also in other words, and "
        "leaves other subjects alone.",
        "wanted of R-ROME with the settings known for the model",
        "Efficacy of 98 %, paraphrase and neighbourhood of 85 % on average; intervals above 95, 80 "
        "and 80 %.",
        _reaches,
    ),
    Claim(
        "ft_neighbours",
        "Fine-tuning without a bound harms neighbours more than a rank-one edit.",
        f"{MENG} (GPT-2 XL: 40.4 against 75.4)",
        "Neighbourhood is lower with FT than with R-ROME.",
        compared(("neighbourhood", RROME, FT)),
    ),
    Claim(
        "ftl_paraphrases",
        "Fine-tuning with a bound generalises less than a rank-one edit.",
        f"{MENG} (GPT-2 XL: 48.7 against 96.4)",
        "Paraphrase is lower with FT+L than with R-ROME.",
        compared(("paraphrase", RROME, FTL)),
    ),
    Claim(
        "r_rome_better",
        "R-ROME generalises better than ROME and p-ROME and keeps more.",
        f"{GUPTA} (the tables were not at hand)",
        "Paraphrase and neighbourhood are higher with R-ROME than with either.",
        compared(
            ("paraphrase", RROME, ROME), ("neighbourhood", RROME, ROME),
            ("paraphrase", RROME, PROME), ("neighbourhood", RROME, PROME),
        ),
    ),
    Claim(
        "smaller_norm",
        "R-ROME changes the weight less than ROME.",
        GUPTA,
        "The norm of the change is smaller with R-ROME.",
        compared(("edit_norm", ROME, RROME)),
    ),
)  # fmt: skip
