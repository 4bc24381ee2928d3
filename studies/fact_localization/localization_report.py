"""What the study found, as markdown, JSON and self-contained pictures."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from localization_claims import CLAIMS, Condition, Outcome, Traces, Verdict, traced, verdict

import mechlab as ml

PUBLISHED = {
    "clean probability": "27.0 %",
    "corrupted probability": "8.47 %",
    "total effect": "18.6 %",
    "resid_post at last_subject": "8.7 % at layer 15",
    "mlp_out at last_subject": "6.6 % at layer 17",
    "attn_out at last_subject": "1.6 %",
    "attn_out at last_token": "8.0 % at layer 32 (score 16.5 % less 8.47 %)",
}
"""GPT-2 XL with 1,000 facts of the paper's own set (Meng et al. 2022, section 2.2)."""


@dataclass(frozen=True)
class Finding:
    """Traces and outcomes of the model and of the untrained one beside it."""

    model: str
    source: str
    traces: Traces
    control: Traces
    outcomes: Mapping[str, Outcome]
    control_outcomes: Mapping[str, Outcome]
    options: Mapping[str, str]

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Verdict per claim."""
        return {
            name: verdict(outcome, self.control_outcomes[name])
            for name, outcome in self.outcomes.items()
        }


# --- numbers --------------------------------------------------------------------------------------


def averages(trace: xr.Dataset) -> xr.Dataset | None:
    """Return average effects by role, as published; `None` when no fact was traced."""
    if not bool((trace.status == "ok").any()):
        return None
    return ml.average_indirect_effect(trace, cluster="subject")


def numbers(traces: Traces) -> Iterator[tuple[str, str]]:
    """Yield the averages that the paper prints, and its lowest severed cell, by name, as text."""
    trace = traces.sites
    facts, means = traced(trace), averages(trace)
    if means is None:
        return
    yield "clean probability", f"{float(facts.clean_probability.mean()):.2%}"
    yield "corrupted probability", f"{float(facts.corrupted_probability.mean()):.2%}"
    low, high = float(means.average_total_effect_low), float(means.average_total_effect_high)
    yield "total effect", f"{float(means.average_total_effect):.2%} ({low:.2%} to {high:.2%})"
    for site in map(str, means.site.values):
        for role in ("last_subject", "last_token"):
            # The last block's residual at the last token is the whole effect by construction.
            if (site, role) != ("resid_post", "last_token"):
                yield f"{site} at {role}", _peak(means.sel(site=site, token_role=role))
    yield from _lowest_severed(traces)


def _lowest_severed(traces: Traces) -> Iterator[tuple[str, str]]:
    """Yield what the first block's output carries: the lowest state that the paper severs.

    The first block's MLP has run by then. A model that looks facts up there loses little here.
    """
    for name, trace in {"nothing": traces.entering, **traces.severed}.items():
        means = averages(trace)
        if means is not None and trace.sizes["layer"] > 1:
            at = means.sel(site="resid_pre", token_role="last_subject", layer=[1])
            yield (
                f"first block's output at last_subject, {name} severed",
                _peak(at).removesuffix(" at layer 1"),
            )


def _peak(means: xr.Dataset) -> str:
    if means.average_indirect_effect.isnull().all():
        return "no such token"
    at = means.isel(layer=int(means.average_indirect_effect.argmax("layer")))
    low, high = float(at.average_indirect_effect_low), float(at.average_indirect_effect_high)
    value = float(at.average_indirect_effect)
    return f"{value:.2%} ({low:.2%} to {high:.2%}) at layer {int(at.layer)}"


# --- text -----------------------------------------------------------------------------------------


def markdown(found: Finding) -> str:
    """Return the report."""
    trace = found.traces.sites
    known = int((trace.status == "ok").sum())
    lines = [
        f"# Where {found.model} keeps its facts",
        "",
        f"{known} of {trace.sizes['prompt']} facts traced, {trace.sizes['sample']} corrupted runs "
        f"each; noise of standard deviation {float(trace.attrs['noise_std']):.4g}; windows of "
        f"{trace.attrs['window']} layers of {trace.sizes['layer']}.",
        "",
        "| claim | source | verdict |",
        "|---|---|---|",
        *(f"| {c.statement} | {c.source} | **{found.verdicts[c.name]}** |" for c in CLAIMS),
        "",
        *_number_table(found),
    ]
    for claim in CLAIMS:
        lines += ["", f"## {claim.name}: {found.verdicts[claim.name]}", "", claim.expected, ""]
        lines += _conditions(found.outcomes[claim.name], found.control_outcomes[claim.name])
    return "\n".join(lines) + "\n"


def _number_table(found: Finding) -> list[str]:
    model, control = dict(numbers(found.traces)), dict(numbers(found.control))
    beside = found.source == "hub"
    head = ["largest average effects", found.model, "untrained"]
    head += ["GPT-2 XL in the paper"] if beside else []
    rows = [
        [name, model.get(name, "none traced"), control.get(name, "none traced")]
        + ([PUBLISHED.get(name, "")] if beside else [])
        for name in dict.fromkeys([*model, *control])
    ]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _conditions(model: Outcome, control: Outcome) -> list[str]:
    if not model.conditions:
        return [f"Not tested: {model.note}."]
    others = {condition.text: condition for condition in control.conditions}
    rows = [f"Measured {model.note} (untrained: {control.note}).", ""]
    rows += ["| condition | above | model | | untrained | |", "|---|---|---|---|---|---|"]
    for number, condition in enumerate(model.conditions):
        other = others.get(condition.text)
        if other is None and number < len(control.conditions):
            other = control.conditions[number]  # the role nearest to failing may be another one
        cells = [condition.text, f"{condition.bound:g}", *_measured(condition), *_measured(other)]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _measured(condition: Condition | None) -> tuple[str, str]:
    if condition is None:
        return "not measured", "no"
    text = f"{condition.value:.4f} ({condition.low:.4f} to {condition.high:.4f})"
    return text, "yes" if condition.holds else "no"


def write_json(found: Finding, path: Path) -> None:
    """Write verdicts, conditions and averages; numbers that do not exist are null."""
    content = {
        "model": found.model,
        "options": dict(found.options),
        "fingerprint": found.traces.sites.attrs["model_fingerprint"],
        "versions": json.loads(found.traces.sites.attrs["versions"]),
        "facts": found.traces.sites.sizes["prompt"],
        "facts_traced": int((found.traces.sites.status == "ok").sum()),
        "averages": dict(numbers(found.traces)),
        "averages_untrained": dict(numbers(found.control)),
        "claims": {
            claim.name: {
                "statement": claim.statement,
                "source": claim.source,
                "expected": claim.expected,
                "verdict": found.verdicts[claim.name],
                "model": _plain(found.outcomes[claim.name]),
                "untrained": _plain(found.control_outcomes[claim.name]),
            }
            for claim in CLAIMS
        },
    }
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _plain(outcome: Outcome) -> dict[str, Any]:
    conditions = [
        {k: None if v != v else v for k, v in asdict(c).items()} | {"holds": c.holds}
        for c in outcome.conditions
    ]
    return {"holds": outcome.holds, "note": outcome.note, "conditions": conditions}


# --- pictures -------------------------------------------------------------------------------------


def figures(found: Finding, out: Path) -> Iterator[Path]:
    """Write role × layer grids of both models and the severed curves; yield the paths."""
    for name, traces in (("model", found.traces), ("untrained", found.control)):
        means = averages(traces.sites)
        if means is None:
            continue
        title = f"{found.model}{' (untrained)' if name == 'untrained' else ''}: average effects"
        figure = ml.plots.layer_by_token(means.average_indirect_effect, title=title)
        yield ml.plots.write_html(figure, out / f"roles-{name}.html")
    if bool((found.traces.sites.status == "ok").any()):
        figure = ml.plots.to_plotly(_severed_grid(found), title=f"{found.model}: severed")
        yield ml.plots.write_html(figure, out / "severed.html")


def _severed_grid(found: Finding) -> ml.plots.GridView:
    """Return effects of what enters each layer at the last subject token, by what is severed."""
    traces = {"nothing": found.traces.entering, **found.traces.severed}
    columns = [
        ml.average_indirect_effect(trace, cluster="subject").sel(
            site="resid_pre", token_role="last_subject"
        )
        for trace in traces.values()
    ]
    low, values, high = (
        np.stack([column[f"average_indirect_effect{end}"].values for column in columns], axis=1)
        for end in ("_low", "", "_high")
    )
    return ml.plots.GridView(
        values=values.astype(np.float32),
        row_labels=tuple(map(str, found.traces.entering.layer.values)),
        col_labels=tuple(f"{name} severed" for name in traces),
        col_name="severed",
        title="resid_pre at the last subject token",
        metric="average indirect effect",
        unit="probability",
        ci_low=low.astype(np.float32),
        ci_high=high.astype(np.float32),
        n=int((found.traces.sites.status == "ok").sum()),
        n_unit="facts",
    )
