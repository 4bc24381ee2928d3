"""What the study found, as a table of numbers and self-contained pictures."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from pruning_claims import (
    SHARE,
    SIDES,
    WINNER,
    Measured,
    Part,
    Side,
    condition,
    control_gains,
    gain,
    head_scores,
    over_random,
)

import mechlab as ml

PUBLISHED = {
    "memory heads pruned: rise of RC": "+38.5 % on average over eight models",
    "context heads pruned: rise of RM": "+44.0 % on average over eight models",
}
"""Abstract of Jin et al. 2024; other prompts, answers read from generated text."""
TOP = 5
FEW = 4
DRAWS = 50


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


def numbers(measured: Measured) -> Iterator[tuple[str, str]]:
    """Yield what was measured, by name, as text with 95 % intervals."""
    for side in SIDES:
        k, share = measured.k[side], SHARE[side]
        kind = f"{side} heads"
        yield f"{kind}, strongest first", " ".join(map(str, measured.rankings[side][:TOP]))
        yield f"{kind}: number pruned, chosen on the finding half", str(k)
        parts = {"": measured.held, **measured.forms, **measured.coherent, **measured.relations}
        for name, part in parts.items():
            yield from _shares(part, side, k, share, f"{name}, {kind}" if name else kind)
        yield from _strongest_control(measured.held, side, k)
    yield from stability(measured)
    yield from roles(measured)


def _shares(part: Part, side: Side, k: int, share: str, where: str) -> Iterator[tuple[str, str]]:
    outcome, pairs = WINNER[side], part.pairs
    before = part.share(side, 0, outcome)
    yield f"{where} pruned: {share} before", _percent(before, pairs)
    yield f"{where} pruned: rise of {share}", _percent(gain(part, side, side, k), pairs)
    yield (
        f"{where} pruned: rise of {share} beyond random heads",
        _percent(over_random(part, side, k), pairs),
    )
    yield f"{where} pruned: other answers", _percent(part.share(side, k, "other"), pairs)
    effect = part.pruning.effect.sel(k=k, drop=True)
    own = effect.sel(head_set=side, drop=True)
    random = effect.isel(head_set=(effect.control_of == side).values).mean("head_set")
    text = f"{where} pruned: logit difference moved beyond random heads"
    found = condition("", own - random, pairs)
    yield text, f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def _strongest_control(part: Part, side: Side, k: int) -> Iterator[tuple[str, str]]:
    """Yield the random set that comes nearest to the chosen heads."""
    gains = control_gains(part, side, k)
    name = max(gains, key=lambda control: float(gains[control].mean()))
    members = str(part.pruning.members.sel(head_set=name, k=k).item())
    rest = gain(part, side, side, k) - gains[name]
    text = f"{side} heads pruned: rise of {SHARE[side]} beyond the strongest random set"
    yield text, f"{_percent(rest, part.pairs)}; {members}"


def stability(measured: Measured) -> Iterator[tuple[str, str]]:
    """Yield how many of the first heads are found again on a few pairs alone."""
    random = np.random.default_rng(0)
    count = measured.found.sizes["prompt"]
    if count <= FEW:
        return
    again: dict[str, list[int]] = {side: [] for side in SIDES}
    for _ in range(DRAWS):
        some = random.choice(count, FEW, replace=False)
        ranked = ml.conflict_rankings(measured.found.isel(prompt=some))
        for side in SIDES:
            again[side].append(len(set(ranked[side][:TOP]) & set(measured.rankings[side][:TOP])))
    for side in SIDES:
        text = f"{side} heads: of the first {TOP}, found again on {FEW} pairs alone (mean)"
        yield text, f"{np.mean(again[side]):.1f}"


def roles(measured: Measured) -> Iterator[tuple[str, str]]:
    """Yield how many of the first heads have the other sign in coherent conflicts."""
    for name, scores in measured.coherent_scores.items():
        for side in SIDES:
            first = measured.rankings[side][:FEW]
            means = [float(head_scores(scores, head, side).mean()) for head in first]
            text = f"{name}: of the first {FEW} {side} heads, those with the other sign there"
            yield text, str(sum(mean < 0 for mean in means))


def _percent(values: xr.DataArray, pairs: ml.prompts.PromptSet) -> str:
    found = condition("", values, pairs)
    return f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"


def figures(model: str, measured: Measured, out: Path) -> Iterator[Path]:
    """Write the conflict scores and the pruning curves; yield the paths."""
    title = f"{model}: conflict score, held out (positive: memory head)"
    grid = ml.plots.head_grid(measured.scores, title=title)
    yield ml.plots.write_html(grid, out / "heads.html")
    curves: Mapping[str, Part] = {"held-out": measured.held, **measured.coherent}
    for name, part in curves.items():
        title = f"{model}: answers by heads pruned, {name} (dashed: random heads of the layers)"
        figure = ml.plots.lines(part.pruning, value="share", x="k", title=title)
        yield ml.plots.write_html(figure, out / f"curve-{name.replace(' ', '-')}.html")
