"""Does tracing tell where to edit? Facts traced, and edited in every layer.

python studies/edit_where_traced/study.py [--model atlas] [--count 12] [--seed 0]

Exit code: 0 when every claim that applies holds on the model and fails on an untrained model of
the same shape; 1 when not; 2 when the study could not be run.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from where_claims import CLAIMS, Measured
from where_report import figure, number_table

import mechlab as ml

RELATIONS = ("capital", "language", "currency", "continent")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            # Traces score the first token of an answer, as the README says.
            warnings.filterwarnings("ignore", message=".*answers have several tokens")
            finding, measured = study(options)
        out = options.out / finding.record["model"].replace("/", "--")
        print(finding.markdown())
        for path in [*finding.write(out), figure(measured.story, out)]:
            print(path)
    except ml.MechlabError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return finding.exit_code


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = made.add_argument
    add("--model", default="atlas", help="shipped model, local folder or hub name")
    add("--count", type=int, default=12, help="facts drawn from the country table")
    add("--control-count", type=int, default=2, help="of them, for the untrained model")
    add("--relations", nargs="+", default=["capital"], choices=RELATIONS)
    add("--all-facts", action="store_true", help="edit also what the model does not know")
    add("--layers", nargs="+", type=int, help="where to edit; default: every layer")
    add("--variant", default="r-rome", choices=("r-rome", "rome", "p-rome"))
    add("--steps", type=int, default=40, help="of each optimisation")
    add("--tokens", type=int, default=100_000, help="of the key statistics")
    add("--samples", type=int, default=10, help="corrupted runs per fact")
    add("--seed", type=int, default=0, help="of facts, noise, contexts and untrained weights")
    add("--device", default="auto")
    add("--out", type=Path, default=Path("cache/studies/edit_where_traced"))
    return made


def study(options: argparse.Namespace) -> tuple[ml.claims.Finding, Measured]:
    """Trace and edit on the model and on an untrained one, and test every claim on both."""
    model = ml.load_model(options.model, device=options.device)
    cases = chosen_cases(model, options)
    measured = measure(model, cases, options)
    control = measure(
        ml.untrained(model, options.seed), cases[: max(1, options.control_count)], options
    )
    finding = ml.claims.Finding(
        f"Where to edit {model.name}",
        CLAIMS,
        ml.claims.judge(CLAIMS, measured),
        ml.claims.judge(CLAIMS, control),
        about=[
            f"{len(cases)} facts"
            f"{'' if options.all_facts else ' that the model knows'}, each traced and edited in "
            f"{int(measured.story.score.notnull().sum())} layers, {options.variant}; the untrained "
            f"model has {control.story.sizes['case']} of them."
        ],
        numbers=number_table(measured),
        record={
            "model": model.name,
            "fingerprint": model.fingerprint,
            "versions": json.loads(measured.story.attrs["versions"]),
            "options": {k: str(v) for k, v in vars(options).items() if k not in ("out", "device")},
        },
    )
    return finding, measured


def chosen_cases(model: ml.Model, options: argparse.Namespace) -> ml.prompts.PromptSet:
    """Draw requests, keep those whose fact the model knows, and build their cases."""
    drawn = ml.prompts.world_edits(2 * options.count, options.seed, relations=options.relations)
    if not options.all_facts:
        facts = [request.fact for request in drawn]
        kept = {fact.prompt for fact in ml.keep_known(model, facts)}
        drawn = [request for request in drawn if request.prompt in kept]
    return ml.prompts.edit_cases(drawn[: options.count], seed=options.seed)


def measure(model: ml.Model, cases: ml.prompts.PromptSet, options: argparse.Namespace) -> Measured:
    """Trace, edit in every layer, evaluate, and compare."""
    started, store = time.monotonic(), ml.Store()
    layers = list(range(model.n_layers)) if options.layers is None else options.layers
    known = {k: v for k, v in ml.edit_settings(model).items() if k != "layer"}
    story = store.run(
        ml.localize_edit_verify,
        model,
        cases,
        layers=layers,
        variant=options.variant,
        key_statistics=ml.stored_key_statistics(
            store, model, layer=layers, tokens=options.tokens, seed=options.seed
        ),
        settings={**known, "steps": options.steps},
        samples=options.samples,
        seed=options.seed,
    )
    seconds = time.monotonic() - started
    print(
        f"{model.name}: {len(cases)} facts, {len(layers)} layers, {seconds:.1f} s", file=sys.stderr
    )
    return Measured(story, ml.trace_edit_agreement(story, seed=options.seed))


if __name__ == "__main__":
    sys.exit(main())
