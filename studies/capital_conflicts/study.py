"""Context against memory: the claims of Yu et al. 2023 on capitals, on a model of choice.

python studies/capital_conflicts/study.py [--model atlas] [--count 96] [--controls 5] [--seed 0]

`answer` is what the context states, `wrong_answer` what the model memorised: positive attributions
write the in-context answer, negative ones the memorised answer.

Exit code: 0 when every claim holds on the model and fails on an untrained model of the same shape;
1 when not; 2 when the study could not be run.
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
from capital_claims import CLAIMS, SIGN, Measured, Part, Side, choose_alpha, choose_heads
from capital_report import figures, number_table

import mechlab as ml

FORMS = ("repeat", "paraphrase", "reported", "question")
"""The first one is chosen and tested on, the others are tested on."""
GRID = (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0)

Pairs = ml.prompts.PromptSet


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
    for path in [*paths, *figures(name, measured.held, out)]:
        print(path)
    return finding.exit_code


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = made.add_argument
    add("--model", default="atlas", help="shipped model, local folder or hub name")
    add("--count", type=int, default=96, help="pairs per wording, drawn from the country table")
    add("--controls", type=int, default=5, help="random heads of the same layer per head")
    add("--forms", nargs="+", default=list(FORMS), choices=ml.prompts.CONFLICT_FORMS)
    add("--seed", type=int, default=0, help="of pairs, halves, controls and untrained weights")
    add("--device", default="auto")
    add("--dtype", default="float32")
    add("--out", type=Path, default=Path("cache/studies/capital_conflicts"))
    return made


def study(options: argparse.Namespace) -> tuple[ml.claims.Finding, str, Measured]:
    """Measure on the model and on an untrained one, and test every claim on both."""
    model = ml.load_model(options.model, device=options.device, dtype=options.dtype)
    pairs = {
        form: ml.split_pairs(
            ml.prompts.capital_conflicts(options.count, options.seed, form=form, model=model),
            seed=options.seed,
        )
        for form in dict.fromkeys(options.forms)
    }
    measured = measure(model, pairs, options, curve=GRID)
    control = ml.untrained(model, options.seed)
    control_measured = measure(control, pairs, options, curve=())
    hub = model.provenance["source"] == "hub"
    finding = ml.claims.Finding(
        f"Context against memory on {model.name}",
        CLAIMS,
        ml.claims.judge(CLAIMS, measured),
        ml.claims.judge(CLAIMS, control_measured),
        about=[_about(measured)],
        numbers=number_table(measured, control_measured, model.name, hub),
        record=_record(model, measured, options),
    )
    return finding, model.name, measured


def _about(measured: Measured) -> str:
    select, held = len(measured.select.pairs), len(measured.held.pairs)
    return (
        f"Heads and factors chosen on {select} pairs, tested on {held} pairs about other countries "
        f"({', '.join(measured.others) or 'no other wording'} beside). Positive attributions write "
        "the in-context answer, negative ones the memorised answer."
    )


def _record(model: ml.Model, measured: Measured, options: argparse.Namespace) -> dict[str, object]:
    return {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "versions": json.loads(measured.held.scaling.attrs["versions"]),
        "options": {k: str(v) for k, v in vars(options).items() if k not in ("out", "device")},
        "heads": {side: str(head) for side, head in measured.heads.items()},
        "alpha": dict(measured.alpha),
    }


def measure(
    model: ml.Model,
    pairs: dict[str, tuple[Pairs, Pairs]],
    options: argparse.Namespace,
    *,
    curve: Sequence[float],
) -> Measured:
    """Choose heads and factors on one half, measure on the other, in every wording.

    Args:
        model: the model.
        pairs: per wording, the pairs to choose on and the held-out ones.
        options: seed and number of controls.
        curve: factors to measure on the held-out pairs besides the chosen ones.
    """
    first, *rest = pairs
    select, held = pairs[first]
    direct = _attribution(model, select)
    heads = choose_heads(direct)
    tuned = _scaling(model, select, heads, GRID, 0, options.seed)
    alpha = choose_alpha(tuned)
    factors = sorted({1.0, *alpha.values()})

    def part(chosen: Pairs, grid: Sequence[float]) -> Part:
        scaled = _scaling(model, chosen, heads, grid, options.controls, options.seed)
        return Part(chosen, _attribution(model, chosen), scaled)

    return Measured(
        select=Part(select, direct, tuned),
        held=part(held, sorted({*factors, *curve})),
        others={form: part(pairs[form][1], factors) for form in rest},
        heads=heads,
        alpha=alpha,
    )


def _attribution(model: ml.Model, pairs: Pairs) -> xr.DataArray:
    result = _run(model, ml.direct_logit_attribution, pairs)
    found: xr.DataArray = result.head_attribution
    return found


def _scaling(
    model: ml.Model,
    pairs: Pairs,
    heads: dict[Side, ml.Head],
    grid: Sequence[float],
    controls: int,
    seed: int,
) -> xr.Dataset:
    sets = {side: [str(heads[side])] for side in SIGN}
    options = {"heads": sets, "alpha": list(grid), "controls": controls, "seed": seed}
    return _run(model, ml.scale_heads, pairs, **options)


def _run(model: ml.Model, method: Any, pairs: Pairs, **options: Any) -> xr.Dataset:
    started = time.monotonic()
    result: xr.Dataset = ml.Store().run(method, model, pairs, **options)
    seconds = time.monotonic() - started
    about = f"{model.name}: {method.__name__}, {len(pairs)} pairs of {pairs.name}, {seconds:.1f} s"
    print(about, file=sys.stderr)
    return result


if __name__ == "__main__":
    sys.exit(main())
