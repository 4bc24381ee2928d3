"""What the study found, as a table of numbers and self-contained pictures."""

from pathlib import Path

import xarray as xr
from repeated_claims import Measured, copies, fall, lost

import mechlab as ml


def number_table(model: Measured, control: Measured) -> list[tuple[str, ...]]:
    """Return means over prompts and seeds, the seeds themselves in brackets, by repetitions."""
    own, other = _means(model), _means(control)
    names = [f"{int(r):,} times" if r > 1 else "none" for r in model.data.repeats.values]
    rows = [
        (text, *(_each(values.isel(repeats=i)) for i in range(len(names))), _each(other[text][0]))
        for text, values in own.items()
    ]
    return [("measured", *names, "untrained"), *rows]


def _means(measured: Measured) -> dict[str, xr.DataArray]:
    """Return `[repeats, seed]` by what it is."""
    data = measured.data
    found = {
        "test loss, nats": data.test_loss.mean("text"),
        "loss on copies, nats": copies(data).mean("paragraph"),
        "loss on the first copy, nats": data.copy_loss.sel(copy=1).mean("paragraph"),
        "ICL score, nats": data.icl.mean("text"),
        "prefix matching, all heads": data.prefix_matching.mean("list"),
        "prefix matching, best head": data.best_head.mean("list"),
        "logits of copying, all heads": data.copying.mean("list"),
    }
    return {text: values.transpose("repeats", "seed") for text, values in found.items()}


def _each(values: xr.DataArray) -> str:
    seeds = ", ".join(f"{float(one):.3f}" for one in values)
    return f"{float(values.mean()):.3f} ({seeds})"


def shares(measured: Measured) -> xr.DataArray:
    """Return `[measure, seed, repeats]`: the share lost of what there is without repetition."""
    data, none = measured.data, measured.none
    found = {
        "test loss": lost(data.test_loss, none.test_loss).mean("text"),
        "loss on copies": lost(copies(data), copies(none)).mean("paragraph"),
        "prefix matching": fall(data.prefix_matching, none.prefix_matching, 0.0).mean("list"),
        "copying": fall(data.copying, none.copying, 0.5).mean("list"),
    }
    joined = xr.concat(list(found.values()), xr.Variable("measure", list(found)))
    return joined.transpose("measure", "seed", "repeats").rename("share_lost")


def figures(measured: Measured, folder: Path) -> list[Path]:
    """Write what is lost, and the loss by copy, as pages that need nothing else."""
    by_copy = measured.data.copy_loss.mean("paragraph").rename("loss")
    drawn = {
        "lost": ml.plots.lines(
            shares(measured), x="repeats", title="Share lost against no repetition"
        ),
        "copies": ml.plots.lines(
            by_copy.transpose("repeats", "seed", "copy"),
            x="copy",
            title="Loss on each copy of a held-out paragraph, nats, by repetitions in training",
        ),
    }
    return [ml.plots.write_html(figure, folder / f"{kind}.html") for kind, figure in drawn.items()]
