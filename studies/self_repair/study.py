"""Do later layers repair what an ablation takes away? The Hydra effect, on a model of choice.

python studies/self_repair/study.py [--model atlas] [--count 100] [--kind resample] [--draws 5]

Exit code: 0 when every claim that applies holds on the model and fails on an untrained model of
the same shape; 1 when not; 2 when the study could not be run.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import xarray as xr
from repair_claims import CLAIMS, Repaired

import mechlab as ml

RELATIONS = ("capital", "language", "currency", "continent")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            # Only the first token of an answer decides whether a fact is known, as the README says.
            warnings.filterwarnings("ignore", message=".*answers have several tokens")
            finding, pages = study(options)
    except ml.MechlabError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(finding.markdown())
    for path in [*pages, *finding.write(pages[0].parent)]:
        print(path)
    return finding.exit_code


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = made.add_argument
    add("--model", default="atlas", help="shipped model, local folder or hub name")
    add("--facts", type=Path, help="CSV or JSON file of facts; default: the country table")
    add("--count", type=int, default=100, help="facts drawn from the country table")
    add("--kind", default="resample", choices=("zero", "mean", "resample"))
    add("--draws", type=int, default=5, help="stand-ins per fact, for resample")
    add("--seed", type=int, default=0, help="of facts, stand-ins and untrained weights")
    add("--all-facts", action="store_true", help="use also facts that the model does not know")
    add("--device", default="auto")
    add("--dtype", default="float32")
    add("--out", type=Path, default=Path("cache/studies/self_repair"))
    return made


def study(options: argparse.Namespace) -> tuple[ml.claims.Finding, list[Path]]:
    """Ablate every module of the model and of an untrained one; test the claims on both."""
    if options.facts is not None:
        facts = ml.prompts.read_facts(options.facts)
    else:
        facts = ml.prompts.world_facts(
            options.count, options.seed, relations=RELATIONS, templates=None
        )
    model = ml.load_model(options.model, device=options.device, dtype=options.dtype)
    known = facts if options.all_facts else ml.keep_known(model, facts)
    control = ml.untrained(model, options.seed)
    found, beside = (ablated(one, known, facts, options) for one in (model, control))
    out = options.out / model.name.replace("/", "--")
    finding = ml.claims.Finding(
        title=f"Self-repair of {model.name}",
        claims=CLAIMS,
        outcomes=ml.claims.judge(CLAIMS, found),
        control=ml.claims.judge(CLAIMS, beside),
        about=[
            f"{len(known)} of {len(facts)} facts; every module ablated at the last token "
            f"({options.kind}). Logits of the answer, centred; 95 % intervals over subjects and "
            "sentences."
        ],
        numbers=list(numbers(found, beside)),
        record={
            "model": model.name,
            "fingerprint": found.result.attrs["model_fingerprint"],
            "versions": json.loads(found.result.attrs["versions"]),
            "options": {k: str(v) for k, v in vars(options).items() if k not in ("out", "device")},
            "facts": len(facts),
            "facts_known": len(known),
        },
    )
    return finding, list(figures(found, model.name, out))


def ablated(
    model: ml.Model,
    facts: ml.prompts.PromptSet,
    reference: ml.prompts.PromptSet,
    options: argparse.Namespace,
) -> Repaired:
    """Ablate every module at the last token; stand-ins come from all facts of the study."""
    started = time.monotonic()
    resampled = {} if options.kind == "zero" else {"reference": reference}
    if options.kind == "resample":
        resampled["draws"] = min(options.draws, max(1, len(reference) - 1))
    result = ml.Store().run(
        ml.self_repair,
        model,
        facts,
        kind=options.kind,
        token="answer",
        seed=options.seed,
        **resampled,
    )
    seconds = time.monotonic() - started
    print(f"{model.name}: {len(facts)} facts ablated, {seconds:.1f} s", file=sys.stderr)
    return Repaired(
        result,
        [fact.subject for fact in facts],
        [fact.prompt.replace(fact.subject, "{}", 1) for fact in facts],
    )


def numbers(found: Repaired, beside: Repaired) -> Iterator[tuple[str, ...]]:
    """Yield rows of effects per ablated module, with the slope of repair."""
    yield (
        "ablated", "direct", "compensatory", "norm", "total", "untrained: total",
        "slope (95 %)", "R²",
    )  # fmt: skip
    line = ml.repair_slope(found.result, cluster=list(found.subjects))
    mean = found.result.mean("prompt")
    other = beside.result.total_effect.mean("prompt")
    for site in map(str, mean.site.values):
        for layer in mean.layer.values.tolist():
            place = {"site": site, "layer": layer}
            at, fit = mean.sel(place), line.sel(place)
            effects = ("direct_effect", "compensatory_effect", "norm_effect", "total_effect")
            yield (
                f"L{layer} {site}",
                *(f"{float(at[name]):+.2f}" for name in effects),
                f"{float(other.sel(place)):+.2f}",
                f"{float(fit.slope):.2f} "
                f"({float(fit.slope_low):.2f} to {float(fit.slope_high):.2f})",
                f"{float(fit.r_squared):.2f}",
            )


def figures(found: Repaired, name: str, out: Path) -> Iterator[Path]:
    """Write who reacts to whom, the effects by layer, and the scatter with its line."""
    result, n = found.result, found.result.sizes["prompt"]
    modules = [str(label) for label in result.component.values[1:-1]]
    mean = result.compensation.mean("prompt").isel(component=slice(1, -1))
    views = [
        ml.plots.GridView(
            values=mean.sel(site=site).values.astype("float32"),
            row_labels=tuple(map(str, result.layer.values)),
            col_labels=tuple(modules),
            col_name="module that reacts",
            title=f"{site} ablated",
            metric="compensation",
            unit="logits",
            sign="+ = it repairs",
            n=n,
            n_unit="facts",
        )
        for site in map(str, result.site.values)
    ]
    title = f"{name}: who reacts to whom"
    yield ml.plots.write_html(ml.plots.to_plotly(views, title=title), out / "compensation.html")
    effects = ["direct_effect", "compensatory_effect", "norm_effect", "total_effect"]
    by_layer = xr.concat(
        [result[name].rename("effect") for name in effects],
        xr.DataArray([name.split("_")[0] for name in effects], dims="part", name="part"),
    ).transpose("prompt", "part", "layer", "site")
    title = f"{name}: direct - compensatory + norm = total effect of ablating a module"
    figure = ml.plots.lines(by_layer, x="layer", title=title)
    yield ml.plots.write_html(figure, out / "effects.html")


if __name__ == "__main__":
    sys.exit(main())
