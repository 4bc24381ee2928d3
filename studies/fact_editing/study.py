"""Editing facts: rank-one edits beside fine-tuning and MEMIT, each case under its own edit.

python studies/fact_editing/study.py [--model atlas] [--count 100] [--ways R-ROME ROME FT ...]

Exit code: 0 when every claim that applies holds on the model and fails on an untrained model of
the same shape; 1 when not; 2 when the study could not be run.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from fact_editing_claims import CLAIMS, FT, FTL, MEMIT, PROME, ROME, RROME, WAYS, Measured
from fact_editing_report import number_table

import mechlab as ml

VERSION = 1
"""Raised when the measurements change."""
TUNED_ON = 20
"""Capital edits of seed 0 that the settings of `atlas` were found on; none of their countries is
edited here."""
MEMIT_SPREAD = 3
"""Layers of MEMIT: so many that end at the layer of the rank-one edits."""
VARIANTS: dict[str, Any] = {ROME: "rome", PROME: "p-rome"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    if RROME not in options.ways or options.chunk < 1 or options.control < 2:
        print("OptionError: --ways needs R-ROME, --chunk 1, --control 2.", file=sys.stderr)
        return 2
    try:
        finding, name = study(options)
    except ml.MechlabError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(finding.markdown())
    for path in finding.write(options.out / name.replace("/", "--")):
        print(path)
    return finding.exit_code


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = made.add_argument
    add("--model", default="atlas", help="shipped model, local folder or hub name")
    add("--count", type=int, default=100, help="edits of capitals, or of the file")
    add("--counterfact", type=Path, help="counterfact.json; default: capitals of the country table")
    add("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    add("--layer", type=int, help="default: what is known for the model (ml.edit_settings)")
    add("--tokens", type=int, default=200_000, help="of key statistics")
    add("--corpus", default="atlas", help="of key statistics: see ml.key_statistics")
    add("--moment-weight", type=float, default=50.0, help="of MEMIT: tokens that C stands for")
    add("--learning-rate", type=float, default=5e-3, help="of fine-tuning")
    add("--max-change", type=float, default=0.045, help="of any weight, with FT+L")
    add("--generation", type=int, default=40, help="tokens of each generated text; 0: none")
    add("--drift", type=int, default=40, help="sentences about other countries; 0: none")
    add("--control", type=int, default=20, help="edits of the untrained model")
    add("--chunk", type=int, default=10, help="cases that are kept together in the store")
    add("--seed", type=int, default=1, help="of cases, contexts and untrained weights")
    add("--device", default="auto")
    add("--dtype", default="float32")
    add("--out", type=Path, default=Path("cache/studies/fact_editing"))
    return made


def study(options: argparse.Namespace) -> tuple[ml.claims.Finding, str]:
    """Measure on the model and on an untrained one, and test every claim on both."""
    model = ml.load_model(options.model, device=options.device, dtype=options.dtype)
    cases = chosen_cases(options)
    measured = measure(model, cases, options)
    control = measure(ml.untrained(model, options.seed), cases[: options.control], options)
    finding = ml.claims.Finding(
        f"Editing facts of {model.name}",
        CLAIMS,
        ml.claims.judge(CLAIMS, measured),
        ml.claims.judge(CLAIMS, control),
        about=[
            f"{len(cases)} edits, each alone on the unedited model, layer "
            f"{layer_of(model, options)}; {min(options.control, len(cases))} on the untrained one."
        ],
        numbers=number_table(measured, control, model.name),
        record={
            "model": model.name,
            "fingerprint": model.fingerprint,
            "options": {k: str(v) for k, v in vars(options).items() if k not in ("out", "device")},
        },
    )
    return finding, model.name


def chosen_cases(options: argparse.Namespace) -> ml.prompts.PromptSet:
    """Return CounterFact records, or edits of capitals of countries that nothing was tuned on."""
    if options.counterfact is not None:
        return ml.prompts.read_counterfact(options.counterfact)[: options.count]
    known = {request.subject for request in ml.prompts.world_edits(TUNED_ON, seed=0)}
    every = len(ml.prompts.world_edits())
    drawn = ml.prompts.world_edits(every, seed=options.seed)
    others = [request for request in drawn if request.subject not in known]
    return ml.prompts.edit_cases(others[: options.count])


def layer_of(model: ml.Model, options: argparse.Namespace) -> int:
    """Return the layer that is edited.

    Raises:
        ml.OptionError: when none is given and none is known.
    """
    layer = ml.edit_settings(model).get("layer") if options.layer is None else options.layer
    if layer is None:
        raise ml.OptionError(
            f"no layer is known for {model.name}. Allowed: --layer. Trace facts first."
        )
    return int(layer)


def measure(model: ml.Model, cases: ml.prompts.PromptSet, options: argparse.Namespace) -> Measured:
    """Evaluate every way of editing, some cases at a time, each kept in the store."""
    makers = ways_of_editing(model, options)
    texts = held_out(cases, options.drift)
    reference = ml.next_token_reference(model, texts) if texts else None
    given: dict[str, Any] = {"generation_length": options.generation, "seed": options.seed}

    def before(some: ml.prompts.PromptSet) -> xr.Dataset:
        return ml.evaluate_edit(model, some, **given)

    def after(way: str) -> Callable[[ml.prompts.PromptSet], xr.Dataset]:
        def run(some: ml.prompts.PromptSet) -> xr.Dataset:
            edits = [makers[way](case.request) for case in some]
            found = ml.evaluate_each_edit(model, some, edits, reference=reference, **given)
            return found.assign(edit_norm=("case", [edit.norm for edit in edits]))

        return run

    return Measured(
        in_chunks(model, "none", before, cases, options),
        {way: in_chunks(model, way, after(way), cases, options) for way in options.ways},
    )


def in_chunks(
    model: ml.Model,
    way: str,
    run: Callable[[ml.prompts.PromptSet], xr.Dataset],
    cases: ml.prompts.PromptSet,
    options: argparse.Namespace,
) -> xr.Dataset:
    """Return a measurement of all cases; what a stopped study had finished is not done again."""
    store, parts, started = ml.Store(), [], time.monotonic()
    skipped = ("out", "count", "control", "ways", "model", "device")
    decide = {k: str(v) for k, v in vars(options).items() if k not in skipped}
    for begin in range(0, len(cases), options.chunk):
        some = cases[begin : begin + options.chunk]
        source = {
            "method": "fact_editing", "method_version": VERSION, "model": model.fingerprint,
            "options": {**decide, "way": way}, "prompts": some.digest,
        }  # fmt: skip
        part = store.kept(source)
        if part is None:
            # Consistency is left out: its word frequencies are those of the cases of one call.
            part = run(some).drop_vars("consistency")
            store.keep(source, part, name=f"{way}, cases {begin} to {begin + len(some) - 1}")
        parts.append(part)
        spent = time.monotonic() - started
        print(f"{model.name}: {way}, {begin + len(some)} cases, {spent:.0f} s", file=sys.stderr)
    return xr.concat(parts, "case", combine_attrs="override")


def held_out(cases: ml.prompts.PromptSet, count: int) -> list[str]:
    """Return true sentences about countries that are not edited."""
    edited = {case.request.subject for case in cases}
    facts = ml.prompts.world_facts(relations=("capital", "language", "currency", "continent"))
    texts = [f"{fact.prompt} {fact.target}." for fact in facts if fact.subject not in edited]
    step = max(1, len(texts) // max(count, 1))
    return texts[::step][:count]


def ways_of_editing(
    model: ml.Model, options: argparse.Namespace
) -> dict[str, Callable[[ml.EditRequest], ml.Edit]]:
    """Return what makes the edit of a request, for each way of editing."""
    layer = layer_of(model, options)
    settings = {**ml.edit_settings(model), "layer": layer, "seed": options.seed}
    layers = list(range(max(0, layer + 1 - MEMIT_SPREAD), layer + 1))
    keys = ml.stored_key_statistics(
        ml.Store(), model, layer=layers, corpus=options.corpus, tokens=options.tokens
    )
    made: dict[ml.EditRequest, ml.Edit] = {}

    def r_rome(request: ml.EditRequest) -> ml.Edit:
        if request not in made:
            made[request] = ml.rank_one_edit(model, request, key_statistics=keys, **settings)
        return made[request]

    def variant(way: str) -> Callable[[ml.EditRequest], ml.Edit]:
        kind = VARIANTS[way]
        return lambda request: ml.as_variant(model, r_rome(request), kind, key_statistics=keys)

    def tuned(bound: float | None) -> Callable[[ml.EditRequest], ml.Edit]:
        rate = options.learning_rate
        return lambda request: ml.fine_tune_edit(
            model, request, layer=layer, learning_rate=rate, max_change=bound
        )

    common = ("steps", "decay_weight", "clamp", "stop_loss")
    same = {name: settings[name] for name in common if name in settings}

    def memit(request: ml.EditRequest) -> ml.Edit:
        return ml.memit(
            model, [request], layers=layers, key_statistics=keys, seed=options.seed,
            moment_weight=options.moment_weight, **same,
        )  # fmt: skip

    return {
        RROME: r_rome, ROME: variant(ROME), PROME: variant(PROME), FT: tuned(None),
        FTL: tuned(options.max_change), MEMIT: memit,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
