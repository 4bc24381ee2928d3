"""The study of retrieval heads: its claims follow what is planted, and it runs to the end."""

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
LAYERS, HEADS, LENGTHS, DEPTHS = 6, 8, (128, 256), 6
FIRST = ml.Head(4, 1)
ALL = {"exist", "sparse", "intrinsic", "causal", "closed_book"}


@pytest.fixture
def claims(study_file: StudyFile, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = study_file("retrieval_heads", "retrieval_claims")
    monkeypatch.setattr(found, "RESAMPLES", 60)
    return found


def coordinates() -> dict[str, Any]:
    """Two texts with a needle at each length and depth."""
    cells = [(t, n, d) for t in range(2) for n in LENGTHS for d in range(DEPTHS)]
    return {
        "group": ("prompt", [f"text {t}" for t, _, _ in cells]),
        "needle": ("prompt", [str(cell) for cell in cells]),
        "length": ("prompt", [n for _, n, _ in cells]),
    }


def handmade_scores(
    *, strong: int = 2, apart: bool = False, recall: float = 100.0, turned: bool = False
) -> xr.Dataset:
    """Graded scores of all heads, the first ones strong; `apart`: others at every length.

    `turned`: another head is the first in each text, and does nothing in the other.
    """
    random, coords = np.random.default_rng(0), coordinates()
    count, size = 2 * len(LENGTHS) * DEPTHS, LAYERS * HEADS
    level = np.tile(np.linspace(0.09, 0.0, size), (count, 1))
    level[:, :strong] = 0.9
    if apart:
        long = np.array(coords["length"][1]) == LENGTHS[1]
        level[long] = level[long][:, ::-1]
    if turned:
        text = np.array([name == "text 1" for name in coords["group"][1]])
        level[:] = 0.0
        level[text, 0], level[~text, 1] = 0.9, 0.9
    order = [FIRST.layer * HEADS + FIRST.head]
    order += [i for i in range(size) if i not in order]
    values = np.zeros((count, size))
    values[:, order] = level * (1 + 0.01 * random.standard_normal((count, 1)))
    score = xr.DataArray(
        values.reshape(count, LAYERS, HEADS), dims=("prompt", "layer", "head"), coords=coords
    ).assign_coords(layer=np.arange(LAYERS), head=np.arange(HEADS))
    told = xr.DataArray(np.full(count, recall), dims="prompt", coords=coords)
    answered = told > 50
    return xr.Dataset(
        {
            "retrieval_score_all": score,
            "retrieval_score": score.where(answered),
            "rouge1_recall": told,
            "success": answered,
        }
    )


def handmade_recall(
    own: float, random: tuple[float, ...] = (20.0, 0.0, 10.0), *, facts: int = 0, some: int = 0
) -> xr.Dataset:
    """Recall falls by `own` points with two heads masked, on the first `some` facts by all."""
    coords = {} if facts else coordinates()
    count = facts or len(coords["group"][1])
    effect = np.zeros((count, 1 + len(random)))
    effect[:, 0], effect[:, 1:] = -own, -np.array(random)
    effect[:some, 0] = -100.0
    sets = {
        "k": ("head_set", [2] * (1 + len(random))),
        "is_control": ("head_set", [False, *[True] * len(random)]),
    }
    return xr.Dataset(
        {
            "effect": (("prompt", "head_set"), effect),
            "unmasked_recall": ("prompt", np.full(count, 100.0)),
        },
        coords | sets,
    )


def handmade(claims: ModuleType, **changes: Any) -> Any:
    parts = {
        "scores": handmade_scores(),
        "recall": handmade_recall(90.0),
        "closed": handmade_recall(0.0, facts=100),
    }
    return claims.Measured(**(parts | changes), k=2)


def held(claims: ModuleType, measured: Any) -> set[str]:
    return {n for n, found in ml.claims.judge(claims.CLAIMS, measured).items() if found.holds}


NOWHERE = handmade_recall(0.0, facts=100).isel(prompt=slice(0))
MOVED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "all is as the paper says": ({}, ALL),
    "every fourth head is strong": ({"scores": handmade_scores(strong=12)}, ALL - {"sparse"}),
    "other heads at other lengths": (
        {"scores": handmade_scores(apart=True)},
        ALL - {"intrinsic"},
    ),
    "the first head of one text does nothing in the other": (
        {"scores": handmade_scores(turned=True)},
        ALL - {"exist", "sparse"},
    ),
    "needles are not found": ({"scores": handmade_scores(recall=0.0)}, {"causal", "closed_book"}),
    "masking changes nothing": (
        {"recall": handmade_recall(0.0, (0.0, 0.0))},
        ALL - {"causal", "closed_book"},
    ),
    "random heads do as much": (
        {"recall": handmade_recall(90.0, (90.0, 95.0, 85.0))},
        ALL - {"causal"},
    ),
    "one of three random sets does as much": (
        {"recall": handmade_recall(90.0, (90.0, 0.0, 90.0))},
        ALL - {"causal"},
    ),
    "closed-book answers are lost too": (
        {"closed": handmade_recall(40.0, facts=100)},
        ALL - {"closed_book"},
    ),
    "some closed-book answers are lost": (
        {"closed": handmade_recall(0.0, facts=100, some=5)},
        ALL - {"closed_book"},
    ),
    "too few questions to say that none is lost": (
        {"closed": handmade_recall(0.0, facts=60)},
        ALL - {"closed_book"},
    ),
    "no question is answered": ({"closed": NOWHERE}, ALL - {"closed_book"}),
}


@pytest.mark.parametrize(("changes", "expected"), MOVED.values(), ids=MOVED)
def test_a_claim_holds_where_it_is_true_and_nowhere_else(
    claims: ModuleType, changes: dict[str, Any], expected: set[str]
) -> None:
    assert held(claims, handmade(claims, **changes)) == expected


def test_what_was_not_measured_leaves_a_note(claims: ModuleType) -> None:
    measured = handmade(claims, scores=handmade_scores(recall=0.0), closed=NOWHERE)
    found = ml.claims.judge(claims.CLAIMS, measured)
    noted = {name: one.note for name, one in found.items() if not one.conditions}
    assert set(noted) == {"sparse", "intrinsic", "closed_book"} and all(noted.values())


def test_questions_of_which_none_changes_are_bounded_as_binomial(claims: ModuleType) -> None:
    lost = xr.DataArray(np.zeros(60), dims="prompt")
    share = (5 - claims.kept("", lost, 5.0, 100.0).low) / 100
    assert (1 - share) ** 60 == pytest.approx(0.025), "so rare is a sample without any"


def test_the_interval_of_a_correlation_holds_what_was_measured(claims: ModuleType) -> None:
    scores = handmade_scores().retrieval_score
    noise = 0.05 * np.random.default_rng(1).standard_normal(scores.shape)
    value = claims.correlation_of_lengths(scores + noise)
    low, high = claims.resampled(scores + noise, claims.correlation_of_lengths)
    assert low < value < high
    (alone,) = {*scores.isel(prompt=[0]).needle.values}
    assert np.isnan(claims.resampled(scores.isel(prompt=[0]), claims.share_strong)).all(), alone


@pytest.mark.parametrize("family", ["gpt2", "neox", "llama"])
def test_random_weights_reach_their_verdicts(
    family: str,
    study_file: StudyFile,
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = study_file("retrieval_heads", "study")
    monkeypatch.setattr(study.ml, "Store", planted.Unstored)
    folder = needle_folders.folder(family, tmp_path_factory)
    form = "text" if family == "gpt2" else "atlas"
    lengths = ["300", "330"] if form == "text" else ["40", "60"]
    arguments = ["--model", str(folder), "--form", form, "--lengths", *lengths, "--depths", "1"]
    arguments += ["--texts", "2", "--facts", "3", "--all-facts", "--curve", "1", "--draws", "1"]
    code = study.main([*arguments, "--tokens", "3", "--out", str(tmp_path)])
    assert code == 1, "a model with random weights retrieves nothing"
    found = planted.verdicts(tmp_path)
    assert set(found) == ALL and set(found.values()) == {"fails"}
    pages = {page.stem for page in tmp_path.glob("*/*.html")}
    assert pages == {"scores", "heads", "needles", "depths", "closed_book"}
    assert "| claim | source | verdict |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "no-such-model-here"], "ModelError: "),
        (["--texts", "1", "--draws", "0"], "--texts takes whole numbers from 2; --draws"),
    ],
)
def test_what_cannot_be_run_ends_with_one_error(
    study_file: StudyFile, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study_file("retrieval_heads", "study").main(arguments) == 2
    assert reason in capsys.readouterr().err
