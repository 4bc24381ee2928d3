"""What was found over checkpoints, as a table of numbers and self-contained pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from emergence_claims import attention, of_heads, recalled
from emergence_measure import KINDS, Measured

import mechlab as ml

INDICES = ("contiguity", "asymmetry", "primacy", "recency")


def courses(measured: Measured) -> dict[str, xr.DataArray]:
    """Return what is followed over checkpoints, by name, `[checkpoint]`."""
    loss = measured.loss.loss.sel(head_set="intact").mean("prompt")
    scores = measured.scores
    return {
        "prefix matching of induction heads": of_heads(
            scores.prefix_matching, measured.heads
        ).mean("prompt"),
        "highest previous-token score": scores.previous_token.mean("prompt").max(["layer", "head"]),
        "contiguity of induction heads": attention(measured, "contiguity").mean("prompt"),
        "asymmetry of induction heads": attention(measured, "asymmetry").mean("prompt"),
        "primacy, all heads": measured.attention.primacy.mean(["prompt", "layer", "head"]),
        "recency, all heads": measured.attention.recency.mean(["prompt", "layer", "head"]),
        "output CRP at +1": recalled(measured).sel(lag=1).mean("prompt"),
        "output CRP at -1": recalled(measured).sel(lag=-1).mean("prompt"),
        **{
            f"output CRP at +1 without induction heads, {kind}": recalled(
                measured, kind, "induction"
            ).sel(lag=1).mean("prompt")
            for kind in KINDS
        },
        "loss on copy 1, nats": loss.sel(copy=1),
        "loss on copy 2, nats": loss.sel(copy=2),
    }  # fmt: skip


def number_table(measured: Measured, control: Measured, name: str) -> list[tuple[str, ...]]:
    """Return what is followed at the first, the middle and the last checkpoint, and untrained."""
    own, other = courses(measured), courses(control)
    steps = measured.loss.checkpoint.values
    shown = sorted({0, *_turning(measured), len(steps) - 1})
    heading = ("measured", *(f"{name}, step {steps[i]}" for i in shown), "untrained, last")
    rows = [
        (text, *(f"{float(values[i]):.3f}" for i in shown), f"{float(other[text][-1]):.3f}")
        for text, values in own.items()
    ]
    empty = ("",) * (len(shown) - 1)
    return [
        heading,
        *rows,
        *((text, *empty, value, told) for text, value, told in _ablated(measured, control)),
    ]


def _turning(measured: Measured) -> tuple[int, int]:
    """Return the checkpoints on either side of the largest fall of the loss on copy 2."""
    loss = courses(measured)["loss on copy 2, nats"].values
    if len(loss) < 2:
        return 0, 0
    before = int(np.diff(loss).argmin())
    return before, before + 1


def _ablated(measured: Measured, control: Measured) -> Iterator[tuple[str, str, str]]:
    yield "induction heads", *(" ".join(map(str, one.heads)) for one in (measured, control))
    for outcome in ("copy_loss", "recall_next"):
        for kind in KINDS:
            text = f"{outcome} without them, {kind}: change (random sets)"
            yield text, *(_change(one.last, outcome, kind) for one in (measured, control))


def _change(last: xr.Dataset, outcome: str, kind: str) -> str:
    cell = last.sel(outcome=outcome, ablation=kind, head_set="induction")
    own, mean = float(cell.effect), float(cell.random_mean)
    sets = int((last.control_of == "induction").sum())
    return f"{own:+.3f} ({sets} sets: {mean:+.3f})"


def figures(name: str, measured: Measured, folder: Path) -> list[Path]:
    """Write the pictures and return where they are."""
    named = courses(measured)
    whole = xr.concat(
        [_unit(one.drop_vars([n for n in one.coords if n != "checkpoint"]))
         for one in named.values()],
        xr.Variable("measure", list(named)),
    )  # fmt: skip
    made = {
        "emergence": ml.plots.lines(
            whole.rename("from lowest to highest"),
            x="checkpoint",
            title=f"{name}: everything over training, each from its lowest to its highest value",
        ),
        "matching": ml.plots.lines(
            measured.scores.prefix_matching.mean("prompt", keep_attrs=True),
            x="checkpoint",
            title=f"{name}: prefix matching of every head over training",
        ),
    }
    for index in INDICES:
        made[index] = ml.plots.lines(
            measured.attention[index].mean("prompt", keep_attrs=True),
            x="checkpoint",
            title=f"{name}: {index} of attention of every head over training",
        )
    ablated = xr.concat(
        [measured.recall[kind]["mean"].isel(checkpoint=-1) for kind in KINDS],
        xr.Variable("ablation", list(KINDS)),
    )
    made["output_crp"] = ml.plots.lines(
        ablated.drop_vars("checkpoint"),
        x="lag",
        title=f"{name}: what it says next, by lag from the probe, last checkpoint",
    )
    return [ml.plots.write_html(figure, folder / f"{kind}.html") for kind, figure in made.items()]


def _unit(values: xr.DataArray) -> xr.DataArray:
    spread = float(values.max() - values.min())
    return (values - values.min()) / (spread if spread > 0 else 1.0)
