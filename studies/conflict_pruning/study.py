"""PH3: prune memory heads or context heads, and see which answer wins, on a model of choice.

python studies/conflict_pruning/study.py [--model atlas] [--count 96] [--controls 5] [--seed 0]

Exit code: 0 when every claim that applies holds on the model and fails on an untrained model of
the same shape; 1 when not; 2 when the study could not be run.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from pruning_claims import CLAIMS, Measured, Part, Side, choose_k
from pruning_report import figures, number_table

import mechlab as ml

CURVE = (1, 2, 3, 5, 8, 10)
FOUND_ON = ("capital", "repeat")
"""Relation and wording that heads are found on."""

Pairs = ml.prompts.PromptSet
Name = tuple[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    if options.controls < 1:
        print("OptionError: --controls takes whole numbers from 1.", file=sys.stderr)
        return 2
    try:
        with warnings.catch_warnings():
            # Only the first token of an answer decides which one wins, as the README says.
            warnings.filterwarnings("ignore", message=".*answers have several tokens")
            finding, name, measured = study(options)
    except ml.MechlabError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    out = options.out / name.replace("/", "--")
    paths = finding.write(out)
    print(finding.markdown())
    for path in [*paths, *figures(name, measured, out)]:
        print(path)
    return finding.exit_code


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = made.add_argument
    forms, relations = ml.prompts.CONFLICT_FORMS, ("language", "currency", "continent")
    add("--model", default="atlas", help="shipped model, local folder or hub name")
    add("--count", type=int, default=96, help="pairs per wording and relation")
    add("--controls", type=int, default=5, help="random sets of heads of the same layers")
    add("--curve", nargs="+", type=int, default=list(CURVE), help="how many heads are pruned")
    add("--forms", nargs="*", default=["reported", "distractor"], choices=forms)
    add("--coherent", nargs="*", default=["paragraph"], choices=forms)
    add("--relations", nargs="*", default=list(relations), choices=relations)
    add("--seed", type=int, default=0, help="of pairs, halves, controls and untrained weights")
    add("--device", default="auto")
    add("--dtype", default="float32")
    add("--out", type=Path, default=Path("cache/studies/conflict_pruning"))
    return made


def study(options: argparse.Namespace) -> tuple[ml.claims.Finding, str, Measured]:
    """Measure on the model and on an untrained one, and test every claim on both."""
    model = ml.load_model(options.model, device=options.device, dtype=options.dtype)
    names = [FOUND_ON]
    names += [("capital", form) for form in (*options.forms, *options.coherent)]
    names += [(relation, FOUND_ON[1]) for relation in options.relations]
    pairs = {
        (relation, form): ml.split_pairs(
            ml.prompts.conflicts(
                options.count, options.seed, relations=relation, form=form, model=model
            ),
            seed=options.seed,
        )
        for relation, form in dict.fromkeys(names)
    }
    measured = measure(model, pairs, options)
    control = measure(ml.untrained(model, options.seed), pairs, options)
    hub = model.provenance["source"] == "hub"
    finding = ml.claims.Finding(
        f"Pruning memory heads and context heads of {model.name}",
        CLAIMS,
        ml.claims.judge(CLAIMS, measured),
        ml.claims.judge(CLAIMS, control),
        about=[_about(measured)],
        numbers=number_table(measured, control, model.name, hub),
        record=_record(model, measured, options),
    )
    return finding, model.name, measured


def measure(
    model: ml.Model, pairs: Mapping[Name, tuple[Pairs, Pairs]], options: argparse.Namespace
) -> Measured:
    """Find heads and their number on one half, prune them on the other, everywhere."""
    find, held = pairs[FOUND_ON]
    found = _run(model, ml.conflict_heads, find)
    rankings = ml.conflict_rankings(found)
    depth = min(max(options.curve), len(rankings["memory"]))
    curve = sorted({k for k in options.curve if 0 < k <= depth}) or [depth]
    chosen = {side: [str(head) for head in ranked[:depth]] for side, ranked in rankings.items()}

    def pruned(of: Pairs, k: Sequence[int], controls: int, **more: Any) -> xr.Dataset:
        settings = {"heads": chosen, "k": list(k), "controls": controls, "seed": options.seed}
        return _run(model, ml.prune_heads, of, **settings, **more)

    best: dict[Side, int] = choose_k(pruned(find, curve, 0))

    def part(name: Name, k: Sequence[int]) -> Part:
        of = pairs[name][1]
        return Part(of, pruned(of, k, options.controls, found_on=find))

    few = sorted(set(best.values()))
    return Measured(
        find=find,
        found=found.conflict_score,
        scores=_run(model, ml.conflict_heads, held).conflict_score,
        rankings={"memory": rankings["memory"], "context": rankings["context"]},
        k=best,
        held=part(FOUND_ON, curve),
        forms={form: part(("capital", form), few) for form in options.forms},
        coherent={form: part(("capital", form), curve) for form in options.coherent},
        relations={name: part((name, FOUND_ON[1]), few) for name in options.relations},
        coherent_scores={
            form: _run(model, ml.conflict_heads, pairs["capital", form][0]).conflict_score
            for form in options.coherent
        },
    )


def _run(model: ml.Model, method: Any, pairs: Pairs, **options: Any) -> xr.Dataset:
    started = time.monotonic()
    result: xr.Dataset = ml.Store().run(method, model, pairs, **options)
    seconds = time.monotonic() - started
    about = f"{model.name}: {method.__name__}, {len(pairs)} pairs of {pairs.name}, {seconds:.1f} s"
    print(about, file=sys.stderr)
    return result


def _about(measured: Measured) -> str:
    return (
        f"Heads and their number found on {len(measured.find)} pairs about capitals, tested on "
        f"{len(measured.held.pairs)} pairs about other countries, and on held-out pairs in other "
        f"wordings ({', '.join([*measured.forms, *measured.coherent]) or 'none'}) and of other "
        f"relations ({', '.join(measured.relations) or 'none'}). RC: share of in-context answers; "
        "RM: share of memorised ones."
    )


def _record(model: ml.Model, measured: Measured, options: argparse.Namespace) -> dict[str, object]:
    return {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "versions": json.loads(measured.held.pruning.attrs["versions"]),
        "options": {k: str(v) for k, v in vars(options).items() if k not in ("out", "device")},
        "heads": {
            side: [str(h) for h in ranked[:10]] for side, ranked in measured.rankings.items()
        },
        "k": dict(measured.k),
    }


if __name__ == "__main__":
    sys.exit(main())
