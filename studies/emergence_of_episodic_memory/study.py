"""Emergence of episodic memory: when in training do attention and output become like recall?

python studies/emergence_of_episodic_memory/study.py [--model echo] [--checkpoints 0 1000 4000]

Exit code: 0 when every claim that applies holds on the model and fails on untrained models of the
same shape; 1 when not; 2 when the study could not be run.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from emergence_claims import CLAIMS
from emergence_measure import MARGIN, Measured, lists_of, measure, trained, untrained
from emergence_report import figures, number_table

import mechlab as ml

LEAST = {"count": 4, "length": 2 * MARGIN + 4, "probes": 1, "draws": 1, "seed": 0}
CONTROLS = 8
"""Untrained models that stand for checkpoints, at most."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    wrong = [f"--{n} from {m}" for n, m in LEAST.items() if vars(options)[n] < m]
    if options.probes > options.length - 2 * MARGIN:
        wrong.append(f"--probes up to --length minus {2 * MARGIN}")
    if options.checkpoints is not None and len(set(options.checkpoints)) < 3:
        wrong.append("--checkpoints: three different steps or more")
    if wrong:
        print(f"OptionError: whole numbers: {', '.join(wrong)}.", file=sys.stderr)
        return 2
    try:
        return study(options)
    except ml.MechlabError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = made.add_argument
    add("--model", default="echo", help="shipped model, or hub name with revisions step<number>")
    add("--checkpoints", nargs="+", type=int, help="training steps; default: all that are shipped")
    add("--count", type=int, default=8, help="lists of each kind")
    add("--length", type=int, default=60, help="tokens of a list")
    add("--probes", type=int, default=5, help="places of each list that are probed, one a prompt")
    add("--draws", type=int, default=20, help="random sets beside the induction heads")
    add("--seed", type=int, default=0, help="of lists, draws and untrained weights")
    add("--device", default="auto")
    add("--dtype", default="float32")
    add("--out", type=Path, default=Path("cache/studies/emergence_of_episodic_memory"))
    return made


def study(options: argparse.Namespace) -> int:
    """Measure the course of training and one without any, test every claim on both."""
    how = {"device": options.device, "dtype": options.dtype}
    steps = options.checkpoints or list(ml.organisms.checkpoints(options.model))
    if not steps:
        raise ml.OptionError(
            f"{options.model} comes with no checkpoints. Allowed: echo, or --checkpoints of a hub "
            "model with revisions step<number>. Name its steps."
        )
    steps = sorted(set(steps))
    last = ml.load_model(options.model, checkpoint=steps[-1], **how)
    lists = lists_of(options.count, options.length, options.probes, options.seed)
    most = {"draws": options.draws, "seed": options.seed}
    measured = measure(trained(options.model, steps, **how), last, lists, **most)
    few = steps[-CONTROLS:]
    fresh = untrained(last, few, options.seed)
    blank = ml.untrained(last, options.seed + len(few) - 1)
    control = measure(fresh, blank, lists, **most)
    finding = ml.claims.Finding(
        f"Emergence of episodic memory in {options.model}",
        CLAIMS,
        ml.claims.judge(CLAIMS, measured),
        ml.claims.judge(CLAIMS, control),
        about=[
            f"{len(steps)} checkpoints, steps {steps[0]} to {steps[-1]}; {options.count} lists of "
            f"{options.length} tokens: {options.probes} places of each probed, one probe a prompt, "
            "and as many lists read twice to find induction heads, and others to ablate them on. "
            f"Untrained: {len(few)} models with weights of their own, in the place of checkpoints."
        ],
        numbers=number_table(measured, control, options.model),
        record=_record(last, measured, steps, options),
    )
    folder = options.out / options.model.replace("/", "--")
    print(finding.markdown())
    for path in [*finding.write(folder), *figures(options.model, measured, folder)]:
        print(path)
    return finding.exit_code


def _record(
    last: ml.Model, measured: Measured, steps: Sequence[int], options: argparse.Namespace
) -> dict[str, object]:
    return {
        "model": options.model,
        "fingerprint": last.fingerprint,
        "versions": json.loads(measured.last.attrs["versions"]),
        "options": {k: str(v) for k, v in vars(options).items() if k not in ("out", "device")},
        "checkpoints": list(steps),
        "heads": [str(head) for head in measured.heads],
    }


if __name__ == "__main__":
    sys.exit(main())
