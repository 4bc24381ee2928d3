"""The study of PH3: its claims follow what is planted, and it runs to the end."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr

import mechlab as ml

StudyFile = Callable[[str, str], ModuleType]
N_LAYERS, N_HEADS = 3, 4
MEMORY, CONTEXT = ml.Head(1, 0), ml.Head(1, 2)
K = {"memory": 2, "context": 1}
ALL = {"heads", "context_use", "memory_use", "wordings", "coherent", "relations"}
SETS = {
    "held": ("capital", "repeat"),
    "forms": ("capital", "reported"),
    "coherent": ("capital", "paragraph"),
    "relations": ("language", "repeat"),
}


@pytest.fixture
def claims(study_file: StudyFile) -> ModuleType:
    return study_file("conflict_pruning", "pruning_claims")


@cache
def pairs_of(name: str) -> tuple[ml.prompts.PromptSet, ml.prompts.PromptSet]:
    relation, form = SETS[name]
    made = ml.prompts.conflicts(90, relations=relation, form=form)  # type: ignore[arg-type]
    return ml.split_pairs(made)


def handmade_scores(count: int, planted: Mapping[ml.Head, float], seed: int = 0) -> xr.DataArray:
    values = 0.02 * np.random.default_rng(seed).standard_normal((count, N_LAYERS, N_HEADS))
    for head, mean in planted.items():
        values[:, head.layer, head.head] += mean
    return xr.DataArray(values, dims=("prompt", "layer", "head"))


def handmade_part(
    claims: ModuleType,
    pairs: ml.prompts.PromptSet,
    *,
    moved: Mapping[str, float] = {"memory": 1.0, "context": 1.0},  # noqa: B006
    random: float = 0.0,
) -> Any:
    """Half of the conflicts are won by either side; pruning hands over so large a share of them."""
    rng = np.random.default_rng(len(pairs))
    names = ["memory", "context", "memory control 0", "context control 0"]
    won = np.arange(len(pairs)) % 2 == 0
    share = np.zeros((len(pairs), len(names), 3, 3), np.float32)
    for i, name in enumerate(names):
        side = name.split()[0]
        part = moved[side] if name == side else random
        for j, k in enumerate((0, 1, 2)):
            turned = (rng.random(len(pairs)) < part) & (k >= K[side])
            context = np.where(turned, side == "memory", won)
            share[:, i, j, 0], share[:, i, j, 1] = context, ~context.astype(bool)
    pruning = xr.Dataset(
        {"share": (("prompt", "head_set", "k", "outcome"), share)},
        {
            "head_set": names,
            "k": [0, 1, 2],
            "outcome": ["in_context", "memorised", "other"],
            "control_of": ("head_set", ["", "", "memory", "context"]),
        },
    )
    return claims.Part(pairs, pruning)


def handmade(
    claims: ModuleType,
    *,
    planted: Mapping[ml.Head, float] = {MEMORY: 0.1, CONTEXT: -0.1},  # noqa: B006
    spoiled: str = "",
    **changes: Any,
) -> Any:
    """Measurements on which all claims hold, but for `changes` (in the set `spoiled` alone)."""
    find, held = pairs_of("held")
    parts = {
        name: handmade_part(claims, pairs_of(name)[1], **(changes if spoiled in ("", name) else {}))
        for name in SETS
    }
    return claims.Measured(
        find=find,
        found=handmade_scores(len(find), {MEMORY: 0.1, CONTEXT: -0.1}),
        scores=handmade_scores(len(held), planted, seed=1),
        rankings={"memory": [MEMORY, CONTEXT], "context": [CONTEXT, MEMORY]},
        k=K,
        held=parts["held"],
        forms={"reported": parts["forms"]},
        coherent={"paragraph": parts["coherent"]},
        relations={"language": parts["relations"]},
        coherent_scores={},
    )


def held(claims: ModuleType, measured: Any) -> set[str]:
    return {claim.name for claim in claims.CLAIMS if claim.test(measured).holds}


NOTHING = {"memory": 0.0, "context": 0.0}
MOVED = {
    "heads that turn round on held-out countries": (
        {"planted": {MEMORY: -0.1, CONTEXT: -0.1}},
        ALL - {"heads"},
    ),
    "pruning moves nothing": ({"moved": NOTHING}, {"heads"}),
    "random heads do as much": ({"random": 1.0}, {"heads"}),
    "only memory heads matter": (
        {"moved": {"memory": 1.0, "context": 0.0}},
        {"heads", "context_use"},
    ),
    "no transfer to a wording": ({"moved": NOTHING, "spoiled": "forms"}, ALL - {"wordings"}),
    "no transfer to paragraphs": ({"moved": NOTHING, "spoiled": "coherent"}, ALL - {"coherent"}),
    "no transfer to a relation": ({"random": 1.0, "spoiled": "relations"}, ALL - {"relations"}),
}


def test_all_claims_hold_where_heads_are_planted(claims: ModuleType) -> None:
    assert held(claims, handmade(claims)) == ALL


@pytest.mark.parametrize(("changes", "expected"), MOVED.values(), ids=MOVED)
def test_a_claim_fails_where_it_is_not_true(
    claims: ModuleType, changes: dict[str, Any], expected: set[str]
) -> None:
    assert held(claims, handmade(claims, **changes)) == expected


def test_the_smallest_number_that_does_most_is_pruned(claims: ModuleType) -> None:
    assert claims.choose_k(handmade(claims).held.pruning) == K


def test_what_was_not_asked_for_does_not_apply(claims: ModuleType) -> None:
    measured = replace(handmade(claims), relations={}, coherent={})
    outcomes = ml.claims.judge(claims.CLAIMS, measured)
    assert {name for name, found in outcomes.items() if not found.applies} == {
        "coherent",
        "relations",
    }


def test_heads_that_stand_out_are_found_again_on_few_pairs(
    claims: ModuleType, study_file: StudyFile
) -> None:
    report = study_file("conflict_pruning", "pruning_report")
    measured = handmade(claims)
    strong = {ml.Head(2, h): 0.5 - 0.05 * h for h in range(4)}
    strong |= {ml.Head(0, h): -0.5 + 0.05 * h for h in range(4)} | {MEMORY: 0.2, CONTEXT: -0.2}
    scores = handmade_scores(40, strong)
    ranked = ml.conflict_rankings(scores)
    stable = replace(measured, found=scores, rankings=ranked)
    assert [text for _, text in report.stability(stable)] == ["5.0", "5.0"]
    turned = replace(stable, coherent_scores={"paragraph": -scores})
    assert [text for _, text in report.roles(turned)] == ["4", "4"]


class Unstored:
    """A store that keeps nothing and hands the whole set to the method: quick."""

    def run(self, function: Callable[..., xr.Dataset], *args: Any, **options: Any) -> xr.Dataset:
        return function(*args, **options)


@pytest.mark.parametrize(
    "family",
    [
        "gpt2",
        pytest.param("llama", marks=pytest.mark.slow),
        pytest.param("neox", marks=pytest.mark.slow),
    ],
)
def test_random_weights_reach_their_verdicts(
    family: str,
    study_file: StudyFile,
    model_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = study_file("conflict_pruning", "study")
    monkeypatch.setattr(study.ml, "Store", Unstored)
    arguments = ["--model", str(model_folder(family, "bpe")), "--count", "20", "--curve", "1", "2"]
    arguments += ["--controls", "1", "--forms", "--relations"]
    # Paragraphs do not fit into the context of the toys; a short wording takes their place.
    arguments += ["--coherent", *(["question"] if family == "llama" else [])]
    code = study.main([*arguments, "--out", str(tmp_path / "out")])
    assert code == 1, "a model with random weights remembers nothing"
    (path,) = (tmp_path / "out").glob("*/verdicts.json")
    report = json.loads(path.read_text())
    verdicts = {name: claim["verdict"] for name, claim in report["claims"].items()}
    asked = {"context_use", "memory_use"} | ({"coherent"} if family == "llama" else set())
    assert {name for name, found in verdicts.items() if found == "fails"} >= asked
    absent = ALL - {"heads"} - asked
    assert {name for name, found in verdicts.items() if found == "not applicable"} == absent
    assert set(report["k"]) == {"memory", "context"}
    pages = {page.name for page in path.parent.glob("*.html")}
    assert pages >= {"heads.html", "curve-held-out.html"}
    assert "| claim | source | verdict |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--model", "no-such-model-here"], "ModelError: "), (["--controls", "0"], "--controls")],
)
def test_what_cannot_be_run_ends_with_one_error(
    study_file: StudyFile, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_file("conflict_pruning", "study")
    assert study.main(arguments) == 2
    assert reason in capsys.readouterr().err
