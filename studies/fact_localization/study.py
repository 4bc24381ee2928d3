"""Where does a model keep its facts? The claims of Meng et al. 2022, tested on a model of choice.

python studies/fact_localization/study.py [--model atlas] [--count 100] [--samples 10] [--seed 0]

Exit code: 0 when every claim that applies holds on the model and fails on an untrained model of
the same shape; 1 when not; 2 when the study could not be run.
"""

import argparse
import copy
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
import xarray as xr
from localization_claims import CLAIMS, Traces
from localization_report import Finding, figures, markdown, write_json

import mechlab as ml

RELATIONS = ("capital", "language", "currency", "continent")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            # Only the first token of an answer decides whether a fact is known, as the README says.
            warnings.filterwarnings("ignore", message=".*answers have several tokens")
            found = study(options)
    except ml.MechlabError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    out = options.out / found.model.replace("/", "--")
    out.mkdir(parents=True, exist_ok=True)
    report = markdown(found)
    (out / "verdicts.md").write_text(report, encoding="utf-8")
    write_json(found, out / "verdicts.json")
    print(report)
    for path in [*figures(found, out), out / "verdicts.md", out / "verdicts.json"]:
        print(path)
    return 0 if all(v in ("holds", "not applicable") for v in found.verdicts.values()) else 1


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = made.add_argument
    add("--model", default="atlas", help="shipped model, local folder or hub name")
    add("--count", type=int, default=100, help="facts drawn from the country table")
    add("--samples", type=int, default=10, help="corrupted runs per fact")
    add("--seed", type=int, default=0, help="of the facts, the noise and the untrained weights")
    add("--device", default="auto")
    add("--dtype", default="float32")
    add("--all-facts", action="store_true", help="trace also facts that the model does not know")
    add("--out", type=Path, default=Path("cache/studies/fact_localization"))
    return made


def study(options: argparse.Namespace) -> Finding:
    """Trace the facts on the model and on an untrained one, and test every claim on both."""
    facts = ml.prompts.world_facts(options.count, options.seed, relations=RELATIONS, templates=None)
    model = ml.load_model(options.model, device=options.device, dtype=options.dtype)
    traces = trace(model, facts, options, known_only=not options.all_facts)
    known = (traces.sites.status == "ok").values
    control = untrained(model, options.seed)
    # The control answers the same questions; with none known, all of them.
    asked = facts.select(known) if known.any() else facts
    control_traces = trace(control, asked, options, known_only=False)
    return Finding(
        model=model.name,
        source=str(model.provenance["source"]),
        traces=traces,
        control=control_traces,
        outcomes={claim.name: claim.test(traces) for claim in CLAIMS},
        control_outcomes={claim.name: claim.test(control_traces) for claim in CLAIMS},
        options={k: str(v) for k, v in vars(options).items() if k not in ("out", "device")},
    )


def trace(
    model: ml.Model, facts: ml.prompts.PromptSet, options: argparse.Namespace, *, known_only: bool
) -> Traces:
    """Trace the facts at all sites, and with outputs of the last subject token severed."""
    store = ml.Store()
    writers = ("mlp_out", "attn_out") if model.has_attention else ("mixer_out",)
    severed = ("mlp", "attn") if model.has_attention else ("mixer",)

    def run(name: str, sites: Sequence[str], positions: str, sever: str) -> xr.Dataset:
        started = time.monotonic()
        result = store.run(
            ml.causal_trace,
            model,
            facts,
            sites=list(sites),
            positions=positions,
            sever=sever,
            samples=options.samples,
            seed=options.seed,
            known_only=known_only,
        )
        traced = int((result.status == "ok").sum())
        seconds = time.monotonic() - started
        about = f"{model.name}: {name}, {traced} of {len(facts)} facts traced, {seconds:.1f} s"
        print(about, file=sys.stderr)
        return result

    return Traces(
        sites=run("all tokens", ("resid_post", *writers), "all", "none"),
        entering=run("last subject token", ["resid_pre"], "last_subject", "none"),
        severed={
            name: run(f"{name} severed", ["resid_pre"], "last_subject", name) for name in severed
        },
    )


def untrained(model: ml.Model, seed: int) -> ml.Model:
    """Return a model of the same shape and tokenizer with freshly drawn weights."""
    config = copy.deepcopy(model.hf.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return ml.wrap_model(
        hf.to(device=model.device, dtype=model.dtype),
        model.tokenizer,
        name=f"{model.name}-untrained",
        prepend_bos=model.prepend_bos,
    )


if __name__ == "__main__":
    sys.exit(main())
