"""The study of fact editing: its claims follow what is planted, and it resumes from the store."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr

import mechlab as ml

StudyFile = Callable[[str, str], ModuleType]
N = 100
GOOD = {"efficacy": 1.0, "paraphrase": 0.95, "neighbourhood": 0.98, "edit_norm": 50.0}


@pytest.fixture
def claims(study_file: StudyFile) -> ModuleType:
    return study_file("fact_editing", "fact_editing_claims")


def result(**means: float) -> xr.Dataset:
    """Shares of so many cases that succeed, and a norm that varies a little."""
    held: dict[str, Any] = {}
    for name, mean in {**GOOD, **means}.items():
        draw = np.random.default_rng(len(name))
        share = draw.permutation(N) < round(mean * N)
        held[name] = ("case", mean + draw.normal(size=N) if name == "edit_norm" else share * 1.0)
    return xr.Dataset(held, {"subject": ("case", [f"country {n}" for n in range(N)])})


def handmade(claims: ModuleType, **ways: dict[str, float]) -> Any:
    """Measurements on which all claims hold, but for the changes."""
    held: dict[str, dict[str, float]] = {
        "R-ROME": {},
        "ROME": {"edit_norm": 60.0, "paraphrase": 0.6, "neighbourhood": 0.8},
        "p-ROME": {"paraphrase": 0.6, "neighbourhood": 0.8},
        "FT": {"neighbourhood": 0.5},
        "FT+L": {"paraphrase": 0.4},
    }
    measured = {way: result(**numbers, **ways.get(way, {})) for way, numbers in held.items()}
    return claims.Measured(result(), measured)


def holding(claims: ModuleType, measured: Any) -> set[str]:
    found = ml.claims.judge(claims.CLAIMS, measured)
    return {name for name, outcome in found.items() if outcome.holds}


def test_each_claim_holds_on_what_it_says_and_on_nothing_less(claims: ModuleType) -> None:
    every = {claim.name for claim in claims.CLAIMS}
    assert holding(claims, handmade(claims)) == every
    low = {"efficacy": 0.97, "paraphrase": 0.84, "neighbourhood": 0.84}
    for name, share in low.items():
        measured = handmade(claims)
        measured.ways["R-ROME"][name] = result(**{name: share})[name]
        assert "reaches" not in holding(claims, measured), name
    for claim, way, name in (
        ("ft_neighbours", "FT", "neighbourhood"),
        ("ftl_paraphrases", "FT+L", "paraphrase"),
        ("r_rome_better", "ROME", "paraphrase"),
        ("r_rome_better", "p-ROME", "neighbourhood"),
        ("smaller_norm", "ROME", "edit_norm"),
    ):
        measured = handmade(claims)
        measured.ways[way][name] = measured.ways["R-ROME"][name]
        assert holding(claims, measured) == every - {claim}


def test_efficacy_of_all_cases_has_the_binomial_bound(claims: ModuleType) -> None:
    found = claims.condition("efficacy", claims.by_subject(result(), "efficacy"))
    assert found.value == 1 and found.low == pytest.approx(0.025 ** (1 / N))


def test_a_way_that_was_not_run_is_not_judged(claims: ModuleType) -> None:
    measured = handmade(claims)
    del measured.ways["FT"]
    outcome = ml.claims.judge(claims.CLAIMS, measured)["ft_neighbours"]
    assert not outcome.applies and "FT" in outcome.note


def test_what_is_edited_is_nothing_that_the_settings_were_found_on(study_file: StudyFile) -> None:
    study = study_file("fact_editing", "study")
    cases = study.chosen_cases(study.parser().parse_args([]))
    subjects = {case.request.subject for case in cases}
    tuned_on = {request.subject for request in ml.prompts.world_edits(study.TUNED_ON, seed=0)}
    assert len(subjects) == 100 and not subjects & tuned_on
    texts = study.held_out(cases, 40)
    assert len(texts) == 40 and not [t for t in texts for s in subjects if f" {s} " in f" {t} "]


def test_finished_chunks_are_taken_from_the_store(
    study_file: StudyFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MECHLAB_CACHE", str(tmp_path))
    study = study_file("fact_editing", "study")
    options: Namespace = study.parser().parse_args(["--chunk", "2", "--count", "3"])
    model = ml.load_model("atlas")
    cases = study.chosen_cases(options)
    ran = []

    def run(some: ml.prompts.PromptSet) -> xr.Dataset:
        ran.append(len(some))
        return ml.evaluate_edit(model, some)

    first = study.in_chunks(model, "none", run, cases, options)
    again = study.in_chunks(model, "none", run, cases, options)
    assert ran == [2, 1] and first.sizes["case"] == 3
    xr.testing.assert_equal(first, again)
    summary = ml.edit_summary(again, before=first)
    assert float(summary.sel(metric="efficacy")["change"]) == 0
