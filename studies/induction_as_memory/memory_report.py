"""What was found on a model, as a table of numbers and self-contained pictures."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import xarray as xr
from memory_heads import Fitted, of_heads
from memory_measure import KINDS, OWN, Measured
from memory_published import PUBLISHED, known_as, numbers

import mechlab as ml

OUTCOMES = ("copy_loss", "recall_next", "icl_score")
"""Of `ml.memory_ablation`: loss on copy 2, output CRP at +1, loss late minus loss early."""
SHOWN = 8
"""Heads whose curves are drawn, at most."""


def number_table(model: Measured, control: Measured, name: str) -> list[tuple[str, ...]]:
    """Return what was measured on both models, beside what was published."""
    known = known_as(name)
    told = known if known in PUBLISHED else "gpt2"
    published = {text: value for text, _, value in numbers(model.found, told)}
    own, other = dict(_numbers(model)), dict(_numbers(control))
    rows = [
        (text, own.get(text, ""), other.get(text, ""), published.get(text, ""))
        for text in dict.fromkeys([*own, *other])
    ]
    return [("measured", name, "untrained", f"published, {told}"), *rows]


def _numbers(measured: Measured) -> Iterator[tuple[str, str]]:
    found = measured.found
    for text, value, _ in numbers(found, ""):
        yield text, value
    corrected = f"{100 * float((measured.corrected.fit.distance < 0.1).mean()):.1f} %"
    yield "heads below 0.1, without what no repeat gives", corrected
    bump = (ml.gaussian_fit(found.curves).distance < found.fit.distance).mean()
    yield "heads that a Gaussian bump fits better", f"{100 * float(bump):.0f} %"
    for name in OWN:
        heads = measured.heads(name)
        yield f"top {name} heads", " ".join(map(str, heads))
        yield f"their distance ({name})", _each(found.fit.distance, heads, ".3f")
        yield f"their p against smooth noise ({name})", _each(found.p_value, heads, ".4f")
        yield f"their peak lag ({name})", _each(found.fit.peak_lag, heads, "+.0f")
        yield f"their matching score ({name})", _each(found.matching, heads, ".3f")
        yield f"their copying score ({name})", _each(measured.copying.copying, heads, "+.2f")
        yield f"their near-optimal cells ({name})", _each(found.fit.near_optimal, heads, ".0f")
    yield from _harm(measured)


def _harm(measured: Measured) -> Iterator[tuple[str, str]]:
    found = measured.ablated
    intact = found["mean"].sel(head_set="intact").isel(ablation=0)
    for outcome in OUTCOMES:
        yield f"intact: {outcome}", f"{float(intact.sel(outcome=outcome)):.3f}"
    for outcome in OUTCOMES:
        for name in OWN:
            for ablation in KINDS:
                cell = found.sel(outcome=outcome, head_set=name, ablation=ablation)
                text = f"{outcome} without top {name} heads, {ablation}: change"
                yield text, _beside_random(cell)


def _beside_random(cell: xr.Dataset) -> str:
    own, mean, low, high, p_value = (
        float(cell[name])
        for name in ("effect", "random_mean", "random_low", "random_high", "p_value")
    )
    if math.isnan(own):
        return "not measured"
    rank = "no layer-matched control" if math.isnan(p_value) else f"p {p_value:.3f}"
    return f"{own:+.3f} (random {mean:+.3f}, {low:+.3f} to {high:+.3f}; {rank})"


def _each(values: xr.DataArray, heads: Sequence[ml.Head], form: str) -> str:
    return ", ".join(format(float(one), form) for one in of_heads(values, heads))


def table_of_heads(measured: Measured) -> list[dict[str, object]]:
    """Return one row per head: distance, p-value, peak lag and matching score side by side."""
    found = measured.found
    columns = {
        "distance": found.fit.distance,
        "p": found.p_value,
        "peak_lag": found.fit.peak_lag,
        "matching": found.matching,
        "copying": measured.copying.copying,
        "without_position": measured.corrected.fit.distance,
        **{name: found.fit[name] for name in ("beta_enc", "beta_rec", "gamma_ft", "scale")},
    }
    every = ml.top_heads(-found.fit.distance, k=int(found.fit.distance.notnull().sum()))
    picked = {name: of_heads(values, every).values for name, values in columns.items()}
    return [
        {"head": str(head)} | {name: round(float(values[i]), 5) for name, values in picked.items()}
        for i, head in enumerate(every)
    ]


def figures(name: str, found: Fitted, folder: Path) -> list[Path]:
    """Draw the heads of a model, or of published curves; return where the pictures are."""
    made = {
        "matching": ml.plots.head_grid(found.matching, title=f"{name}: matching score"),
        "distance": ml.plots.head_grid(
            found.fit.distance.drop_vars("status"),
            title=f"{name}: CMR distance (says nothing without the matching score)",
        ),
    }
    for kind, heads in (("CMR", found.most_like()), ("induction", found.most_matching())):
        curves = of_heads(found.curves, heads[:SHOWN]).rename("score")
        made[f"curves_{kind.lower()}"] = ml.plots.lag_fits(
            curves, ml.fit_cmr(curves), title=f"{name}: top {kind} heads"
        )
    if (found.fit.distance < 0.1).any():
        made["betas"] = ml.plots.beta_scatter(found.fit, title=f"{name}: drift")
    return [ml.plots.write_html(figure, folder / f"{kind}.html") for kind, figure in made.items()]
