"""The study of repeated data: its language and training, its claims on planted data, and a run."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr

import mechlab as ml

StudyFile = Callable[[str, str], ModuleType]
TINY = {"layers": 1, "width": 8, "inner": 8, "words": 24, "rows": 4, "steps": 6, "warmup": 1}
N_PROMPTS = 12


@pytest.fixture
def training(study_file: StudyFile) -> ModuleType:
    return study_file("repeated_data", "repeated_training")


@pytest.fixture
def claims(study_file: StudyFile) -> ModuleType:
    return study_file("repeated_data", "repeated_claims")


# --- what is trained on ---------------------------------------------------------------------------


def all_rows(training: ModuleType, recipe: Any) -> list[tuple[int, ...]]:
    batch = training.batches(recipe)
    return [tuple(row) for step in range(recipe.steps) for row in batch(step)[0].tolist()]


def test_repeated_rows_come_as_often_as_asked_and_the_others_are_those_of_no_repetition(
    training: ModuleType,
) -> None:
    none = training.Recipe(**TINY)
    recipe = replace(none, share=0.5, repeats=3)
    rows, unique = all_rows(training, recipe), all_rows(training, none)
    often = Counter(rows)
    assert sorted(often.values()) == [1] * 12 + [3] * 4 and recipe.distinct == 4
    assert max(Counter(unique).values()) == 1
    assert {row for row, times in often.items() if times == 1} <= set(unique)
    assert all(len(row) == 25 and row[0] == 0 and min(row[1:]) > 1 for row in rows)


def test_rows_repeat_their_own_stretches_and_paragraphs_do_not(study_file: StudyFile) -> None:
    language = study_file("repeated_data", "repeated_language")

    def repeated(copied: float) -> float:
        rows = language.rows_of(np.random.default_rng(0), 100, 48, copied).tolist()
        found = [
            tuple(row[at : at + 4]) in {tuple(row[j : j + 4]) for j in range(1, at)}
            for row in rows
            for at in range(1, 45)
        ]
        return float(np.mean(found))

    assert repeated(0.0) < 0.05
    assert repeated(0.7) > 0.2


def test_a_text_is_read_back_as_the_row_it_was_made_of(study_file: StudyFile) -> None:
    language = study_file("repeated_data", "repeated_language")
    row = language.rows_of(np.random.default_rng(1), 1, 24, 0.5)[0]
    ids = language.tokenizer()(language.text_of(row), add_special_tokens=False)["input_ids"]
    assert ids == row[1:].tolist()


def test_a_training_that_was_stopped_gives_the_same_folder(
    training: ModuleType, tmp_path: Path
) -> None:
    recipe = training.Recipe(**TINY, share=0.5, repeats=3)

    def stop(step: int, _: float) -> None:
        if step == 4:
            raise KeyboardInterrupt

    whole = training.trained(recipe, ml.Store(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        training.trained(recipe, ml.Store(tmp_path / "parts"), save_every=3, report=stop)
    parts = training.trained(recipe, ml.Store(tmp_path / "parts"), save_every=3)
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    assert json.loads((whole / "recipe.json").read_text())["recipe"]["repeats"] == 3
    assert len(np.load(parts / "losses.npy")) == 6


# --- claims ---------------------------------------------------------------------------------------

AS_PUBLISHED = {
    "test_loss": [2.0, 2.02, 2.2, 2.1],
    "copies": [0.5, 0.55, 1.5, 0.7],
    "prefix_matching": [1.6, 1.5, 0.9, 1.4],
    "copying": [8.0, 7.5, 4.0, 7.0],
    "icl": [-1.0, -0.95, -0.6, -0.9],
    "best_head": [0.8, 0.8, 0.5, 0.7],
}
"""By repetitions 1, 10, 100, 1000."""


def handmade(claims: ModuleType, spread: float = 0.01, **changes: list[float]) -> Any:
    """Measurements with these means, two seeds, prompts spread around them."""
    draws = np.random.default_rng(0)
    levels = {**AS_PUBLISHED, **changes}

    def values(name: str) -> Any:
        mean = np.array(levels[name])[:, None, None]
        return mean + spread * draws.standard_normal((4, 2, N_PROMPTS))

    over = {"test_loss": "text", "icl": "text"}
    data = {
        name: (("repeats", "seed", over.get(name, "list")), values(name))
        for name in levels
        if name != "copies"
    }
    copied = np.stack([3.5 + 0 * values("copies"), *[values("copies")] * 3], axis=-1)
    data["copy_loss"] = (("repeats", "seed", "paragraph", "copy"), copied)
    coords = {"repeats": [1, 10, 100, 1000], "seed": [0, 1], "copy": [1, 2, 3, 4]}
    return claims.Measured(xr.Dataset(data, coords))


MIDDLE = {"worst_in_the_middle", "copying_hurt", "induction_hurt", "context_hurt"}
MOVED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "all is as published": ({}, set()),
    "most repetitions are worse still": (
        {"test_loss": [2.0, 2.02, 2.2, 2.3]}, {"worst_in_the_middle"}),
    "few repetitions are as bad": ({"test_loss": [2.0, 2.2, 2.2, 2.1]}, {"worst_in_the_middle"}),
    "copying is as it was": ({"copies": [0.5] * 4}, {"copying_hurt"}),
    "copying is hurt in proportion": ({"copies": [0.5, 0.52, 0.84, 0.7]}, {"copying_hurt"}),
    "heads match as before": ({"prefix_matching": [1.6] * 4}, {"induction_hurt"}),
    "heads write as before": ({"copying": [8.0] * 4}, {"induction_hurt"}),
    "heads write nothing at all": ({"copying": [0.1, 0.1, 0.0, 0.1]}, {"induction_hurt"}),
    "context helps as before": ({"icl": [-1.0] * 4}, {"context_hurt"}),
    "no head matches": ({"best_head": [0.1] * 4}, {"learned"}),
    "models that learn nothing": (
        {"test_loss": [4.16] * 4, "copies": [4.16] * 4, "prefix_matching": [0.2] * 4,
         "copying": [0.0] * 4, "icl": [0.0] * 4, "best_head": [0.05] * 4},
        MIDDLE | {"learned"}),
    "prompts that do not agree": ({"spread": 5.0}, MIDDLE | {"learned"}),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "failing"), MOVED.values(), ids=MOVED)
def test_a_claim_fails_where_it_is_not_true_and_nowhere_else(
    claims: ModuleType, changes: dict[str, Any], failing: set[str]
) -> None:
    found = ml.claims.judge(claims.CLAIMS, handmade(claims, **changes))
    assert {name for name, outcome in found.items() if not outcome.holds} == failing


def test_a_claim_must_hold_for_every_seed(claims: ModuleType) -> None:
    measured = handmade(claims)
    data = measured.data.copy(deep=True)
    data["icl"][2, 1] = data["icl"][0, 1]
    (found,) = [one for one in claims.CLAIMS if one.name == "context_hurt"]
    assert found.test(measured).holds
    assert not found.test(claims.Measured(data)).holds
    assert found.test(claims.Measured(data)).conditions[0].value == pytest.approx(0.2, abs=0.02)


def test_what_is_lost_is_a_share_of_what_was_gained_over_chance(claims: ModuleType) -> None:
    chance = float(np.log(64))
    none = xr.DataArray([[chance - 2.0] * 3, [chance - 0.05] * 3], dims=["seed", "text"])
    found = claims.lost(none + 0.5, none)
    np.testing.assert_allclose(found[0], 0.25)
    assert np.isnan(found[1]).all(), "next to nothing was gained, so no share can be lost"


# --- the whole study ------------------------------------------------------------------------------


class MeasuresUnstored(ml.Store):
    """A store of models alone: writing many small results takes most of the time."""

    def run(self, function: Any, model: Any, prompts: Any, **options: Any) -> xr.Dataset:
        options.pop("progress", None)
        found: xr.Dataset = function(model, prompts, **options)
        return found


def test_two_steps_of_training_teach_nothing_and_no_model_is_trained_twice(
    study_file: StudyFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = study_file("repeated_data", "study")
    monkeypatch.setenv("MECHLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ml, "Store", MeasuresUnstored)
    small = ["--layers", "1", "--width", "8", "--steps", "2", "--repeats", "2", "4", "8"]
    arguments = [*small, "--seeds", "3", "--count", "4", "--out", str(tmp_path / "out")]
    assert study.main(arguments) == 1
    found = json.loads((tmp_path / "out" / "verdicts.json").read_text())["claims"]
    assert {claim["verdict"] for claim in found.values()} == {"fails"} and len(found) == 5
    assert (tmp_path / "out" / "lost.html").stat().st_size > 10_000
    assert "| measured | none | 2 times |" in capsys.readouterr().out

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was trained anew")

    monkeypatch.setattr(ml.organisms, "train_language_model", never)
    assert study.main([*arguments, "--train-only"]) == 0
    assert len(set(capsys.readouterr().out.split())) == 4


def test_what_cannot_be_run_ends_with_one_error(study_file: StudyFile, capsys: Any) -> None:
    study = study_file("repeated_data", "study")
    assert study.main(["--repeats", "10", "5", "--share", "0", "--width", "9"]) == 2
    told = capsys.readouterr().err
    assert "three or more rising" in told and "--share" in told and "multiples of 4" in told
