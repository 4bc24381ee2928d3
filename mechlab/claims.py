"""Claims and verdicts: what a study states, what it measured, and whether it holds.

A claim rests on conditions, each a number with a 95 % interval that must lie above a bound fixed
beforehand. It is tested on a model and on an untrained one of the same shape, on which it must
fail: a claim that holds there as well says nothing about what was learned.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from mechlab.statistics import bootstrap_interval

__all__ = ["Claim", "Condition", "Finding", "Outcome", "judge", "mean_above", "verdict"]

Verdict = Literal["holds", "fails", "not discriminating", "not applicable"]


@dataclass(frozen=True)
class Condition:
    """One number that a claim rests on, with its interval."""

    text: str
    """What it is, with its units."""
    value: float
    """What was measured."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end."""
    bound: float = 0.0
    """What the whole interval must lie above."""

    @property
    def holds(self) -> bool:
        """Whether the whole interval lies above the bound."""
        return bool(self.low > self.bound)  # NaN: not measurable, so not shown


def mean_above(
    text: str,
    values: xr.DataArray,
    bound: float = 0.0,
    *,
    clusters: Sequence[Sequence[object]] = (),
    resamples: int = 2000,
) -> Condition:
    """Return the condition that an average over prompts lies above a bound.

    Args:
        text: what the average is.
        values: one number per prompt, axis `prompt`.
        bound: what the interval must lie above.
        clusters: groupings of the prompts, each one label per prompt. The interval is the hull of
            one clustered bootstrap for each (subjects, sentences); without any, prompts stand
            alone.
        resamples: bootstrap samples.
    """
    alone = range(values.sizes["prompt"])
    drawn = [
        bootstrap_interval(values, cluster=labels, resamples=resamples)
        for labels in (clusters or [alone])
    ]
    ends = np.array([[float(one.low), float(one.high)] for one in drawn])
    low, high = (
        (np.nanmin(ends[:, 0]), np.nanmax(ends[:, 1]))
        if np.isfinite(ends).any()
        else (np.nan, np.nan)
    )
    return Condition(text, float(values.mean()), float(low), float(high), bound)


@dataclass(frozen=True)
class Outcome:
    """A claim on one model."""

    conditions: tuple[Condition, ...] = ()
    """All must hold."""
    note: str = ""
    """Where it was measured, or why it was not."""
    applies: bool = True
    """Whether this model can be asked at all."""

    @property
    def holds(self) -> bool:
        """Whether all conditions hold, and there are some."""
        return bool(self.conditions) and all(condition.holds for condition in self.conditions)


@dataclass(frozen=True)
class Claim:
    """A statement, where it stands, what it predicts, and the test of it on measurements."""

    name: str
    """Short name."""
    statement: str
    """The claim in one sentence."""
    source: str
    """Paper and place."""
    expected: str
    """What must be measured for it to hold."""
    test: Callable[[Any], Outcome] = field(repr=False)
    """From measurements to outcome."""


def verdict(model: Outcome, untrained: Outcome) -> Verdict:
    """Judge a claim by the model and by an untrained one, on which it must fail."""
    if not model.applies:
        return "not applicable"
    if not model.holds:
        return "fails"
    return "not discriminating" if untrained.holds else "holds"


@dataclass(frozen=True)
class Finding:
    """What a study found: outcomes of its claims on a model and on an untrained one beside it."""

    title: str
    """Heading of the report."""
    claims: tuple[Claim, ...]
    """In the order in which they are reported."""
    outcomes: Mapping[str, Outcome]
    """By name of the claim."""
    control: Mapping[str, Outcome]
    """The same on the untrained model."""
    about: Sequence[str] = ()
    """Paragraphs on what was measured, in front of the verdicts."""
    numbers: Sequence[tuple[str, ...]] = ()
    """Rows of a table of further numbers, the first its heading."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What else the JSON file says: model, options, fingerprint, versions."""

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Verdict per claim."""
        return {c.name: verdict(self.outcomes[c.name], self.control[c.name]) for c in self.claims}

    @property
    def exit_code(self) -> int:
        """0 when every claim that applies holds, and there is one; else 1."""
        asked = [found for found in self.verdicts.values() if found != "not applicable"]
        return 0 if asked and all(found == "holds" for found in asked) else 1

    def markdown(self) -> str:
        """Return the report."""
        verdicts = self.verdicts
        table = [("claim", "source", "verdict")]
        table += [(c.statement, c.source, f"**{verdicts[c.name]}**") for c in self.claims]
        parts = [f"# {self.title}", *self.about, _table(table)]
        parts += [_table(self.numbers)] if self.numbers else []
        for claim in self.claims:
            parts += [f"## {claim.name}: {verdicts[claim.name]}", claim.expected]
            parts += _conditions(self.outcomes[claim.name], self.control[claim.name])
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Write `verdicts.md` and `verdicts.json` into a folder; return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        claims = {
            c.name: {
                "statement": c.statement,
                "source": c.source,
                "expected": c.expected,
                "verdict": self.verdicts[c.name],
                "model": _plain(self.outcomes[c.name]),
                "untrained": _plain(self.control[c.name]),
            }
            for c in self.claims
        }
        content = {**self.record, "numbers": [list(row) for row in self.numbers], "claims": claims}
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        paths = [folder / "verdicts.md", folder / "verdicts.json"]
        paths[0].write_text(self.markdown(), encoding="utf-8")
        paths[1].write_text(text, encoding="utf-8")
        return paths


def judge(claims: Sequence[Claim], measured: object) -> dict[str, Outcome]:
    """Return the outcome of every claim on one model's measurements."""
    return {claim.name: claim.test(measured) for claim in claims}


# --- text -----------------------------------------------------------------------------------------


def _table(rows: Sequence[Sequence[str]]) -> str:
    cells = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _conditions(model: Outcome, control: Outcome) -> list[str]:
    if not model.conditions:
        return [f"Not tested: {model.note}."]
    rows = [("condition", "above", "model", "", "untrained", "")]
    for number, one in enumerate(model.conditions):
        other = control.conditions[number] if number < len(control.conditions) else None
        rows.append((one.text, f"{one.bound:g}", *_measured(one), *_measured(other)))
    where = f"Measured {model.note}" if model.note else "Measured"
    return [f"{where} (untrained: {control.note or 'likewise'}).", _table(rows)]


def _measured(condition: Condition | None) -> tuple[str, str]:
    if condition is None:
        return "not measured", "no"
    text = f"{condition.value:.4g} ({condition.low:.4g} to {condition.high:.4g})"
    return text, "yes" if condition.holds else "no"


def _plain(outcome: Outcome) -> dict[str, Any]:
    conditions = [
        {k: v if isinstance(v, str) or np.isfinite(v) else None for k, v in asdict(c).items()}
        | {"holds": c.holds}
        for c in outcome.conditions
    ]
    return {"holds": outcome.holds, "note": outcome.note, "conditions": conditions}
