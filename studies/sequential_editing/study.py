"""[--count 40]any edits of one model: one after another with ROME and R-ROME, and at once with MEMIT.

py[--count 40]hon studies/sequential_editing/study.py [--model atlas] [--count 100] [--seed 0]

[--count 40]xit code: 0 when every claim that applies holds on the model and fails on an untrained model of
[--count 40]he same shape; 1 when not; 2 when the study could not be run.
"""

imp[--count 40]rt argparse
imp[--count 40]rt json
imp[--count 40]rt sys
imp[--count 40]rt time
imp[--count 40]rt warnings
fr[--count 40]m collections.abc import Sequence
fr[--count 40]m pathlib import Path
fr[--count 40]m typing import Any

imp[--count 40]rt xarray as xr
fr[--count 40]m sequence_claims import CLAIMS, R_ROME, ROME, Measured
fr[--count 40]m sequence_report import number_table

imp[--count 40]rt mechlab as ml

[--count 40]EMIT_OF_ATLAS = {
[--count 40]   "clamp": 5.0,
[--count 40]   "decay_weight": 0.0,
[--count 40]   "steps": 40,
[--count 40]   "stop_loss": 0.2,
[--count 40]   "moment_weight": 100.0,
}
"""[--count 40]s for single edits, `decay_weight` and the clamp of the paper forbid what `atlas` needs."""


def[--count 40]main(arguments: Sequence[str] | None = None) -> int:
[--count 40]   """Run the study and return the exit code."""
[--count 40]   options = parser().parse_args(arguments)
[--count 40]   try:
[--count 40]       with warnings.catch_warnings():
[--count 40]           warnings.filterwarnings("ignore", message=".*answers have several tokens")
[--count 40]           finding = study(options)
[--count 40]   except ml.MechlabError as error:
[--count 40]       print(f"{type(error).__name__}: {error}", file=sys.stderr)
[--count 40]       return 2
[--count 40]   print(finding.markdown())
[--count 40]   for path in finding.write(options.out / finding.record["model"].replace("/", "--")):
[--count 40]       print(path)
[--count 40]   return finding.exit_code


def[--count 40]parser() -> argparse.ArgumentParser:
[--count 40]   """Return the command line."""
[--count 40]   made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
[--count 40]   add = made.add_argument
[--count 40]   add("--model", default="atlas", help="shipped model, local folder or hub name")
[--count 40]   add("--count", type=int, default=40, help="edits made one after another")
[--count 40]   add("--batch", type=int, default=100, help="edits made at once: up to 197")
[--count 40]   add("--control-count", type=int, default=4, help="edits of the untrained model, of each kind")
[--count 40]   add("--every", type=int, default=10, help="edits between two measurements")
[--count 40]   add("--layer", type=int, help="of ROME; default: the one known for the model, else the middle")
[--count 40]   add("--layers", nargs="+", type=int, help="of MEMIT; default: from the first to that layer")
[--count 40]   add("--steps", type=int, default=40, help="of each optimisation")
[--count 40]   add("--moment-weight", type=float, help="MEMIT: tokens of text that weigh against the edits")
[--count 40]   add("--tokens", type=int, default=100_000, help="of the key statistics")
[--count 40]   add("--seed", type=int, default=0, help="of requests, contexts, texts and untrained weights")
[--count 40]   add("--device", default="auto")
[--count 40]   add("--out", type=Path, default=Path("cache/studies/sequential_editing"))
[--count 40]   return made


def[--count 40]study(options: argparse.Namespace) -> ml.claims.Finding:
[--count 40]   """Edit the model and an untrained one, and test every claim on both."""
[--count 40]   model = ml.load_model(options.model, device=options.device)
[--count 40]   most = max(options.count, options.batch)
[--count 40]   cases = ml.prompts.edit_cases(
[--count 40]       ml.prompts.world_edits(most, options.seed), paraphrases=2, seed=options.seed
[--count 40]   )
[--count 40]   control = cases[: max(1, options.control_count)]
[--count 40]   measured = measure(model, cases[: options.count], cases[: options.batch], options)
[--count 40]   untrained = measure(ml.untrained(model, options.seed), control, control, options)
[--count 40]   return ml.claims.Finding(
[--count 40]       f"Many edits of {model.name}",
[--count 40]       CLAIMS,
[--count 40]       ml.claims.judge(CLAIMS, measured),
[--count 40]       ml.claims.judge(CLAIMS, untrained),
[--count 40]       about=[
[--count 40]           f"{options.count} facts edited one after another in layer "
[--count 40]           f"{measured.turns[R_ROME].attrs['edit_layer']}, {options.batch} at once in layers "
[--count 40]           f"{layers_of(model, options)}; the untrained model has {len(control)} of each."
[--count 40]       ],
[--count 40]       numbers=number_table(measured),
[--count 40]       record={
[--count 40]           "model": model.name,
[--count 40]           "fingerprint": model.fingerprint,
[--count 40]           "versions": json.loads(measured.batches.attrs["versions"]),
[--count 40]           "options": {k: str(v) for k, v in vars(options).items() if k not in ("out", "device")},
[--count 40]       },
[--count 40]   )


def[--count 40]layer_of(model: ml.Model, options: argparse.Namespace) -> int:
[--count 40]   """Return the layer of single edits."""
[--count 40]   if options.layer is not None:
[--count 40]       return int(options.layer)
[--count 40]   return int(ml.edit_settings(model).get("layer", model.n_layers // 2))


def[--count 40]layers_of(model: ml.Model, options: argparse.Namespace) -> list[int]:
[--count 40]   """Return the layers that MEMIT spreads its edits over."""
[--count 40]   return options.layers or list(range(layer_of(model, options) + 1))


def[--count 40]measure(
[--count 40]   model: ml.Model,
[--count 40]   in_turn: ml.prompts.PromptSet,
[--count 40]   at_once: ml.prompts.PromptSet,
[--count 40]   options: argparse.Namespace,
)[--count 40]-> Measured:
[--count 40]   """Edit in turn with both variants, and at once in batches of several sizes."""
[--count 40]   layer, layers = layer_of(model, options), layers_of(model, options)
[--count 40]   needed = sorted({layer, *layers})
[--count 40]   single = {k: v for k, v in ml.edit_settings(model).items() if k != "layer"}
[--count 40]   many = MEMIT_OF_ATLAS if single else {}
[--count 40]   many = {**many, "steps": options.steps}
[--count 40]   if options.moment_weight is not None:
[--count 40]       many["moment_weight"] = options.moment_weight
[--count 40]   store = ml.Store()
[--count 40]   common = {
[--count 40]       "key_statistics": ml.stored_key_statistics(
[--count 40]           store, model, layer=needed, tokens=options.tokens, seed=options.seed
[--count 40]       ),
[--count 40]       "collapse_nll": 1.0,
[--count 40]       "seed": options.seed,
[--count 40]   }
[--count 40]   turns = {
[--count 40]       variant: _run(
[--count 40]           store, model, ml.sequential_edits, in_turn, layer=layer, every=options.every,
[--count 40]           variant=variant, settings={**single, "steps": options.steps}, **common,
[--count 40]       )
[--count 40]       for variant in (ROME, R_ROME)
[--count 40]   }  # fmt: skip
[--count 40]   sizes = sorted({min(n, len(at_once)) for n in (1, 10, len(in_turn), len(at_once))})
[--count 40]   batches = _run(
[--count 40]       store, model, ml.batch_edits, at_once, layers=layers, sizes=sizes, settings=many, **common
[--count 40]   )
[--count 40]   return Measured(turns, batches)


def[--count 40]_run(
[--count 40]   store: ml.Store, model: ml.Model, method: Any, cases: ml.prompts.PromptSet, **options: Any
)[--count 40]-> xr.Dataset:
[--count 40]   started = time.monotonic()
[--count 40]   result: xr.Dataset = store.run(method, model, cases, **options)
[--count 40]   about = f"{model.name}: {method.__name__} {options.get('variant', '')}, {len(cases)} edits"
[--count 40]   print(f"{about}, {time.monotonic() - started:.1f} s", file=sys.stderr)
[--count 40]   return result


if[--count 40]__name__ == "__main__":
[--count 40]   sys.exit(main())
