"""DeCoRe: do answers follow the context more when retrieval heads are contrasted?

python studies/decore/study.py [--model atlas] [--count 96] [--controls 5] [--seed 0]

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
from typing import Any

import xarray as xr
from decore_claims import BASE, CLAIMS, CONTRAST, Measured
from decore_report import number_table

import mechlab as ml

Prompts = ml.prompts.PromptSet


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    least = {"controls": 1, "depths": 1, "heads": 1}
    given = {name: vars(options)[name] for name in least}
    if wrong := [f"--{n}" for n, m in least.items() if given[n] is not None and given[n] < m]:
        print(f"OptionError: {', '.join(wrong)}: whole numbers from 1.", file=sys.stderr)
        return 2
    try:
        with warnings.catch_warnings():
            # Answers are told apart by their first token, as conflicts are built.
            warnings.filterwarnings("ignore", message=".*answers have several tokens")
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
    add("--count", type=int, default=96, help="conflicts about capitals")
    add("--facts", type=int, default=120, help="closed-book questions")
    add("--all-facts", action="store_true", help="ask also what the model does not know")
    add("--heads", type=int, help="how many heads are contrasted; default: all retrieval heads")
    add("--alpha", default="entropy", type=_alpha, help="entropy, or a number")
    add("--mask", default="uniform", choices=("uniform", "zero"))
    add("--phase", default="decode", choices=("decode", "all"))
    add("--controls", type=int, default=5, help="random sets of as many heads")
    add(
        "--form",
        default=None,
        choices=ml.prompts.NEEDLE_FORMS,
        help="of needles; default: text, on atlas its own",
    )
    add("--depths", type=int, default=5, help="of needles: how many, from 0 to 100 per cent")
    add("--needles", nargs="+", type=int, help="lengths; default 128 256, or 1000 2000")
    add("--seed", type=int, default=0, help="of prompts, controls and untrained weights")
    add("--device", default="auto")
    add("--dtype", default="float32")
    add("--out", type=Path, default=Path("cache/studies/decore"))
    return made


def _alpha(text: str) -> Any:
    """Return the rule or the number that a text names; argparse refuses what is neither."""
    return text if text == "entropy" else float(text)


def study(options: argparse.Namespace) -> tuple[ml.claims.Finding, str]:
    """Measure on the model and on an untrained one, and test every claim on both."""
    model = ml.load_model(options.model, device=options.device, dtype=options.dtype)
    small = options.model == "atlas"
    needles = ml.prompts.needles(
        options.needles or ([128, 256] if small else [1000, 2000]),
        options.depths,
        form=options.form or ("atlas" if small else "text"),
        count=2,
        seed=options.seed,
    )
    pairs = ml.prompts.capital_conflicts(options.count, options.seed, model=model)
    asked = ml.prompts.world_facts(options.facts, options.seed)
    facts = asked if options.all_facts else ml.keep_known(model, asked)
    measured = measure(model, needles, pairs, facts, options)
    control = measure(ml.untrained(model, options.seed), needles, pairs, facts, options)
    finding = ml.claims.Finding(
        f"DeCoRe on {model.name}",
        CLAIMS,
        ml.claims.judge(CLAIMS, measured),
        ml.claims.judge(CLAIMS, control),
        about=[
            f"{len(measured.heads)} heads found on {len(needles)} needle prompts; "
            f"{len(pairs)} conflicts between context and memory, {len(facts)} closed-book "
            f"questions{'' if options.all_facts else ' that the model answers'}; alpha "
            f"{options.alpha}, mask {options.mask}, phase {options.phase}."
        ],
        numbers=number_table(measured, control, model.name),
        record={
            "model": model.name,
            "fingerprint": model.fingerprint,
            "versions": json.loads(measured.conflicts[BASE].attrs["versions"]),
            "options": {k: str(v) for k, v in vars(options).items() if k not in ("out", "device")},
            "heads": [str(head) for head in measured.heads],
        },
    )
    return finding, model.name


def measure(
    model: ml.Model, needles: Prompts, pairs: Prompts, facts: Prompts, options: argparse.Namespace
) -> Measured:
    """Find heads on needles, then write answers with each way of decoding."""
    scores = _run(model, ml.retrieval_score, needles, max_new_tokens=12)
    score = scores.retrieval_score if scores.success.any() else scores.retrieval_score_all
    mean = score.mean("prompt")
    chosen = ml.retrieval_heads(scores) or ml.top_heads(mean, k=1)
    heads = ml.top_heads(mean, k=options.heads or len(chosen))
    rest = mean.size - len(heads)
    ways: dict[str, ml.DeCoRe | None] = {BASE: None, CONTRAST: _rule(heads, options)}
    for draw in range(options.controls):
        random = ml.random_heads(
            model, min(len(heads), rest), seed=options.seed + draw, exclude=heads
        )
        ways[f"random {draw}"] = _rule(random, options)
    written = {
        name: {
            way: _run(model, ml.generate, prompts, max_new_tokens=4, decode=rule)
            for way, rule in ways.items()
        }
        for name, prompts in (("conflicts", pairs), ("closed", facts))
    }
    return Measured(pairs, facts, heads, written["conflicts"], written["closed"], [*ways][2:])


def _rule(heads: Sequence[ml.Head], options: argparse.Namespace) -> ml.DeCoRe:
    return ml.DeCoRe(tuple(heads), alpha=options.alpha, mask=options.mask, phase=options.phase)


def _run(model: ml.Model, method: Any, prompts: Prompts, **options: Any) -> xr.Dataset:
    started = time.monotonic()
    result: xr.Dataset = ml.Store().run(method, model, prompts, **options)
    seconds = time.monotonic() - started
    print(
        f"{model.name}: {method.__name__}, {len(prompts)} prompts, {seconds:.1f} s", file=sys.stderr
    )
    return result


if __name__ == "__main__":
    sys.exit(main())
