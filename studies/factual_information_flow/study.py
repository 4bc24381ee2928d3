"""How does a fact reach the last token? Knockouts, extraction and Token Lens on a model of choice.

python studies/factual_information_flow/study.py [--model atlas] [--count 100] [--seed 0]

Exit code: 0 when every claim that applies holds on the model and fails on an untrained model of
the same shape; 1 when not; 2 when the study could not be run.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import xarray as xr
from flow_claims import CLAIMS, MIN_FACTS, Facts, Flow, Lists

import mechlab as ml

RELATIONS = ("capital", "language", "currency", "continent")
MANY = ("cities", "continent", "language", "currency")
ANSWERS = ("answer_1", "answer_2", "answer_3")


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
    add("--count", type=int, default=100, help="facts drawn from the country table")
    add("--window", type=int, help="layers cut together; default: a fifth of them")
    add("--seed", type=int, default=0, help="of facts, lists and untrained weights")
    add("--all-facts", action="store_true", help="use also facts that the model does not know")
    add("--device", default="auto")
    add("--dtype", default="float32")
    add("--out", type=Path, default=Path("cache/studies/factual_information_flow"))
    return made


def study(options: argparse.Namespace) -> tuple[ml.claims.Finding, list[Path]]:
    """Measure on the model and on an untrained one, and test every claim on both."""
    asked = ml.prompts.world_facts(options.count, options.seed, relations=RELATIONS, templates=None)
    model = ml.load_model(options.model, device=options.device, dtype=options.dtype)
    if not model.has_attention:
        raise ml.SiteError(
            f"{model.name} ({model.family}) is recurrent: it has no attention edges to cut. "
            "Allowed: models with attention. Name one with --model."
        )
    known = asked if options.all_facts else ml.keep_known(model, asked)
    lists = whole_lists(model, options.seed)
    control = ml.untrained(model, options.seed)
    found, beside = (
        Flow(measure(one, known, options.window), read_lists(one, *lists))
        for one in (model, control)
    )
    out = options.out / model.name.replace("/", "--")
    finding = ml.claims.Finding(
        title=f"How facts flow in {model.name}",
        claims=CLAIMS,
        outcomes=ml.claims.judge(CLAIMS, found),
        control=ml.claims.judge(CLAIMS, beside),
        about=[
            f"{len(known)} of {len(asked)} facts; {lists[2]} of {lists[1]} lists answered without "
            "a fault. Edges are cut before the softmax, from the last token, in windows of "
            f"{_width(found.facts)} layers. 95 % intervals over subjects and sentences."
        ],
        numbers=list(numbers(found.facts, beside.facts)),
        record={
            "model": model.name,
            "fingerprint": model.fingerprint,
            "versions": json.loads(found.facts.cut.attrs["versions"]),
            "options": {k: str(v) for k, v in vars(options).items() if k not in ("out", "device")},
            "facts": len(asked),
            "facts_known": len(known),
            "lists": lists[1],
            "lists_right": lists[2],
        },
    )
    return finding, list(figures(found, model.name, out))


def measure(model: ml.Model, facts: ml.prompts.PromptSet, window: int | None) -> Facts:
    """Cut edges, decode states, and split what attention brings by source token."""
    store = ml.Store()
    keys = ["subject", "last_subject", "not_subject", *(["bos"] if model.prepend_bos else [])]
    return Facts(
        cut=store.run(ml.knockout, model, facts, keys=keys, cut="mask", window=window),
        lens=store.run(
            ml.logit_lens, model, facts, sites=["attn_out", "mlp_out", "resid_post"], norm="own"
        ),
        tokens=store.run(ml.token_lens, model, facts, groups=["subject"], centred=True),
        subjects=[fact.subject for fact in facts],
        sentences=[fact.prompt.replace(fact.subject, "{}", 1) for fact in facts],
    )


# --- lists ----------------------------------------------------------------------------------------


def whole_lists(model: ml.Model, seed: int) -> tuple[ml.prompts.PromptSet | None, int, int]:
    """Return steps 2 and 3 of the lists that the model gets right, lists in all, lists right.

    A list is right when at each step, with the table's answers given so far in the prompt, the most
    probable token begins one of the subject's answers that was not given yet.
    """
    kept: list[ml.prompts.PromptPair] = []
    asked = right = 0
    for relation in MANY:
        try:
            pairs = ml.prompts.one_to_many(None, seed, relation=relation, model=model)
        except ml.PromptError:  # no two subjects of this relation align on this model
            continue
        by_subject: dict[str, list[ml.prompts.PromptPair]] = {}
        for pair in pairs:
            by_subject.setdefault(str(pair.group), []).append(pair)
        steps = {name: found for name, found in by_subject.items() if len(found) == 3}
        good = _right_steps(model, [pair for found in steps.values() for pair in found], relation)
        asked += len(steps)
        for found in steps.values():
            if all(good[pair.clean] for pair in found):
                right += 1
                kept += found[1:]
    if right < MIN_FACTS:
        return None, asked, right
    return ml.prompts.PromptSet(tuple(kept), "lists"), asked, right


def _right_steps(
    model: ml.Model, pairs: Sequence[ml.prompts.PromptPair], relation: str
) -> dict[str, bool]:
    """Return for each prompt whether the top token begins an answer that is still open."""
    if not pairs:
        return {}
    table = ml.prompts.many_answers(relation)
    lens = ml.logit_lens(model, list(pairs), layers=[model.n_layers - 1], top_k=1)
    top = lens.predicted_token.values[:, -1].tolist()
    found = {}
    for pair, token in zip(pairs, top, strict=True):
        about = dict(pair.about)
        given = [about[f"answer_{k}"] for k in range(1, int(about["step"]))]
        left = [name for name in table[str(about["subject"])] if name not in given]
        ids = model.answer_tokens([pair.clean] * len(left), left)
        found[pair.clean] = token in {model.token_string(row[0]) for row in ids}
    return found


def read_lists(
    model: ml.Model, prompts: ml.prompts.PromptSet | None, asked: int, right: int
) -> Lists:
    """Split what attention brings to the last token of every list."""
    if prompts is None:
        return Lists(None, [], asked, right)
    tokens = ml.token_lens(
        model, prompts, groups=["subject", "answer_1"], decode=list(ANSWERS), centred=True
    )
    return Lists(tokens, [str(pair.group) for pair in prompts], asked, right)


# --- the report -----------------------------------------------------------------------------------


def _width(facts: Facts) -> int:
    return int((facts.cut.window_stop - facts.cut.window_start).max())


def numbers(found: Facts, beside: Facts) -> Iterator[tuple[str, ...]]:
    """Yield rows of knockouts and extraction rates by layer, with intervals."""
    sources = [str(name) for name in found.cut.source.values]
    yield (
        "layer",
        *(f"P lost without {name}" for name in sources),
        "untrained: without subject",
        "extracted by attention",
        "by MLP",
        "in the stream",
    )
    for layer in found.cut.layer.values.tolist():
        lost = [found.lost(name).sel(layer=layer) for name in sources]
        rates = [found.extracted(s).sel(layer=layer) for s in ("attn_out", "mlp_out", "resid_post")]
        other = beside.lost("subject").sel(layer=layer)
        yield (
            str(layer),
            *(_percent(found, values) for values in lost),
            f"{round(float(other.mean()), 3) + 0.0:.1%}",
            *(_percent(found, values, least=0.0) for values in rates),
        )


def _percent(facts: Facts, values: xr.DataArray, least: float = -1.0) -> str:
    """Return a mean with its interval; a share ends where shares do, its t interval may not."""
    one = ml.claims.mean_above("", values, clusters=facts.clusters)
    ends = (max(least, one.low), min(1.0, one.high))
    value, low, high = (f"{round(x, 3) + 0.0:.1%}" for x in (one.value, *ends))  # no -0.0 %
    return f"{value} ({low} to {high})"


def figures(found: Flow, name: str, out: Path) -> Iterator[Path]:
    """Write lines by layer: knockouts, extraction rates, and the Token Lens."""
    facts = found.facts
    change = facts.cut.relative_change.assign_attrs(units="fraction of P")
    title = f"{name}: last token cut off from these tokens, in windows of {_width(facts)} layers"
    figure = ml.plots.lines(change, x="layer", title=title)
    yield ml.plots.write_html(figure, out / "knockout.html")
    sites = facts.lens.site.values.tolist()
    rates = (
        (facts.lens["rank"].sel(answer="predicted") == 0).squeeze("pos", drop=True).astype(float)
    )
    rates = rates.drop_vars("answer").rename("extraction rate").sel(site=sites)
    rates.attrs = {"units": "share of facts"}
    title = f"{name}: facts whose final answer is the top token of a state at the last token"
    figure = ml.plots.lines(rates, x="layer", title=title)
    yield ml.plots.write_html(figure, out / "extraction.html")
    written = facts.tokens.source_logit.sel(answer="answer", drop=True)
    title = f"{name}: what attention of the last token writes of the answer, by token read"
    figure = ml.plots.lines(written, x="layer", title=title)
    yield ml.plots.write_html(figure, out / "token-lens.html")
    if found.lists.tokens is not None:
        listed = found.lists.tokens.source_logit.sel(answer=list(ANSWERS))
        figure = ml.plots.lines(listed, x="layer", title=f"{name}: the same of lists, by answer")
        yield ml.plots.write_html(figure, out / "lists.html")


if __name__ == "__main__":
    sys.exit(main())
