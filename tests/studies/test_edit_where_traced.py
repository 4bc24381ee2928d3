"""The study of where to edit: its claims follow what is planted, and it runs to the end."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import needle_folders
import numpy as np
import planted
import pytest
import xarray as xr

import mechlab as ml

StudyFile = Callable[[str, str], ModuleType]
ALL = {"traced", "order", "elsewhere", "no_guide"}
EFFECT = np.array([0.6, 0.1, 0.05, 0.02, 0.0])
SUCCESS = np.array([0.97, 0.95, 0.94, 0.3, 0.0])


@pytest.fixture(scope="module")
def claims(study_file: StudyFile) -> ModuleType:
    return study_file("edit_where_traced", "where_claims")


def handmade(
    claims: ModuleType,
    *,
    effect: np.ndarray = EFFECT,
    success: np.ndarray = SUCCESS,
    by_fact: float = 0.0,
    lost: float = 0.8,
    kept: float = 0.95,
) -> Any:
    """Measurements of 16 facts on which every claim holds, but for the changes."""
    random = np.random.default_rng(0)
    own = random.normal(size=(16, 5))
    noise = 0.01 * random.normal(size=(4, 16, 5))
    rewritten = success + by_fact * own + noise[1]
    cell = ("case", "layer")
    story = xr.Dataset(
        {
            "trace_effect": (cell, effect + 0.02 * own + noise[0]),
            "rewrite_score": (cell, rewritten),
            "case_score": (cell, rewritten + noise[2]),
            "neighbourhood": (cell, kept + noise[3]),
            "total_effect": (("stage", "case"), lost + noise[:2, :, 0]),
        },
        {"layer": range(5), "stage": ["before", "after"],
         "subject": ("case", [f"Land{i}" for i in range(16)])},
    )  # fmt: skip
    outcomes = ["rewrite_score", "case_score"]
    agreement = ml.trace_edit_agreement(story, outcomes=outcomes, resamples=40)
    return claims.Measured(story, agreement)


MOVED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "all is as the papers say": ({}, ALL),
    "nothing is lost with the subject": ({"lost": 0.05}, set()),
    "no output brings much back": ({"effect": EFFECT / 6}, ALL - {"traced"}),
    "late layers are the better ones": (
        {"success": SUCCESS[::-1], "effect": EFFECT},
        ALL - {"order"},
    ),
    "only the strongest layer can be edited": (
        {"success": np.array([0.97, 0.5, 0.4, 0.3, 0.0])},
        ALL - {"elsewhere"},
    ),
    "every layer holds as much": ({"effect": 0 * EFFECT + 0.5}, {"traced", "no_guide"}),
    "facts with more effect are edited better": ({"by_fact": 0.3}, ALL - {"no_guide"}),
    "neighbours change, too": ({"kept": 0.5}, ALL - {"elsewhere"}),
}


@pytest.mark.parametrize(("changes", "expected"), MOVED.values(), ids=MOVED)
def test_a_claim_holds_where_it_is_true_and_nowhere_else(
    claims: ModuleType, changes: dict[str, Any], expected: set[str]
) -> None:
    found = ml.claims.judge(claims.CLAIMS, handmade(claims, **changes))
    assert {name for name, outcome in found.items() if outcome.holds} == expected
    assert all(outcome.conditions or outcome.note for outcome in found.values())


@pytest.mark.parametrize(
    "family",
    [
        "llama",
        pytest.param("gpt2", marks=pytest.mark.slow),
        pytest.param("neox", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:key statistics of")
def test_random_weights_reach_their_verdicts(
    family: str,
    study_file: StudyFile,
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = study_file("edit_where_traced", "study")
    monkeypatch.setenv("MECHLAB_CACHE", str(tmp_path / "store"))
    arguments = ["--model", str(needle_folders.folder(family, tmp_path_factory)), "--count", "2"]
    arguments += ["--control-count", "1", "--all-facts", "--steps", "2", "--samples", "2"]
    arguments += ["--tokens", "2000", "--out", str(tmp_path / "out")]
    assert study.main(arguments) == 1, "a model with random weights knows nothing"
    assert planted.verdicts(tmp_path / "out") == dict.fromkeys(
        ["traced", "order", "elsewhere", "no_guide"], "fails"
    )
    assert list((tmp_path / "out").glob("*/layer_sweep.html"))
    assert "| layer 1 |" in capsys.readouterr().out


def test_a_model_that_is_not_there_is_one_error(
    study_file: StudyFile, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_file("edit_where_traced", "study")
    assert "ModelError" in planted.without_weights(study, capsys)
