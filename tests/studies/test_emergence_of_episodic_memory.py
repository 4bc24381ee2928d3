"""The study of emergence: claims follow what is planted, and `echo` recalls what followed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr

import mechlab as ml

StudyFile = Callable[[str, str], ModuleType]
STEPS, LISTS, PROBES, LENGTH = 8, 5, 3, 20
LAGS = np.arange(-5, 6)
LATE = np.array([0, 0, 0, 0.02, 0.1, 0.8, 0.95, 1.0])
"""Share of the final height that something has at each checkpoint."""
ALL = {"contiguity", "asymmetry", "serial_recall", "together", "ends", "needed", "specific"}


@pytest.fixture
def claims(study_file: StudyFile, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = study_file("emergence_of_episodic_memory", "emergence_claims")
    monkeypatch.setattr(found, "RESAMPLES", 20)
    return found


def by_head(course: np.ndarray, height: float, *, seed: int) -> Any:
    """A number of every head, `[checkpoint, prompt, layer, head]`, of which two rise."""
    noise = 0.001 * np.random.default_rng(seed).normal(size=(STEPS, LISTS * PROBES, 2, 2))
    noise[:, :, 1] += height * course[:, None, None]
    return ("checkpoint", "prompt", "layer", "head"), noise


def handmade(
    claims: ModuleType,
    *,
    course: np.ndarray = LATE,
    near: float = 0.2,
    ahead: float = 0.3,
    edges: float = 0.05,
    at: int = 1,
    left: float = 0.02,
    loss: np.ndarray = LATE,
    random: tuple[float, float] = (0.1, 0.3),
    sets: int = 3,
) -> Any:
    """Measurements on which all claims hold, but for the changes."""
    lists = sys.modules["emergence_measure"].lists_of(LISTS, LENGTH, PROBES, 0)
    attention = xr.Dataset(
        {
            "contiguity": by_head(course, near, seed=0),
            "asymmetry": by_head(course, ahead, seed=1),
            "primacy": by_head(course, edges, seed=2),
            "recency": by_head(course, edges, seed=3),
        },
        {"layer": [0, 1], "head": [0, 1]},
    )
    crp = np.full((STEPS, LISTS * PROBES, 2, len(LAGS)), 0.01)
    crp += 0.001 * np.random.default_rng(4).random(crp.shape)
    crp[:, :, 0, LAGS == at] += 0.9 * LATE[:, None, None]
    crp[:, :, 1, LAGS == at] += 0.9 * left * LATE[:, None, None]
    recall = xr.Dataset(
        {"probability": (("checkpoint", "prompt", "head_set", "lag"), crp)},
        {"head_set": ["intact", "induction"], "lag": LAGS},
    )
    nats = np.full((STEPS, LISTS, 1, 2), 5.0)
    nats[..., 1] -= 4.9 * loss[:, None, None]
    nats += 0.01 * np.random.default_rng(5).random(nats.shape)
    copied = xr.Dataset(
        {"loss": (("checkpoint", "prompt", "head_set", "copy"), nats)},
        {"head_set": ["intact"], "copy": [1, 2]},
    )
    heads = [ml.Head(1, 0), ml.Head(1, 1)]
    kinds = dict.fromkeys(("zero", "mean"), recall)
    last = handmade_last(random, sets)
    return claims.Measured(heads, lists, xr.Dataset(), attention, kinds, copied, last)


def handmade_last(random: tuple[float, float], sets: int) -> xr.Dataset:
    """A harm of 0.9 to 1.1, beside random sets that do so much."""
    signs = {"recall_next": -1, "copy_loss": 1}
    names = ["intact", "induction", *(f"induction random {i}" for i in range(sets))]
    values = {"effect": 1.0, "effect_low": 0.9, "effect_high": 1.1}
    values |= {"random_low": random[0], "random_high": random[1]}
    cell = ("outcome", "ablation", "head_set")
    table = {}
    for name, value in values.items():
        both = np.array(list(signs.values()))[:, None, None] * np.full((2, 2, len(names)), value)
        table[name] = (cell, both)
    return xr.Dataset(
        table,
        {
            "outcome": list(signs),
            "ablation": ["zero", "mean"],
            "head_set": names,
            "control_of": ("head_set", ["", "", *["induction"] * sets]),
            "layer_distance": ("head_set", np.zeros(len(names))),
        },
    )


MOVED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "all is as the papers say": ({}, ALL),
    "attention is not contiguous": ({"near": 0.0}, ALL - {"contiguity", "together"}),
    "attention is contiguous from the start": (
        {"course": np.ones(STEPS)},
        ALL - {"contiguity", "asymmetry", "together"},
    ),
    "attention prefers what came before": ({"ahead": -0.3}, ALL - {"asymmetry"}),
    "the output repeats the probe": ({"at": 0}, ALL - {"serial_recall", "together", "needed"}),
    "the loss falls before": (
        {"loss": np.array([0, 0.9, 0.91, 0.9, 0.92, 0.91, 0.9, 0.9])},
        ALL - {"together"},
    ),
    "attention prefers the middle": ({"edges": -0.05}, ALL - {"ends"}),
    "most of the recall is left": ({"left": 0.7}, ALL - {"needed"}),
    "one random set does as much": ({"random": (0.1, 1.0)}, ALL - {"specific"}),
    "no random heads are left": ({"sets": 0}, ALL - {"specific"}),
}


@pytest.mark.parametrize(("changes", "expected"), MOVED.values(), ids=MOVED)
def test_a_claim_holds_where_it_is_true_and_nowhere_else(
    claims: ModuleType, changes: dict[str, Any], expected: set[str]
) -> None:
    found = ml.claims.judge(claims.CLAIMS, handmade(claims, **changes))
    assert {name for name, outcome in found.items() if outcome.holds} == expected
    assert all(outcome.conditions or outcome.note for outcome in found.values())


def test_echo_learns_serial_recall_and_loses_it_with_its_induction_heads(
    claims: ModuleType, study_file: StudyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_file("emergence_of_episodic_memory", "study")
    arguments = ["--checkpoints", "4000", "0", "2135", "--count", "4", "--length", "24"]
    arguments += ["--probes", "2", "--draws", "1", "--out", str(tmp_path)]
    assert study.main(arguments) == 1, "no other heads of the layer are left to compare with"
    (file,) = tmp_path.glob("*/verdicts.json")
    found = json.loads(file.read_text())["claims"]
    assert set(found) == ALL and found["specific"]["verdict"] == "fails"
    for name in ("serial_recall", "needed"):
        trained, control = (found[name][side]["conditions"][0] for side in ("model", "untrained"))
        assert trained["value"] > 0.1 > 10 * control["value"], name
    pages = {page.stem for page in tmp_path.glob("*/*.html")}
    assert pages >= {"emergence", "matching", "contiguity", "recency", "output_crp"}
    assert "L1H" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "no-such-model-here", "--checkpoints", "1", "2", "3"], "Error: "),
        (["--model", "atlas"], "atlas comes with no checkpoints"),
        (["--count", "1", "--draws", "0"], "--count from 4, --draws from 1"),
        (["--length", "20", "--probes", "11"], "--probes up to --length minus 10"),
        (["--checkpoints", "0", "0", "4000"], "--checkpoints: three different steps"),
    ],
)
def test_what_cannot_be_run_ends_with_one_error(
    study_file: StudyFile, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study_file("emergence_of_episodic_memory", "study").main(arguments) == 2
    assert reason in capsys.readouterr().err
