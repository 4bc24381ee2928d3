"""Retrieval heads: which heads fetch a needle from the context, and what is lost without them?

python studies/retrieval_heads/study.py [--model atlas] [--lengths 128 256 480] [--depths 10]

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
from retrieval_claims import CLAIMS, Measured
from retrieval_report import figures, number_table

import mechlab as ml

CURVE = (1, 2, 4, 8, 12, 16, 20)
Prompts = ml.prompts.PromptSet


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    least = {"texts": 2, "draws": 1}  # one half of the texts finds heads, the other tests them
    if wrong := [
        f"--{n} takes whole numbers from {m}" for n, m in least.items() if vars(options)[n] < m
    ]:
        print(f"OptionError: {'; '.join(wrong)}.", file=sys.stderr)
        return 2
    try:
        with warnings.catch_warnings():
            # Whether a fact is known is told by the first token of its answer.
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
    add("--model", default="atlas", help="shipped model, local folder or hub name")
    add(
        "--form",
        default=None,
        choices=ml.prompts.NEEDLE_FORMS,
        help="default: text, on atlas its own",
    )
    add("--lengths", nargs="+", type=int, help="tokens; default 128 256 480, or 1000 2000 4000")
    add("--depths", type=int, default=10, help="how many, from 0 to 100 per cent")
    add("--texts", type=int, default=4, help="texts, each with needles of its own; half find heads")
    add("--facts", type=int, default=120, help="closed-book questions")
    add("--all-facts", action="store_true", help="ask also what the model does not know")
    add("--curve", nargs="+", type=int, default=list(CURVE), help="how many heads are masked")
    add("--draws", type=int, default=5, help="random sets of heads per k")
    add("--mask", default="uniform", choices=("uniform", "zero"))
    add("--tokens", type=int, help="new tokens at most; default 50, on atlas 12")
    add("--seed", type=int, default=0, help="of prompts, draws and untrained weights")
    add("--device", default="auto")
    add("--dtype", default="float32")
    add("--out", type=Path, default=Path("cache/studies/retrieval_heads"))
    return made


def study(options: argparse.Namespace) -> tuple[ml.claims.Finding, str, Measured]:
    """Measure on the model and on an untrained one, and test every claim on both."""
    model = ml.load_model(options.model, device=options.device, dtype=options.dtype)
    small = options.model == "atlas"
    options.form = options.form or ("atlas" if small else "text")
    options.lengths = options.lengths or ([128, 256, 480] if small else [1000, 2000, 4000])
    options.tokens = options.tokens or (12 if small else 50)
    needles = ml.prompts.needles(
        options.lengths, options.depths, form=options.form, count=options.texts, seed=options.seed
    )
    texts = list(dict.fromkeys(needles.groups))
    first = set(texts[: len(texts) // 2])
    find = needles.select([group in first for group in needles.groups])
    held = needles.select([group not in first for group in needles.groups])
    asked = ml.prompts.world_facts(options.facts, options.seed)
    facts = asked if options.all_facts else ml.keep_known(model, asked)
    closed = ml.prompts.closed_book(facts)
    measured = measure(model, find, held, closed, options)
    control = measure(ml.untrained(model, options.seed), find, held, closed, options)
    finding = ml.claims.Finding(
        f"Retrieval heads of {model.name}",
        CLAIMS,
        ml.claims.judge(CLAIMS, measured),
        ml.claims.judge(CLAIMS, control),
        about=[
            f"Heads found on {len(find)} needle prompts, tested on {len(held)} in other texts and "
            f"on {len(closed)} closed-book questions"
            f"{'' if options.all_facts else ' that the model answers'}; lengths "
            f"{', '.join(map(str, options.lengths))} tokens, mask `{options.mask}` while writing."
        ],
        numbers=number_table(measured, control, model.name),
        record=_record(model, measured, options),
    )
    return finding, model.name, measured


def measure(
    model: ml.Model, find: Prompts, held: Prompts, closed: Prompts, options: argparse.Namespace
) -> Measured:
    """Find heads on one half, mask them on the other and on closed-book questions."""
    scores = _run(model, ml.retrieval_score, find, max_new_tokens=options.tokens)
    chosen = ml.retrieval_heads(scores)
    mean = scores.retrieval_score_all.mean("prompt")
    every = ml.top_heads(mean, k=mean.size)
    ranking = [*chosen, *(head for head in every if head not in chosen)]
    # Random heads are drawn from those that are no retrieval heads: at least as many are left.
    k = max(1, min(len(chosen), mean.size // 2))
    counts = sorted({c for c in (*options.curve, k) if 0 < c <= mean.size - k})
    masking = {
        "ranking": ranking,
        "exclude": ranking[:k],
        "draws": options.draws,
        "seed": options.seed,
        "mask": options.mask,
        "max_new_tokens": options.tokens,
    }
    return Measured(
        scores,
        _run(model, ml.retrieval_curve, held, k=counts, **masking),
        _run(model, ml.retrieval_curve, closed, k=[k], **masking),
        k,
    )


def _run(model: ml.Model, method: Any, prompts: Prompts, **options: Any) -> xr.Dataset:
    started = time.monotonic()
    result: xr.Dataset = ml.Store().run(method, model, prompts, **options)
    seconds = time.monotonic() - started
    print(
        f"{model.name}: {method.__name__}, {len(prompts)} prompts, {seconds:.1f} s", file=sys.stderr
    )
    return result


def _record(model: ml.Model, measured: Measured, options: argparse.Namespace) -> dict[str, object]:
    return {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "versions": json.loads(measured.scores.attrs["versions"]),
        "options": {k: str(v) for k, v in vars(options).items() if k not in ("out", "device")},
        "heads": [str(head) for head in ml.retrieval_heads(measured.scores)],
        "k": measured.k,
    }


if __name__ == "__main__":
    sys.exit(main())
