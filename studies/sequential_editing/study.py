"""Many edits of one model: one after another with ROME and R-ROME, and at once with MEMIT.

python studies/sequential_editing/study.py [--model atlas] [--count 40] [--batch 100] [--seed 0]

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
from sequence_claims import CLAIMS, R_ROME, ROME, Measured
from sequence_report import number_table

import mechlab as ml

MEMIT_OF_ATLAS = {
    "clamp": 5.0,
    "decay_weight": 0.0,
    "stop_loss": 0.2,
    "moment_weight": 100.0,
}
"""As for single edits, the paper's decay and clamp forbid what `atlas` needs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*answers have several tokens")
            finding = study(options)
    except ml.MechlabError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(finding.markdown())
    for path in finding.write(options.out / finding.record["model"].replace("/", "--")):
        print(path)
    return finding.exit_code


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = made.add_argument
    add("--model", default="atlas", help="shipped model, local folder or hub name")
    add("--count", type=int, default=40, help="edits made one after another")
    add("--batch", type=int, default=100, help="edits made at once: up to 197")
    add("--control-count", type=int, default=4, help="edits of the untrained model, of each kind")
    add("--every", type=int, default=10, help="edits between two measurements")
    add("--layer", type=int, help="of ROME; default: the one known for the model, else the middle")
    add("--layers", nargs="+", type=int, help="of MEMIT; default: from the first to that layer")
    add("--steps", type=int, default=40, help="of each optimisation")
    add("--moment-weight", type=float, help="MEMIT: tokens of text that weigh against the edits")
    add("--tokens", type=int, default=100_000, help="of the key statistics")
    add("--seed", type=int, default=0, help="of requests, contexts, texts and untrained weights")
    add("--device", default="auto")
    add("--out", type=Path, default=Path("cache/studies/sequential_editing"))
    return made


def study(options: argparse.Namespace) -> ml.claims.Finding:
    """Edit the model and an untrained one, and test every claim on both."""
    model = ml.load_model(options.model, device=options.device)
    most = max(options.count, options.batch)
    cases = ml.prompts.edit_cases(
        ml.prompts.world_edits(most, options.seed), paraphrases=2, seed=options.seed
    )
    control = cases[: max(1, options.control_count)]
    measured = measure(model, cases[: options.count], cases[: options.batch], options)
    untrained = measure(ml.untrained(model, options.seed), control, control, options)
    return ml.claims.Finding(
        f"Many edits of {model.name}",
        CLAIMS,
        ml.claims.judge(CLAIMS, measured),
        ml.claims.judge(CLAIMS, untrained),
        about=[
            f"{options.count} facts edited one after another in layer "
            f"{measured.turns[R_ROME].attrs['edit_layer']}, {options.batch} at once in layers "
            f"{layers_of(model, options)}; the untrained model has {len(control)} of each."
        ],
        numbers=number_table(measured),
        record={
            "model": model.name,
            "fingerprint": model.fingerprint,
            "versions": json.loads(measured.batches.attrs["versions"]),
            "options": {k: str(v) for k, v in vars(options).items() if k not in ("out", "device")},
        },
    )


def layer_of(model: ml.Model, options: argparse.Namespace) -> int:
    """Return the layer of single edits."""
    if options.layer is not None:
        return int(options.layer)
    return int(ml.edit_settings(model).get("layer", model.n_layers // 2))


def layers_of(model: ml.Model, options: argparse.Namespace) -> list[int]:
    """Return the layers that MEMIT spreads its edits over."""
    return options.layers or list(range(layer_of(model, options) + 1))


def measure(
    model: ml.Model,
    in_turn: ml.prompts.PromptSet,
    at_once: ml.prompts.PromptSet,
    options: argparse.Namespace,
) -> Measured:
    """Edit in turn with both variants, and at once in batches of several sizes."""
    layer, layers = layer_of(model, options), layers_of(model, options)
    single, many = settings_of(model, options)
    store = ml.Store()
    common = {
        "key_statistics": ml.stored_key_statistics(
            store,
            model,
            layer=sorted({layer, *layers}),
            tokens=options.tokens,
            seed=options.seed,
        ),
        "seed": options.seed,
    }
    turns = {
        variant: _run(
            store, model, ml.sequential_edits, in_turn, layer=layer, every=options.every,
            variant=variant, settings=single, **common,
        )
        for variant in (ROME, R_ROME)
    }  # fmt: skip
    sizes = sorted({min(n, len(at_once)) for n in (1, 10, len(in_turn), len(at_once))})
    batches = _run(
        store, model, ml.batch_edits, at_once, layers=layers, sizes=sizes, settings=many, **common
    )
    return Measured(turns, batches)


def settings_of(
    model: ml.Model, options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of single edits and of MEMIT."""
    known = {k: v for k, v in ml.edit_settings(model).items() if k != "layer"}
    many = dict(MEMIT_OF_ATLAS) if known else {}
    if options.moment_weight is not None:
        many["moment_weight"] = options.moment_weight
    return {**known, "steps": options.steps}, {**many, "steps": options.steps}


def _run(
    store: ml.Store, model: ml.Model, method: Any, cases: ml.prompts.PromptSet, **options: Any
) -> xr.Dataset:
    started = time.monotonic()
    result: xr.Dataset = store.run(method, model, cases, **options)
    about = f"{model.name}: {method.__name__} {options.get('variant', '')}, {len(cases)} edits"
    print(f"{about}, {time.monotonic() - started:.1f} s", file=sys.stderr)
    return result


if __name__ == "__main__":
    sys.exit(main())
