"""What the study found, as a table of numbers and self-contained pictures."""

from collections.abc import Iterator
from pathlib import Path

import xarray as xr
from capital_claims import (
    SIGN,
    WINNER,
    Measured,
    Part,
    Side,
    by_frequency,
    condition,
    control_gains,
    gain,
    written,
)

import mechlab as ml

PUBLISHED = {"in-context share with the memory head scaled": "88 % (by scaling one head)"}
"""Abstract of Yu et al. 2023."""


# --- numbers --------------------------------------------------------------------------------------


def numbers(measured: Measured) -> Iterator[tuple[str, str]]:
    """Yield what was measured on held-out pairs, by name, as text with 95 % intervals."""
    held = measured.held
    for side in SIGN:
        head, alpha = measured.heads[side], measured.alpha[side]
        name = {"memory": "memory head", "context": "in-context head"}[side]
        yield name, str(head)
        own = SIGN[side] * written(held, head, side)
        yield f"{name}: attribution, in-context minus memorised", _of(own, held, "logits")
        yield f"{name}: chosen factor", f"{alpha:g}"
        outcome = WINNER[side]
        label = outcome.replace("_", "-")
        yield f"{label} share, nothing scaled", _of(held.share(side, 1.0, outcome), held)
        yield (
            f"{label} share with the {side} head scaled",
            _of(held.share(side, alpha, outcome), held),
        )
        yield (
            f"other answers with the {side} head scaled",
            _of(held.share(side, alpha, "other"), held),
        )
        yield from _strongest_control(measured, side)
        for form, part in measured.others.items():
            yield f"{form}: rise of the {label} share", _of(gain(part, side, side, alpha), part)
    yield from _frequencies(measured)


def _strongest_control(measured: Measured, side: Side) -> Iterator[tuple[str, str]]:
    """Yield the head of the layer that comes nearest to the chosen one."""
    held, alpha = measured.held, measured.alpha[side]
    gains = control_gains(held, side, alpha)
    name = max(gains, key=lambda control: float(gains[control].mean()))
    members = held.scaling.members.sel(head_set=name).item()
    rest = gain(held, side, side, alpha) - gains[name]
    label = WINNER[side].replace("_", "-")
    yield f"strongest other head of the layer drawn ({side})", str(members)
    yield f"rise of the {label} share less that of this other head", _of(rest, held)


def _frequencies(measured: Measured) -> Iterator[tuple[str, str]]:
    for name, of in (("rank", "countries"), ("stated_rank", "in-context cities' countries")):
        pairs, terms = by_frequency(measured, name)
        yield f"in-context share, rarer minus more frequent {of}", _text(terms, pairs)


def _of(values: xr.DataArray, part: Part, units: str = "") -> str:
    return _text(values, part.pairs, units)


def _text(values: xr.DataArray, pairs: ml.prompts.PromptSet, units: str = "") -> str:
    found = condition("", values, pairs)
    if units:
        return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f}) {units}"
    return f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"


def number_table(model: Measured, control: Measured, name: str, hub: bool) -> list[tuple[str, ...]]:
    """Return what was measured on both models, beside a hub model what was published."""
    found, other = dict(numbers(model)), dict(numbers(control))
    head = ("held out", name, "untrained", *(["published"] if hub else []))
    rows = [
        (
            text,
            found.get(text, ""),
            other.get(text, ""),
            *([PUBLISHED.get(text, "")] if hub else []),
        )
        for text in dict.fromkeys([*found, *other])
    ]
    return [head, *rows]


# --- pictures -------------------------------------------------------------------------------------


def figures(model: str, held: Part, out: Path) -> Iterator[Path]:
    """Write the attribution of every head and the curves over the factor; yield the paths."""
    title = f"{model}: logits written, in-context minus memorised, held out"
    yield ml.plots.write_html(ml.plots.head_grid(held.attribution, title=title), out / "heads.html")
    title = f"{model}: answers by factor, held out (dashed: random heads of the layer)"
    yield ml.plots.write_html(ml.plots.lines(held.scaling, title=title), out / "factors.html")
