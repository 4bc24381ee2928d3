"""The circuit of indirect object identification in GPT-2 small: are its 26 heads found again?

python studies/ioi_circuit/study.py [--model gpt2] [--count 96] [--seed 0] [--circuit heads.json]

Needs the weights of GPT-2 small in the hub cache, or a folder with them (`--model PATH`).
Exit code: 0 when every claim that applies holds on the model and fails on an untrained model of
the same shape; 1 when not; 2 when the study could not be run.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import xarray as xr
from ioi_claims import CLAIMS, PUBLISHED, SIGN, Circuit, Stages

import mechlab as ml

WEIGHTS = """The study needs the weights of GPT-2 small. Either fetch them once while online
    python -c "import mechlab as ml; ml.load_model('gpt2')"
(they then lie in the hub cache), or name a folder with config.json, *.safetensors and tokenizer:
    python studies/ioi_circuit/study.py --model PATH"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    try:
        model = ml.load_model(options.model, device=options.device, dtype=options.dtype)
    except ml.ModelError as error:
        print(f"ModelError: {error}\n{WEIGHTS}", file=sys.stderr)
        return 2
    try:
        circuit = read_circuit(options.circuit)
        check_shape(model, circuit)
        words = read_words(options.words)
        pairs = ml.prompts.ioi(options.count, options.seed, model=model, words=words)
        finding, pages = study(model, pairs, circuit, options)
    except (ml.MechlabError, OSError, TypeError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(finding.markdown())
    for path in [*pages, *finding.write(options.out / model.name.replace("/", "--"))]:
        print(path)
    return finding.exit_code


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = made.add_argument
    add("--model", default="gpt2", help="hub name, or a folder with the weights")
    add("--circuit", type=Path, help="JSON: expected heads by class; default: the 26 published")
    add("--words", type=Path, help="JSON: templates, names, places, objects; default: our own")
    add("--count", type=int, default=96, help="pairs of prompts")
    add("--seed", type=int, default=0, help="of prompts and untrained weights")
    add("--device", default="auto")
    add("--dtype", default="float32")
    add("--out", type=Path, default=Path("cache/studies/ioi_circuit"))
    return made


def read_circuit(path: Path | None) -> Circuit:
    """Return the expected heads by class.

    Raises:
        ValueError: classes that the study does not have.
    """
    if path is None:
        return PUBLISHED
    given = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(given, dict) or not set(given) <= set(SIGN):
        raise ValueError(f"{path}: classes must be among {', '.join(SIGN)}. Use these names.")
    return {name: tuple(ml.heads(*listed)) for name, listed in given.items()}


def read_words(path: Path | None) -> ml.prompts.IoiWords:
    """Return what prompts are made of."""
    if path is None:
        return ml.prompts.IOI_WORDS
    given = json.loads(path.read_text(encoding="utf-8"))
    return ml.prompts.IoiWords(**{name: tuple(listed) for name, listed in given.items()})


def check_shape(model: ml.Model, circuit: Circuit) -> None:
    """Refuse a circuit that the model does not have room for."""
    outside = [
        str(head)
        for heads in circuit.values()
        for head in heads
        if head.layer >= model.n_layers or head.head >= (model.n_heads or 0)
    ]
    if outside:
        raise ml.SiteError(
            f"{model.name} has {model.n_layers} layers of {model.n_heads} heads, and the circuit "
            f"names {', '.join(outside)}. The published heads are those of GPT-2 small (12 layers "
            "of 12 heads). Use its weights, or give this model's heads with --circuit."
        )


def study(
    model: ml.Model,
    pairs: ml.prompts.PromptSet,
    circuit: Circuit,
    options: argparse.Namespace,
) -> tuple[ml.claims.Finding, list[Path]]:
    """Patch the paths of every stage, on the model and on an untrained one; test the claims."""
    found = measure(model, pairs, circuit)
    beside = measure(ml.untrained(model, options.seed), pairs, circuit)
    rows = [("stage", "expected", "found")]
    for name in SIGN:
        names = (circuit.get(name, ()), found.found(name))
        rows.append((name, *(", ".join(map(str, heads)) or "none" for heads in names)))
    finding = ml.claims.Finding(
        title=f"The IOI circuit in {model.name}",
        claims=CLAIMS,
        outcomes=ml.claims.judge(CLAIMS, found),
        control=ml.claims.judge(CLAIMS, beside),
        about=[
            f"{len(pairs)} pairs, corrupted with three other names; path patching with heads "
            "frozen and MLPs live. Effects are shares of the mean logit difference "
            f"({float(found.logit_diff.mean()):.2f} logits); 95 % intervals over templates."
        ],
        numbers=rows,
        record={
            "model": model.name,
            "fingerprint": model.fingerprint,
            "found": {name: list(map(str, found.found(name))) for name in SIGN},
            "options": {k: str(v) for k, v in vars(options).items() if k not in ("out", "device")},
        },
    )
    out = options.out / model.name.replace("/", "--")
    return finding, list(figures(found, model.name, out))


def measure(model: ml.Model, pairs: ml.prompts.PromptSet, circuit: Circuit) -> Stages:
    """Patch the paths of every stage; receivers are the heads that the circuit names."""
    places = {
        name: ml.prompts.named_positions(model, pairs, name, last_token=True)
        for name in ("s2", "s1_next")
    }
    direct = _paths(model, pairs, ["logits"], "last")
    metric = direct.clean_metric
    movers = circuit.get("name movers", ())
    inhibition = circuit.get("S-inhibition", ())
    earlier = circuit.get("induction and duplicate token", ())
    stages = {
        "name movers": _by_head(direct, model),
        "negative name movers": _by_head(direct, model),
    }
    if movers:
        stages["backup name movers"] = _rise_without(model, pairs, movers)
        queries = tuple(ml.Site("q", layer=head.layer, head=head.head) for head in movers)
        stages["S-inhibition"] = _by_head(_paths(model, pairs, [queries], "last"), model)
    if inhibition:
        inputs = _keys_and_values(model, inhibition)
        found = _paths(model, pairs, [inputs], places["s2"])
        stages["induction and duplicate token"] = _by_head(found, model)
    if late := tuple(head for head in earlier if head.layer > 0):
        inputs = _keys_and_values(model, late)
        found = _paths(model, pairs, [inputs], places["s1_next"])
        stages["previous token"] = _by_head(found, model)
    scale = float(metric.mean())
    return Stages(
        {name: effect / abs(scale) for name, effect in stages.items()},
        metric,
        [str(pair.group) for pair in pairs],
        circuit,
    )


def _keys_and_values(model: ml.Model, heads: Sequence[ml.Head]) -> tuple[ml.Site, ...]:
    """Return the key and value inputs of heads; under grouped queries those of their groups."""
    group = (model.n_heads or 1) // (model.n_kv_heads or 1)
    places = dict.fromkeys((head.layer, head.head // group) for head in heads)
    return tuple(ml.Site(n, layer=layer, head=kv) for layer, kv in places for n in ("k", "v"))


def _paths(
    model: ml.Model,
    pairs: ml.prompts.PromptSet,
    receivers: Sequence[object],
    positions: str | Sequence[Sequence[int]],
) -> xr.Dataset:
    return ml.path_patch(
        model, pairs, senders="all_heads", receivers=receivers, positions=positions, freeze="heads"
    )


def _by_head(paths: xr.Dataset, model: ml.Model) -> xr.DataArray:
    """Return effects on the one receiver as `[prompt, layer, head]`."""
    effect = paths.effect.isel(receiver=0, drop=True).transpose("prompt", "sender")
    values = effect.values.reshape(-1, model.n_layers, model.n_heads)
    return xr.DataArray(
        values,
        {"layer": range(model.n_layers), "head": range(model.n_heads or 0)},
        ("prompt", "layer", "head"),
    )


def _rise_without(
    model: ml.Model, pairs: ml.prompts.PromptSet, movers: Sequence[ml.Head]
) -> xr.DataArray:
    """Return how much more each head writes of the answer without the name movers."""
    gone = [ml.Ablate(ml.Site("z", layer=h.layer, head=h.head)) for h in movers]
    before, after = (
        ml.direct_logit_attribution(
            model, pairs, by="head", norm="clean", interventions=steps
        ).head_attribution
        for steps in ([], gone)
    )
    rise = (after - before).drop_vars("prompt").transpose("prompt", "layer", "head")
    for head in movers:  # what was removed has no rise
        rise.loc[{"layer": head.layer, "head": head.head}] = float("nan")
    return rise.drop_vars([name for name in rise.coords if name not in ("layer", "head")])


def figures(found: Stages, name: str, out: Path) -> Iterator[Path]:
    """Write one grid of heads per stage."""
    for stage, effect in found.effects.items():
        if stage == "negative name movers":  # the same stage as the name movers
            continue
        figure = ml.plots.head_grid(effect.rename("effect"), title=f"{name}: {stage}")
        yield ml.plots.write_html(figure, out / f"{stage.replace(' ', '-')}.html")


if __name__ == "__main__":
    sys.exit(main())
