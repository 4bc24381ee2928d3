"""Induction as memory: do heads attend by lag as people recall, and does it matter that they do?

python studies/induction_as_memory/study.py [--model atlas echo] [--count 10] [--draws 20]

Refits the published curves (`MECHLAB_DATA`), then measures models. Exit code: 0 when every claim
that applies holds and fails on its control; 1 when not; 2 when the study could not be run.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from memory_claims import claims_about
from memory_measure import Measured, Settings, measure, texts_of
from memory_published import FOLDER, PUBLISHED, SUFFIX, known_as, numbers, published_files, refit
from memory_published_claims import claims_of
from memory_report import figures, number_table, table_of_heads

import mechlab as ml

LEAST = {"count": 4, "length": 12, "draws": 1, "seed": 0}
CONTROL_DRAWS = 5
"""Random sets on the untrained model, at most."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    if wrong := [f"--{n} from {m}" for n, m in LEAST.items() if vars(options)[n] < m]:
        print(f"OptionError: whole numbers: {', '.join(wrong)}.", file=sys.stderr)
        return 2
    codes = []
    try:
        if not options.no_published:
            codes += published(options.out)
        codes += [on_model(name, options) for name in options.model]
    except (ml.MechlabError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return max(codes, default=0)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = made.add_argument
    add("--model", nargs="*", default=["atlas", "echo"], help="shipped, local folder or hub name")
    add("--no-published", action="store_true", help="leave the refit of published curves out")
    add("--count", type=int, default=10, help="lists to find heads on, and as many to ablate on")
    add("--length", type=int, default=100, help="tokens of a list; each is read twice")
    add("--draws", type=int, default=20, help="random sets of heads in place of each set")
    add("--texts", type=Path, help="file of texts for the ICL score, split at blank lines")
    add("--seed", type=int, default=0, help="of lists, draws and untrained weights")
    add("--device", default="auto")
    add("--dtype", default="float32")
    add("--out", type=Path, default=Path("cache/studies/induction_as_memory"))
    return made


# --- published curves -----------------------------------------------------------------------------


def published(out: Path) -> list[int]:
    """Refit the published curves that are there; return the exit code of each."""
    data = os.environ.get("MECHLAB_DATA")
    files = published_files(data)
    if not files:
        why = f"no {FOLDER}/*{SUFFIX} in {data}" if data else "MECHLAB_DATA is unset"
        print(f"published curves skipped: {why}", file=sys.stderr)
    return [_published(file, out) for file in files]


def _published(file: Path, out: Path) -> int:
    name = known_as(file.name.removesuffix(SUFFIX))
    if name not in PUBLISHED:
        print(f"published curves skipped: {file.name} is no model of the paper", file=sys.stderr)
        return 0
    found, shuffled = refit(file), refit(file, shuffled=True)
    claims = claims_of(name)
    beside = [value for _, value, _ in numbers(shuffled, "")]
    rows = [
        (text, own, other, told)
        for (text, own, told), other in zip(numbers(found, name), beside, strict=True)
    ]
    finding = ml.claims.Finding(
        f"Published curves of {name}, fitted again",
        claims,
        ml.claims.judge(claims, found),
        ml.claims.judge(claims, shuffled),
        about=[
            "Curves as published, fitted with our own table. In the column `untrained` stand the "
            "same curves with every head's lags in a random order of its own."
        ],
        numbers=[("measured", "refit", "lags in random order", "published"), *rows],
        record={"model": name, "file": file.name},
    )
    folder = out / f"published-{name}"
    _written(finding, folder, figures(f"{name}, published curves", found, folder))
    return finding.exit_code


# --- models ---------------------------------------------------------------------------------------


def on_model(name: str, options: argparse.Namespace) -> int:
    """Measure a model and an untrained one, test every claim on both; return the exit code."""
    model = ml.load_model(name, device=options.device, dtype=options.dtype)
    texts = texts_of(options.texts, name)
    settings = Settings(options.count, options.length, options.draws, texts, options.seed)
    measured = measure(model, settings)
    # Nothing is lost without any head there: a few random sets show that.
    fewer = replace(settings, draws=min(CONTROL_DRAWS, settings.draws))
    control = measure(ml.untrained(model, options.seed), fewer)
    claims = claims_about(model.name)
    finding = ml.claims.Finding(
        f"Induction as memory in {model.name}",
        claims,
        ml.claims.judge(claims, measured),
        ml.claims.judge(claims, control),
        about=[
            f"{settings.count} lists of {settings.length} tokens, read twice, to find heads on, "
            f"and as many to ablate them on. Attention by lag from scores before the softmax. Top "
            f"heads are {measured.found.top} of {measured.found.heads}. A distance says nothing "
            "without the peak lag and the matching score beside it."
        ],
        numbers=number_table(measured, control, model.name),
        record=_record(model, measured, options),
    )
    folder = options.out / model.name.replace("/", "--")
    _written(finding, folder, figures(model.name, measured.found, folder))
    return finding.exit_code


def _written(finding: ml.claims.Finding, folder: Path, pictures: Sequence[Path]) -> None:
    print(finding.markdown())
    for path in [*finding.write(folder), *pictures]:
        print(path)


def _record(model: ml.Model, measured: Measured, options: argparse.Namespace) -> dict[str, object]:
    sets = measured.ablated.head_set
    return {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "versions": json.loads(measured.lags.attrs["versions"]),
        "options": {k: str(v) for k, v in vars(options).items() if k not in ("out", "device")},
        "sets": dict(zip(sets.values.tolist(), sets.members.values.tolist(), strict=True)),
        "heads": table_of_heads(measured),
    }


if __name__ == "__main__":
    sys.exit(main())
