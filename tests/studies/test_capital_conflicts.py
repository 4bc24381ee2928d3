"""The study of capital conflicts: its claims follow what is planted, and it runs to the end."""

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
N_LAYERS, N_HEADS, CONTROLS = 3, 4, ("memory control 0", "context control 0")
MEMORY, CONTEXT = ml.Head(1, 0), ml.Head(1, 2)
ALPHA = {"memory": -1.0, "context": -2.0}
ALL = {"memory_head", "in_context_head", "scaling_memory", "scaling_context", "frequency"}


@pytest.fixture
def claims(study_file: StudyFile) -> ModuleType:
    return study_file("capital_conflicts", "capital_claims")


@cache
def pairs_of(form: str) -> tuple[ml.prompts.PromptSet, ml.prompts.PromptSet]:
    return ml.split_pairs(ml.prompts.capital_conflicts(90, form=form))  # type: ignore[arg-type]


def handmade_part(
    claims: ModuleType,
    pairs: ml.prompts.PromptSet,
    *,
    written: Mapping[ml.Head, float] = {MEMORY: -2.0, CONTEXT: 1.5},  # noqa: B006
    moved: Mapping[str, float] = {"memory": 1.0, "context": 1.0},  # noqa: B006
    random: float = 0.0,
    middle: float = 100.0,
    seed: int = 0,
) -> Any:
    """Heads that write so much, and sets whose scaling hands over so large a share of answers.

    The context wins against countries of a rank above `middle`, before anything is scaled.
    """
    rng = np.random.default_rng(seed)
    size = (len(pairs), N_LAYERS, N_HEADS)
    values = 0.3 * rng.standard_normal(size)
    for head, mean in written.items():
        values[:, head.layer, head.head] += mean
    names = ["memory", "context", *CONTROLS]
    won = np.array(pairs.about("rank")) > middle
    share = np.zeros((len(pairs), len(names), 3, 3), np.float32)
    for i, name in enumerate(names):
        side = name.split()[0]
        part = moved[side] if name == side else random
        for j, alpha in enumerate((-2.0, -1.0, 1.0)):
            turned = (rng.random(len(pairs)) < part) & (alpha == ALPHA[side])
            context = np.where(turned, side == "memory", won)
            share[:, i, j, 0], share[:, i, j, 1] = context, ~context.astype(bool)
    scaling = xr.Dataset(
        {"share": (("prompt", "head_set", "alpha", "outcome"), share)},
        {
            "head_set": names,
            "alpha": [-2.0, -1.0, 1.0],
            "outcome": ["in_context", "memorised", "other"],
            "control_of": ("head_set", ["", "", "memory", "context"]),
        },
    )
    attribution = xr.DataArray(values, dims=("prompt", "layer", "head"))
    return claims.Part(pairs, attribution, scaling)


def handmade(claims: ModuleType, **changes: Any) -> Any:
    select, held = pairs_of("repeat")
    return claims.Measured(
        select=handmade_part(claims, select, seed=1, **changes),
        held=handmade_part(claims, held, seed=2, **changes),
        others={"question": handmade_part(claims, pairs_of("question")[1], seed=3, **changes)},
        heads={"memory": MEMORY, "context": CONTEXT},
        alpha=ALPHA,
    )


def held(claims: ModuleType, measured: Any) -> set[str]:
    return {claim.name for claim in claims.CLAIMS if claim.test(measured).holds}


MOVED = {
    "no memory head": ({"written": {CONTEXT: 1.5}}, ALL - {"memory_head"}),
    "a memory head like all of its layer": (
        {"written": {ml.Head(1, h): -2.0 for h in range(4)}},
        ALL - {"memory_head", "in_context_head"},
    ),
    "scaling moves nothing": (
        {"moved": {"memory": 0.0, "context": 0.0}},
        ALL - {"scaling_memory", "scaling_context"},
    ),
    "random heads move as much": ({"random": 1.0}, ALL - {"scaling_memory", "scaling_context"}),
    "the memory always wins": ({"middle": 999.0}, ALL - {"frequency", "scaling_context"}),
}


def test_all_claims_hold_where_heads_are_planted(claims: ModuleType) -> None:
    assert held(claims, handmade(claims)) == ALL


@pytest.mark.parametrize(("changes", "expected"), MOVED.values(), ids=MOVED)
def test_a_claim_fails_where_it_is_not_true(
    claims: ModuleType, changes: dict[str, Any], expected: set[str]
) -> None:
    assert held(claims, handmade(claims, **changes)) == expected


def test_heads_that_fail_in_one_other_wording_fail(claims: ModuleType) -> None:
    measured = handmade(claims)
    other = handmade_part(
        claims, pairs_of("question")[1], written={}, moved={"memory": 0.0, "context": 0.0}
    )
    assert held(claims, replace(measured, others={"question": other})) == {"frequency"}
    assert held(claims, replace(measured, others={})) == ALL


def test_heads_and_factors_are_those_that_do_most(claims: ModuleType) -> None:
    part = handmade(claims).select
    assert claims.choose_heads(part.attribution) == {"memory": MEMORY, "context": CONTEXT}
    assert claims.choose_alpha(part.scaling) == ALPHA


def test_few_pairs_are_not_tested(claims: ModuleType) -> None:
    measured = handmade(claims)
    few = measured.held.pairs[:7]
    small = replace(measured, held=handmade_part(claims, few))
    outcome = claims.CLAIMS[0].test(small)
    assert not outcome.holds and "7 held out" in outcome.note


class Unstored:
    """A store that keeps nothing and hands the whole set to the method: quick."""

    def run(self, function: Callable[..., xr.Dataset], *args: Any, **options: Any) -> xr.Dataset:
        return function(*args, **options)


@pytest.mark.parametrize(
    "family",
    [
        "llama",
        pytest.param("gpt2", marks=pytest.mark.slow),
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
    study = study_file("capital_conflicts", "study")
    monkeypatch.setattr(study.ml, "Store", Unstored)
    monkeypatch.setattr(study, "GRID", (0.0, 1.0, 2.0))
    folder = str(model_folder(family, "bpe"))
    forms = ["repeat", "question"] if family == "llama" else ["repeat"]
    quick = ["--count", "20", "--controls", "1", "--forms", *forms]
    code = study.main(["--model", folder, *quick, "--out", str(tmp_path / "out")])
    assert code == 1, "a model with random weights remembers nothing"
    (path,) = (tmp_path / "out").glob("*/verdicts.json")
    report = json.loads(path.read_text())
    assert set(report["claims"]) == ALL
    for claim in report["claims"].values():
        assert claim["verdict"] == "fails" and not claim["untrained"]["holds"]
        assert all(c["value"] is not None for c in claim["model"]["conditions"])
    assert {p.name for p in path.parent.glob("*.html")} == {"heads.html", "factors.html"}
    assert "| claim | source | verdict |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--model", "no-such-model-here"], "ModelError: "), (["--controls", "0"], "--controls")],
)
def test_what_cannot_be_run_ends_with_one_error(
    study_file: StudyFile, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_file("capital_conflicts", "study")
    assert study.main(arguments) == 2
    assert reason in capsys.readouterr().err
