"""Repeated data: what does reading some rows again and again do to copying and induction?

python studies/repeated_data/study.py [--train-only] [--repeats 10 100 1000] [--seeds 0 1]

Trains small models first, or takes those that were trained before; a killed run goes on where it
was. Exit code: 0 when every claim holds on the models and fails on untrained ones of their shape;
1 when not; 2 when the study could not be run.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from repeated_claims import CLAIMS, Measured
from repeated_measure import held_out, measure
from repeated_report import figures, number_table
from repeated_training import Recipe, trained

import mechlab as ml


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    if wrong := list(_wrong(options)):
        print(f"OptionError: {'; '.join(wrong)}.", file=sys.stderr)
        return 2
    try:
        return study(options)
    except ml.MechlabError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add, recipe = made.add_argument, Recipe()
    add("--train-only", action="store_true", help="train the models and stop")
    add("--share", type=float, default=0.25, help="of all rows that are repeated ones")
    add("--repeats", type=int, nargs="+", default=[10, 100, 1000], help="of each of them, rising")
    add("--seeds", type=int, nargs="+", default=[0, 1], help="of weights and data, one model each")
    add("--steps", type=int, default=recipe.steps, help="of each training")
    add("--width", type=int, default=recipe.width, help="of the residual stream")
    add("--layers", type=int, default=recipe.layers, help="of each model")
    add("--count", type=int, default=32, help="held-out lists, paragraphs and texts")
    add("--out", type=Path, default=Path("cache/studies/repeated_data"))
    return made


def _wrong(options: argparse.Namespace) -> list[str]:
    """Return what is wrong with the options, all of it."""
    wrong = [
        f"--{name} takes whole numbers from {least}"
        for name, least in {"steps": 1, "layers": 1, "width": 8, "count": 4}.items()
        if vars(options)[name] < least
    ]
    if options.width % (2 * Recipe().heads):
        wrong.append(f"--width takes multiples of {2 * Recipe().heads}")
    if not 1 / Recipe().rows <= options.share < 1:
        wrong.append(f"--share takes numbers from {1 / Recipe().rows:g} to below 1")
    repeats = options.repeats
    if len(repeats) < 3 or repeats[0] < 2 or sorted(set(repeats)) != repeats:
        wrong.append("--repeats takes three or more rising whole numbers from 2")
    if len(set(options.seeds)) < len(options.seeds) or min(options.seeds) < 0:
        wrong.append("--seeds takes different whole numbers from 0")
    return wrong


def recipes(options: argparse.Namespace) -> list[list[Recipe]]:
    """Return the recipes `[repeats, seed]`; the first row repeats nothing."""
    shape = {"steps": options.steps, "width": options.width, "layers": options.layers}
    kinds = [(0.0, 1), *((options.share, repeats) for repeats in options.repeats)]
    return [
        [Recipe(share=share, repeats=repeats, seed=seed, **shape) for seed in options.seeds]
        for share, repeats in kinds
    ]


def study(options: argparse.Namespace) -> int:
    """Train, measure the models and as many untrained ones, and test every claim on both."""
    store, grid = ml.Store(), recipes(options)
    folders = [[_folder(recipe, store) for recipe in row] for row in grid]
    if options.train_only:
        for row in folders:
            print(*row, sep="\n")
        return 0
    models = [[ml.load_model(str(one), prepend_bos=True) for one in row] for row in folders]
    fresh = [
        [ml.untrained(one, 100 * i + j) for j, one in enumerate(row)]
        for i, row in enumerate(models)
    ]
    held = held_out(options.count, grid[0][0].words, grid[0][0].copied)
    measured, control = (
        Measured(
            measure(store, rows, held).assign_coords(
                repeats=[1, *options.repeats], seed=options.seeds
            )
        )
        for rows in (models, fresh)
    )
    finding = ml.claims.Finding(
        "Repeated data",
        CLAIMS,
        ml.claims.judge(CLAIMS, measured),
        ml.claims.judge(CLAIMS, control),
        about=[about(grid, options)],
        numbers=number_table(measured, control),
        record={
            "options": {k: str(v) for k, v in vars(options).items() if k != "out"},
            "models": [[one.fingerprint for one in row] for row in models],
        },
    )
    print(finding.markdown())
    for path in [*finding.write(options.out), *figures(measured, options.out)]:
        print(path)
    return finding.exit_code


def about(grid: Sequence[Sequence[Recipe]], options: argparse.Namespace) -> str:
    """Return what was trained."""
    one = grid[1][0]
    different = " / ".join(f"{row[0].distinct:,}" for row in grid[1:])
    times = " / ".join(f"{repeats:,}" for repeats in options.repeats)
    return (
        f"{len(options.seeds)} seeds of models of {one.layers} layers and width {one.width}, each "
        f"trained on {one.steps * one.rows:,} rows of {one.words} words: all unique, or "
        f"{100 * one.repeated_rows / one.rows:g} % of them {different} rows, read {times} times."
    )


def _folder(recipe: Recipe, store: ml.Store) -> Path:
    began = time.monotonic()

    def report(step: int, loss: float) -> None:
        if step % 200 == 0 or step == recipe.steps:
            told = f"{recipe.repeats} times, seed {recipe.seed}: step {step} of {recipe.steps}"
            text = f"{told}, loss {loss:.3f} nats, {time.monotonic() - began:.0f} s"
            print(text, file=sys.stderr, flush=True)

    return trained(recipe, store, report=report)


if __name__ == "__main__":
    sys.exit(main())
