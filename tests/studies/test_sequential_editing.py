"""The study of many edits: its claims follow what is planted, and it runs to the end."""

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
ALL = {"stable", "gentler", "collapse", "at_once"}
EDITS, TEXTS = 40, 12


@pytest.fixture(scope="module")
def claims(study_file: StudyFile) -> ModuleType:
    return study_file("sequential_editing", "sequence_claims")


def result(*, rise: float, held: float, norm: float = 1.0, before: float = 0.0) -> xr.Dataset:
    """A sequence of 40 edits, measured before the first and after the last."""
    random = np.random.default_rng(0)
    rare = random.permutation(EDITS) / EDITS
    own = np.stack([np.full(EDITS, np.nan), (rare < held).astype(float)])
    rises = np.stack([np.zeros(TEXTS), rise + 0.1 * random.normal(size=TEXTS)])
    return xr.Dataset(
        {
            "held": (("step", "edit"), own),
            "held_before": ("edit", (rare < before).astype(float)),
            "text_nll_rise": (("step", "prompt"), rises),
            "drift": ("step", [0.0, rise]),
            "norm": ("edit", norm * np.exp(0.1 * random.normal(size=EDITS))),
        },
        {"step": [0, EDITS], "subject": ("edit", [f"Land{i}" for i in range(EDITS)])},
        {"ended": ""},
    )


def handmade(claims: ModuleType, **changes: dict[str, float]) -> Any:
    """Measurements on which every claim holds, but for the changes of one way of editing."""
    ways: dict[str, dict[str, float]] = {
        "rome": {"rise": 4.0, "held": 0.5, "norm": 3.0},
        "r_rome": {"rise": 0.1, "held": 1.0},
        "memit": {"rise": 0.1, "held": 1.0},
    }
    made = {name: result(**{**usual, **changes.get(name, {})}) for name, usual in ways.items()}
    return claims.Measured({"rome": made["rome"], "r-rome": made["r_rome"]}, made["memit"])


MOVED: dict[str, tuple[dict[str, dict[str, float]], set[str]]] = {
    "all is as the papers say": ({}, ALL),
    "the model knew nothing": ({"r_rome": {"before": 0.5}}, set()),
    "R-ROME collapses as well": ({"r_rome": {"rise": 3.0}}, ALL - {"stable"}),
    "R-ROME forgets": ({"r_rome": {"held": 0.7}}, ALL - {"stable"}),
    "updates are alike": ({"rome": {"norm": 1.0}}, ALL - {"gentler"}),
    "ROME does no harm": ({"rome": {"rise": 0.2}}, ALL - {"collapse"}),
    "MEMIT misses many": ({"memit": {"held": 0.6}}, ALL - {"at_once"}),
    "MEMIT destroys the model": ({"memit": {"rise": 2.0}}, ALL - {"at_once"}),
}


@pytest.mark.parametrize(("changes", "expected"), MOVED.values(), ids=MOVED)
def test_a_claim_holds_where_it_is_true_and_nowhere_else(
    claims: ModuleType, changes: dict[str, dict[str, float]], expected: set[str]
) -> None:
    found = ml.claims.judge(claims.CLAIMS, handmade(claims, **changes))
    assert {name for name, outcome in found.items() if outcome.holds} == expected


def test_a_sequence_that_ended_early_is_not_stable(claims: ModuleType) -> None:
    measured = handmade(claims)
    short = measured.turns["r-rome"]
    short["drift"][1] = np.nan
    outcome = ml.claims.judge(claims.CLAIMS, measured)["stable"]
    assert claims.reached(short).step == 0 and not outcome.holds


@pytest.mark.parametrize(
    "family",
    [
        "gpt2",
        pytest.param("llama", marks=pytest.mark.slow),
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
    study = study_file("sequential_editing", "study")
    monkeypatch.setenv("MECHLAB_CACHE", str(tmp_path / "store"))
    arguments = ["--model", str(needle_folders.folder(family, tmp_path_factory)), "--count", "2"]
    arguments += ["--batch", "3", "--control-count", "1", "--every", "1", "--steps", "2"]
    arguments += ["--tokens", "2000", "--out", str(tmp_path / "out")]
    assert study.main(arguments) == 1, "a model with random weights knows nothing"
    assert set(planted.verdicts(tmp_path / "out")) == ALL
    assert "holds" not in planted.verdicts(tmp_path / "out").values()
    out = capsys.readouterr().out
    assert "| rome | 2 |" in out and "| MEMIT | 3 |" in out


def test_a_model_that_is_not_there_is_one_error(
    study_file: StudyFile, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_file("sequential_editing", "study")
    assert "ModelError" in planted.without_weights(study, capsys)
