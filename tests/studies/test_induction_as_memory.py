"""The study of induction as memory: claims follow what is planted, and it runs to the end."""

import os
import sys
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
LAYERS, HEADS, LISTS = 6, 8, 6
LAGS = np.arange(-5, 6)
CELL = {"beta_enc": 0.6, "beta_rec": 0.75, "gamma_ft": 0.3}
ALL = {"fits", "beyond_noise", "matching", "late", "human", "causal_cmr", "causal_induction"}
BOTH = {"causal_cmr", "causal_induction"}


@pytest.fixture
def claims(study_file: StudyFile, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = study_file("induction_as_memory", "memory_claims")
    _quick(study_file, monkeypatch)
    return found


def _quick(study_file: StudyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer draws, which decide no verdict here."""
    heads = study_file("induction_as_memory", "memory_heads")
    monkeypatch.setattr(heads, "NULL_DRAWS", 150)
    monkeypatch.setattr(heads, "RESAMPLES", 40)
    monkeypatch.setattr(study_file("induction_as_memory", "memory_measure"), "REDRAWN", 10)


def handmade_curves(*, like: int = 12, first: int = 36, peak: int = 1, flat: bool = False) -> Any:
    """Noise in all heads but `like` of them, from `first` on: the context model, or a peak."""
    random = np.random.default_rng(0)
    values = random.normal(size=(LAYERS * HEADS, len(LAGS)))
    model = ml.shipped_table().crp.sel(CELL, method="nearest").sel(lag=LAGS).values
    shape = model if peak == 1 else (peak == LAGS).astype(float)
    if not flat:
        noise = 0.02 * random.normal(size=(like, len(LAGS)))
        values[first : first + like] = 20 * shape / shape.max() + noise
    coords = {"layer": np.arange(LAYERS), "head": np.arange(HEADS), "lag": LAGS}
    made = values.reshape(LAYERS, HEADS, len(LAGS))
    return xr.DataArray(made, coords, ("layer", "head", "lag"))


def handmade_matching(*, like: int = 12, first: int = 36, level: float = 0.5) -> xr.DataArray:
    values = 0.01 * np.random.default_rng(1).random(LAYERS * HEADS)
    values[first : first + like] += level * np.linspace(1, 0.5, like)
    coords = {"layer": np.arange(LAYERS), "head": np.arange(HEADS)}
    return xr.DataArray(values.reshape(LAYERS, HEADS), coords, ("layer", "head"))


def handmade_ablation(
    own: float = 2.0,
    random: tuple[float, ...] = (0.2, 0.0, 0.1),
    *,
    mean: float | None = None,
    away: float = 0.0,
) -> xr.Dataset:
    """Without a group the loss rises by `own` nats, without random heads by `random`.

    `mean`: by so much with mean ablation instead. Recall falls by a tenth of it. `away`: random
    heads lie so many layers from those in whose place they stand.
    """
    noise = 0.01 * np.random.default_rng(2).normal(size=(LISTS, 2))
    names, rise, owner = ["intact"], [0.0], [""]
    for group in ("CMR", "induction"):
        names += [group, *(f"{group} random {i}" for i in range(len(random)))]
        rise += [own, *random]
        owner += ["", *[group] * len(random)]
    table = np.array([rise, rise])
    if mean is not None:
        table[1, [name in ("CMR", "induction") for name in names]] = mean
    lost = table + noise[:, :, None] * (table != 0)
    cell = ("prompt", "ablation", "head_set")
    return xr.Dataset(
        {"copy_loss": (cell, 1 + lost), "recall_next": (cell, 0.9 - lost / 10)},
        {
            "ablation": ["zero", "mean"],
            "head_set": names,
            "control_of": ("head_set", owner),
            "layer_distance": ("head_set", np.full(len(names), away)),
        },
    )


def handmade(
    claims: ModuleType,
    *,
    curves: xr.DataArray | None = None,
    corrected: xr.DataArray | None = None,
    matching: xr.DataArray | None = None,
    ablated: xr.Dataset | None = None,
) -> Any:
    """Measurements on which all claims hold, but for the changes."""
    curves = handmade_curves() if curves is None else curves
    matching = handmade_matching() if matching is None else matching
    lists = curves + 0.05 * xr.DataArray(
        np.random.default_rng(3).normal(size=(LISTS, *curves.shape)), dims=("prompt", *curves.dims)
    )
    heads_of = sys.modules["memory_heads"]
    own = heads_of.fitted(curves, matching)
    return claims.Measured(
        own,
        own if corrected is None else heads_of.fitted(corrected, matching),
        xr.Dataset({"curve_by_prompt": lists}),
        xr.Dataset(),
        handmade_ablation() if ablated is None else ablated,
    )


MOVED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "all is as the paper says": ({}, ALL),
    "no head has any shape": (
        {"curves": handmade_curves(flat=True)},
        BOTH,
    ),
    "heads attend to the same token": (
        {"curves": handmade_curves(peak=0)},
        ALL - {"fits", "human"},
    ),
    "only position makes the shape": (
        {"corrected": handmade_curves(flat=True)},
        ALL - {"beyond_noise"},
    ),
    "the first layers are CMR-like": (
        {"curves": handmade_curves(first=0), "matching": handmade_matching(first=0)},
        ALL - {"late"},
    ),
    "other heads match": (
        {"matching": handmade_matching(first=0)},
        ALL - {"fits", "matching", "human"},
    ),
    "ablation changes nothing": ({"ablated": handmade_ablation(0.0, (0.0, 0.0))}, ALL - BOTH),
    "random heads do as much": ({"ablated": handmade_ablation(2.0, (2.0, 2.1, 1.9))}, ALL - BOTH),
    "half of the random sets do more": (
        {"ablated": handmade_ablation(2.0, (3.5, 0.0, 3.5, 0.0))},
        ALL - BOTH,
    ),
    "a mean in their place does no harm": ({"ablated": handmade_ablation(mean=0.05)}, ALL - BOTH),
    "no random heads are left": ({"ablated": handmade_ablation(2.0, ())}, ALL - BOTH),
    "random heads come from other layers": ({"ablated": handmade_ablation(away=0.5)}, ALL - BOTH),
}


@pytest.mark.parametrize(("changes", "expected"), MOVED.values(), ids=MOVED)
def test_a_claim_holds_where_it_is_true_and_nowhere_else(
    claims: ModuleType, changes: dict[str, Any], expected: set[str]
) -> None:
    found = ml.claims.judge(claims.claims_about("toy"), handmade(claims, **changes))
    assert {name for name, outcome in found.items() if outcome.holds} == expected
    assert all(outcome.conditions or outcome.note for outcome in found.values())


def test_shares_are_compared_with_those_of_the_same_model(claims: ModuleType) -> None:
    measured = handmade(claims, curves=handmade_curves(like=13, first=35))
    held = {
        name: claims.replicated(measured, name).holds
        for name in ("EleutherAI/pythia-12b-deduped-v0", "pythia-410m")
    }
    assert held == {"EleutherAI/pythia-12b-deduped-v0": False, "pythia-410m": False}
    share = 100 * float((measured.found.fit.distance < 0.1).mean())
    assert share == pytest.approx(100 * 13 / 48)
    assert not claims.replicated(measured, "my-model").applies


def test_names_of_files_and_hubs_find_the_same_row(study_file: StudyFile) -> None:
    known_as = study_file("induction_as_memory", "memory_published").known_as
    assert {known_as(name) for name in ("gpt2_small", "openai-community/gpt2")} == {"gpt2"}
    assert known_as("EleutherAI/pythia-70m-deduped-v0") == "pythia-70m"
    assert known_as("EleutherAI/pythia-160m") == "pythia-160m", "in no table: as it is called"


# --- the whole study ------------------------------------------------------------------------------


def test_the_published_curves_give_what_was_published(
    study_file: StudyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.environ.get("MECHLAB_DATA"):
        pytest.skip("MECHLAB_DATA is unset: the published curves are not here")
    study = study_file("induction_as_memory", "study")
    _quick(study_file, monkeypatch)
    assert study.main(["--model", "--out", str(tmp_path)]) == 0
    assert set(planted.verdicts(tmp_path).values()) == {"holds"}
    assert (tmp_path / "published-gpt2" / "betas.html").exists()


def test_without_published_curves_a_reason_is_given(
    study_file: StudyFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = study_file("induction_as_memory", "study")
    for data, reason in ((None, "MECHLAB_DATA is unset"), (str(tmp_path), "no icl_cmr/*_heads")):
        with monkeypatch.context() as patch:
            patch.delenv("MECHLAB_DATA", raising=False)
            if data:
                patch.setenv("MECHLAB_DATA", data)
            assert study.main(["--model", "--out", str(tmp_path)]) == 0
        assert f"published curves skipped: {reason}" in capsys.readouterr().err


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
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = study_file("induction_as_memory", "study")
    _quick(study_file, monkeypatch)
    measuring = study_file("induction_as_memory", "memory_measure")
    monkeypatch.setattr(study.ml, "Store", planted.Unstored)
    monkeypatch.setattr(measuring, "WINDOW", ((30, 40), (5, 10)))
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(["The city of Paris is in France. " * 80] * 4), encoding="utf-8")
    folder = needle_folders.folder(family, tmp_path_factory)
    arguments = ["--model", str(folder), "--no-published", "--count", "4", "--length", "14"]
    arguments += ["--draws", "1", "--texts", str(texts), "--out", str(tmp_path)]
    assert study.main(arguments) == 1, "a model with random weights is no memory"
    found = planted.verdicts(tmp_path)
    assert set(found) == {*ALL, "replicated"} and found["replicated"] == "not applicable"
    assert {found[name] for name in ("fits", "human", *BOTH)} == {"fails"}
    pages = {page.stem for page in tmp_path.glob("*/*.html")}
    assert pages >= {"matching", "distance", "curves_cmr", "curves_induction"}
    printed = capsys.readouterr().out
    assert "icl_score without top CMR heads, mean: change" in printed
    assert "their matching score (CMR)" in printed and "their peak lag (CMR)" in printed


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "no-such-model-here"], "ModelError: "),
        (["--count", "3", "--draws", "0"], "--count from 4, --draws from 1"),
        (["--model", "echo", "--texts", "no-such-file"], "No such file"),
    ],
)
def test_what_cannot_be_run_ends_with_one_error(
    study_file: StudyFile, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_file("induction_as_memory", "study")
    assert study.main(["--no-published", *arguments]) == 2
    assert reason in capsys.readouterr().err
