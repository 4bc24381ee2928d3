"""Facts in Mamba: where are they restored, and where can they be edited?

python studies/mamba_facts/study.py [--train-only] [--cases 20] [--facts 40] [--seed 0]

Trains a small Mamba on the facts of `atlas` first, or takes the one that was trained before; a
killed run goes on where it was. Exit code: 0 when every claim that applies holds on the model and
fails on an untrained model of the same shape; 1 when not; 2 when the study could not be run.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mamba_claims import CLAIMS, Measured
from mamba_report import figures, number_table
from mamba_sweep import Sweep, edit_cases
from mamba_training import RELATIONS, Recipe, facts, trained

import mechlab as ml


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    least = {"cases": 2, "facts": 2, "control": 2, "samples": 1, "steps": 1}
    least |= {"layers": 3, "edit_steps": 1}
    if wrong := [
        f"--{n.replace('_', '-')} from {m}" for n, m in least.items() if vars(options)[n] < m
    ]:
        print(f"OptionError: whole numbers: {'; '.join(wrong)}.", file=sys.stderr)
        return 2
    try:
        with warnings.catch_warnings():
            # Whether a fact is known is told by the first token of its answer.
            warnings.filterwarnings("ignore", message=".*answers have several tokens")
            return study(options)
    except ml.MechlabError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add, recipe = made.add_argument, Recipe()
    add("--train-only", action="store_true", help="train the model, say what it knows, and stop")
    add("--layers", type=int, default=recipe.layers, help="of the model that is trained")
    add("--width", type=int, default=recipe.width, help="of its residual stream")
    add("--steps", type=int, default=recipe.steps, help="of its training")
    add("--relation", default="capital", choices=RELATIONS, help="which facts are edited")
    add("--facts", type=int, default=40, help="facts that are traced")
    add("--samples", type=int, default=3, help="other subjects in the place of each")
    add("--cases", type=int, default=20, help="edits of every layer and projection")
    add("--all-facts", action="store_true", help="edit also what the model does not know")
    add("--edit-steps", type=int, default=20, help="of the optimisation of each edit")
    add("--control", type=int, default=6, help="the same on the untrained model")
    add("--seed", type=int, default=0, help="of training, facts, edits and untrained weights")
    add("--out", type=Path, default=Path("cache/studies/mamba_facts"))
    return made


def study(options: argparse.Namespace) -> int:
    """Train, measure on the model and on an untrained one, and test every claim on both."""
    store = ml.Store()
    recipe = Recipe(
        seed=options.seed, layers=options.layers, width=options.width, steps=options.steps
    )
    folder = trained(recipe, store, report=_Reporter(recipe.steps))
    model = ml.load_model(str(folder))
    known = {text: knowledge(model, held, options) for text, held in HELD.items()}
    for text, share in known.items():
        print(f"known, {text}: {100 * share:.1f} %")
    print(folder)
    if options.train_only:
        return 0
    count = max(options.cases, options.control)
    asked = None if options.all_facts else model
    cases = edit_cases(asked, options.relation, count, options.seed)
    control = ml.untrained(model, options.seed)
    measured = measure(model, store, cases[: options.cases], options)
    other = measure(control, store, cases[: options.control], options)
    finding = ml.claims.Finding(
        "Facts in a small Mamba",
        CLAIMS,
        ml.claims.judge(CLAIMS, measured),
        ml.claims.judge(CLAIMS, other),
        about=[about(measured, recipe, known, options)],
        numbers=number_table(measured, other),
        record={
            "model": model.name,
            "fingerprint": model.fingerprint,
            "versions": json.loads(measured.trace.attrs["versions"]),
            "options": {k: str(v) for k, v in vars(options).items() if k != "out"},
            "known": known,
        },
    )
    print(finding.markdown())
    for path in [*finding.write(options.out), *figures(measured, options.out)]:
        print(path)
    return finding.exit_code


HELD = {"sentences of the training": False, "sentences held out": True}


def knowledge(model: ml.Model, held_out: bool, options: argparse.Namespace) -> float:
    """Return the share of facts whose answer's first token comes first, of 200 drawn."""
    asked = facts(held_out=held_out)
    drawn = np.random.default_rng(options.seed).choice(len(asked), 200, replace=False)
    chosen = ml.prompts.PromptSet(tuple(asked[index] for index in drawn))
    try:
        return len(ml.keep_known(model, chosen)) / len(chosen)
    except ml.PromptError:  # none is known
        return 0.0


def measure(
    model: ml.Model,
    store: ml.Store,
    cases: Sequence[ml.prompts.EditCase],
    options: argparse.Namespace,
) -> Measured:
    """Trace facts, and edit every case in every layer and projection."""
    asked = ml.prompts.world_facts(options.facts, options.seed, relations=[options.relation])
    started = time.monotonic()
    trace = store.run(
        ml.causal_trace,
        model,
        asked,
        sites=["resid_post", "mixer_out"],
        corruption="interchange",
        samples=options.samples,
        known_only=False,
        score="target",
        seed=options.seed,
    )
    print(f"{model.name}: traced, {time.monotonic() - started:.0f} s", file=sys.stderr)
    swept = Sweep(model, store, cases, options.seed, options.edit_steps).all_layers()
    print(f"{model.name}: edited, {time.monotonic() - started:.0f} s", file=sys.stderr)
    return Measured(trace, swept)


def about(
    measured: Measured, recipe: Recipe, known: dict[str, float], options: argparse.Namespace
) -> str:
    """Return what was measured, in two sentences."""
    shares = " and ".join(f"{100 * share:.1f} % in {text}" for text, share in known.items())
    return (
        f"{recipe.layers} layers of width {recipe.width}, {recipe.steps} steps of training; of 200 "
        f"facts each it knows {shares}. {measured.trace.sizes['prompt']} facts "
        f"({options.relation}) traced; {measured.sweep.sizes['case']} known ones edited one at a "
        f"time in every layer and projection, {options.control} on the untrained model."
    )


class _Reporter:
    """Prints every hundredth step of the training."""

    def __init__(self, steps: int) -> None:
        self.steps, self.began = steps, time.monotonic()

    def __call__(self, step: int, loss: float) -> None:
        if step % 100 == 0 or step == self.steps:
            seconds = time.monotonic() - self.began
            text = f"step {step} of {self.steps}, loss {loss:.3f} nats, {seconds:.0f} s"
            print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
