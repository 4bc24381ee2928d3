"""Fact against counterfactual in GPT-2 small: are the six heads of Ortu et al. found again?

python studies/ortu_heads/study.py [--model gpt2] [--data full_data_sampled_gpt2.json] [--count 500]

Needs the weights of GPT-2 small in the hub cache, or a folder with them (`--model PATH`).
Exit code: 0 when every claim that applies holds on the model and fails on an untrained model of
the same shape; 1 when not; 2 when the study could not be run.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from ortu_claims import CLAIMS, PUBLISHED, SIGN, Heads, Measured

import mechlab as ml

WEIGHTS = """The study needs the weights of GPT-2 small. Either fetch them once while online
    python -c "import mechlab as ml; ml.load_model('gpt2')"
(they then lie in the hub cache), or name a folder with config.json, *.safetensors and tokenizer:
    python studies/ortu_heads/study.py --model PATH"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    try:
        model = ml.load_model(options.model, device=options.device, dtype=options.dtype)
    except ml.ModelError as error:
        print(f"ModelError: {error}\n{WEIGHTS}", file=sys.stderr)
        return 2
    try:
        with warnings.catch_warnings():
            # Only the first token of an answer is scored, as the README says.
            warnings.filterwarnings("ignore", message=".*answers have several tokens")
            heads = read_heads(options.heads)
            finding, pages = study(model, read_pairs(model, options), heads, options)
    except (ml.MechlabError, OSError, ValueError) as error:
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
    add("--data", type=Path, help="file of the paper's prompts; default: our capitals")
    add("--heads", type=Path, help="JSON: expected heads by group; default: the six published")
    add("--count", type=int, default=500, help="pairs at most")
    add("--factor", type=float, default=5.0, help="by which suppressing heads are turned up")
    add("--controls", type=int, default=5, help="sets of random heads of the same layers")
    add("--seed", type=int, default=0, help="of pairs, controls and untrained weights")
    add("--device", default="auto")
    add("--dtype", default="float32")
    add("--out", type=Path, default=Path("cache/studies/ortu_heads"))
    return made


def read_heads(path: Path | None) -> Heads:
    """Return the expected heads by group.

    Raises:
        ValueError: when the file does not name both groups.
    """
    if path is None:
        return PUBLISHED
    given = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(given, dict) or set(given) != set(SIGN) or not all(given.values()):
        raise ValueError(f"{path}: needs the groups {', '.join(SIGN)}, each with heads.")
    return {name: tuple(ml.heads(*listed)) for name, listed in given.items()}


def read_pairs(model: ml.Model, options: argparse.Namespace) -> ml.prompts.PromptSet:
    """Return the paper's prompts when their file is named, else conflicts about capitals."""
    if options.data is None:
        return ml.prompts.capital_conflicts(min(options.count, 150), options.seed, model=model)
    pairs = ml.prompts.read_comp_mech(options.data, corrupted="base")
    return pairs.select([index < options.count for index in range(len(pairs))])


def study(
    model: ml.Model, pairs: ml.prompts.PromptSet, heads: Heads, options: argparse.Namespace
) -> tuple[ml.claims.Finding, list[Path]]:
    """Attribute to heads and turn them up, on the model and on an untrained one."""
    outside = [
        str(head)
        for group in heads.values()
        for head in group
        if head.layer >= model.n_layers or head.head >= (model.n_heads or 0)
    ]
    if outside:
        raise ml.SiteError(
            f"{model.name} has {model.n_layers} layers of {model.n_heads} heads, and "
            f"{', '.join(outside)} are expected. The published heads are those of GPT-2 small (12 "
            "layers of 12 heads). Use its weights, or give this model's heads with --heads."
        )
    found = measure(model, pairs, heads, options)
    beside = measure(ml.untrained(model, options.seed), pairs, heads, options)
    rows = [("group", "expected", "found")]
    for name in SIGN:
        names = (heads[name], found.found(name))
        rows.append((name, *(", ".join(map(str, group)) or "none" for group in names)))
    finding = ml.claims.Finding(
        title=f"Fact against counterfactual in {model.name}",
        claims=CLAIMS,
        outcomes=ml.claims.judge(CLAIMS, found),
        control=ml.claims.judge(CLAIMS, beside),
        about=[
            f"{len(pairs)} pairs. Positive attributions promote the counterfactual of the context, "
            "negative ones suppress it. 95 % intervals over groups of pairs."
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
    title = f"{model.name}: counterfactual minus fact"
    figure = ml.plots.head_grid(found.attribution.rename("attribution"), title=title)
    return finding, [ml.plots.write_html(figure, out / "heads.html")]


def measure(
    model: ml.Model, pairs: ml.prompts.PromptSet, heads: Heads, options: argparse.Namespace
) -> Measured:
    """Attribute the logit difference to heads, and turn the suppressing ones up."""
    direct = ml.direct_logit_attribution(model, pairs, by="head").head_attribution
    scaling = ml.scale_heads(
        model,
        pairs,
        heads={"suppress": list(heads["suppress"])},
        alpha=(1.0, options.factor),
        positions="last",
        controls=options.controls,
        seed=options.seed,
    )
    return Measured(direct, scaling, groups(pairs), heads, options.factor)


def groups(pairs: ml.prompts.PromptSet) -> list[str]:
    """Return what is not independent: pairs of one group, or else pairs with one counterfactual."""
    return [str(pair.group or pair.answer.strip()) for pair in pairs]


if __name__ == "__main__":
    sys.exit(main())
