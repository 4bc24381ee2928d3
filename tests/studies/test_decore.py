"""The study of DeCoRe: its claims follow what is planted, and it runs to the end."""

from collections.abc import Callable, Sequence
from functools import cache
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
RANDOM = ("random 0", "random 1", "random 2")
BOTH = {"faithful", "closed_book"}


@pytest.fixture
def claims(study_file: StudyFile) -> ModuleType:
    return study_file("decore", "decore_claims")


@cache
def pairs() -> ml.prompts.PromptSet:
    return ml.prompts.capital_conflicts(60)


def written(texts: Sequence[str]) -> xr.Dataset:
    return xr.Dataset({"text": ("prompt", [f" {text.strip()}." for text in texts])})


def answers(share: float) -> xr.Dataset:
    """The in-context answer on a share of the conflicts, at random; else the memorised one."""
    rare = np.random.default_rng(0).permutation(len(pairs())) / len(pairs()) < share
    each = zip(pairs(), rare, strict=True)
    return written([pair.answer if won else pair.wrong_answer for pair, won in each])


def handmade(
    claims: ModuleType,
    *,
    base: float = 0.5,
    contrast: float = 0.9,
    random: Sequence[float] = (0.5, 0.6, 0.4),
    facts: int = 100,
    known: float = 1.0,
    lost: int = 0,
) -> Any:
    """Measurements on which both claims hold, but for the changes."""
    asked = ml.prompts.world_facts(facts or 1)
    right = [f.target if i < known * facts else "no" for i, f in enumerate(asked)]
    after = ["no" if i < lost else text for i, text in enumerate(right)]
    shares = {"base": base, "DeCoRe": contrast, **dict(zip(RANDOM, random, strict=True))}
    return claims.Measured(
        pairs(),
        asked if facts else [],
        [ml.Head(0, 0)],
        {way: answers(share) for way, share in shares.items()},
        {way: written(after if way == "DeCoRe" else right) for way in shares},
        RANDOM,
    )


MOVED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "all is as the paper says": ({}, BOTH),
    "the contrast changes nothing": ({"contrast": 0.5}, {"closed_book"}),
    "random heads do as much": ({"random": (0.9, 0.9, 0.9)}, {"closed_book"}),
    "two of three random sets do as much": ({"random": (0.9, 0.0, 0.9)}, {"closed_book"}),
    "closed-book answers are lost": ({"lost": 20}, {"faithful"}),
    "some closed-book answers are lost": ({"lost": 4}, {"faithful"}),
    "too few questions to say that none is lost": ({"facts": 60}, {"faithful"}),
    "the model knows little": ({"known": 0.3}, {"faithful"}),
    "no question is asked": ({"facts": 0}, {"faithful"}),
}


@pytest.mark.parametrize(("changes", "expected"), MOVED.values(), ids=MOVED)
def test_a_claim_holds_where_it_is_true_and_nowhere_else(
    claims: ModuleType, changes: dict[str, Any], expected: set[str]
) -> None:
    found = ml.claims.judge(claims.CLAIMS, handmade(claims, **changes))
    assert {name for name, outcome in found.items() if outcome.holds} == expected
    assert all(outcome.conditions or outcome.note for outcome in found.values())


def test_an_answer_is_read_as_whole_words(claims: ModuleType) -> None:
    texts = xr.Dataset({"text": ("prompt", [" Paris.", "Parisian", " Par", "in Paris", ""])})
    assert claims.begins(texts, [" Paris"] * 5).values.tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("family", ["gpt2", "neox", "llama"])
def test_random_weights_reach_their_verdicts(
    family: str,
    study_file: StudyFile,
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = study_file("decore", "study")
    monkeypatch.setattr(study.ml, "Store", planted.Unstored)
    arguments = ["--model", str(needle_folders.folder(family, tmp_path_factory)), "--count", "4"]
    arguments += ["--facts", "3", "--all-facts", "--form", "atlas", "--needles", "40"]
    arguments += ["--depths", "1", "--controls", "1", "--out", str(tmp_path)]
    # A random model is sure of nothing, so that its own entropy would drown what it writes.
    alpha = ["--alpha", "0.5"] if family == "neox" else []
    assert study.main([*arguments, *alpha]) == 1, "a model with random weights remembers nothing"
    assert planted.verdicts(tmp_path) == dict.fromkeys(sorted(BOTH, reverse=True), "fails")
    assert "| claim | source | verdict |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "no-such-model-here"], "ModelError: "),
        (["--controls", "0", "--heads", "0"], "--controls, --heads"),
        (["--alpha", "much"], "argument --alpha: invalid"),
    ],
)
def test_what_cannot_be_run_ends_with_one_error(
    study_file: StudyFile, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_file("decore", "study")
    try:
        code = study.main(arguments)
    except SystemExit as left:  # of argparse, with its usage
        code = left.code
    assert code == 2 and reason in capsys.readouterr().err
