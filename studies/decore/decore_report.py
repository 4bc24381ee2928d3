"""What the study found, as a table of numbers."""

from collections.abc import Iterator

import xarray as xr
from decore_claims import (
    BASE,
    CONTRAST,
    Measured,
    condition,
    faithful,
    memorised,
    over_controls,
    right,
)

import mechlab as ml


def number_table(model: Measured, control: Measured, name: str) -> list[tuple[str, ...]]:
    """Return what was measured on both models."""
    found, other = dict(numbers(model)), dict(numbers(control))
    rows = [
        (text, found.get(text, ""), other.get(text, "")) for text in dict.fromkeys([*found, *other])
    ]
    return [("measured", name, "untrained"), *rows]


def numbers(measured: Measured) -> Iterator[tuple[str, str]]:
    """Yield what was measured, by name."""
    yield "heads contrasted", " ".join(map(str, measured.heads))
    for way in (BASE, CONTRAST):
        yield f"{way}: in-context answers", _share(faithful(measured, way), measured.pairs)
        yield f"{way}: memorised answers", _share(memorised(measured, way), measured.pairs)
        yield f"{way}: closed-book accuracy", f"{100 * float(right(measured, way).mean()):.1f} %"
    random = [float(faithful(measured, way).mean()) for way in measured.controls]
    yield (
        "random heads: in-context answers, each draw",
        ", ".join(f"{100 * r:.1f} %" for r in random),
    )
    lost = [float(right(measured, way).mean()) for way in measured.controls]
    yield (
        "random heads: closed-book accuracy, each draw",
        ", ".join(f"{100 * r:.1f} %" for r in lost),
    )
    yield "in-context answers beyond random heads", _percent(over_controls("", measured))
    for text, result in (("conflicts", measured.conflicts), ("questions", measured.closed)):
        alpha = result[CONTRAST]["alpha"].isel(step=0)
        yield f"mean alpha on {text}, first token", f"{float(alpha.mean()):.2f}"
    changed = measured.conflicts[CONTRAST]["changed"].isel(step=0)
    yield "first tokens changed by the contrast", f"{100 * float(changed.mean()):.1f} %"


def _share(values: xr.DataArray, pairs: ml.prompts.PromptSet) -> str:
    return _percent(condition("", values, pairs))


def _percent(found: ml.claims.Condition) -> str:
    return f"{100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"
