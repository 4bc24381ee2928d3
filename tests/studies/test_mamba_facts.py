"""The study of facts in Mamba: its scan and its training, its claims on planted data, and a run."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import xarray as xr

import mechlab as ml

StudyFile = Callable[[str, str], ModuleType]
N_LAYERS, N_CASES = 7, 24
TINY = {"layers": 3, "width": 16, "rows": 4, "steps": 3, "warmup": 1}


@pytest.fixture
def training(study_file: StudyFile) -> ModuleType:
    return study_file("mamba_facts", "mamba_training")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the tiny model is trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def claims(study_file: StudyFile) -> ModuleType:
    return study_file("mamba_facts", "mamba_claims")


# --- the model that is trained -------------------------------------------------------------------


def test_the_quick_scan_has_the_logits_and_gradients_of_transformers(
    study_file: StudyFile, training: ModuleType
) -> None:
    scan = study_file("mamba_facts", "mamba_scan")
    model = training.build(training.Recipe(**TINY))
    tokens = torch.randint(0, 3000, (3, 7), generator=torch.Generator().manual_seed(0))

    def found(logits: torch.Tensor) -> list[torch.Tensor]:
        model.zero_grad()
        logits.log_softmax(-1)[..., 7].sum().backward()
        return [logits.detach(), *(one.grad.clone() for one in model.parameters())]

    ours = found(scan.mamba_logits(model, tokens))
    theirs = found(model(tokens, use_cache=False).logits)
    with scan.quick_scan():
        replaced = found(model(tokens, use_cache=False).logits)
    for one, other, third in zip(ours, replaced, theirs, strict=True):
        torch.testing.assert_close(one, third, atol=1e-6, rtol=1e-3)
        torch.testing.assert_close(other, third, atol=1e-6, rtol=1e-3)
        assert one.abs().max() > 0


def test_a_training_that_was_stopped_gives_the_same_folder(
    training: ModuleType, tmp_path: Path
) -> None:
    recipe = training.Recipe(**TINY)

    def stop(step: int, _: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    whole = training.trained(recipe, ml.Store(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        training.trained(recipe, ml.Store(tmp_path / "parts"), save_every=1, report=stop)
    parts = training.trained(recipe, ml.Store(tmp_path / "parts"), save_every=1)
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    assert json.loads((whole / "recipe.json").read_text())["recipe"]["steps"] == 3
    assert len(np.load(parts / "losses.npy")) == 3
    fewer = training.trained(replace(recipe, steps=2), ml.Store(tmp_path / "whole"))
    assert (fewer / "model.safetensors").read_bytes() != (parts / "model.safetensors").read_bytes()


def test_no_row_holds_a_sentence_that_is_held_out(training: ModuleType) -> None:
    batch = training.batches(training.Recipe(rows=64))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(ml.organisms.path("atlas")))
    tokens, weights = zip(*(batch(step) for step in range(4)), strict=True)
    text = "\n".join(tokenizer.batch_decode(np.concatenate(tokens), skip_special_tokens=True))
    told = text.replace(". ", ".\n").splitlines()
    closed = {f"{fact.prompt} {fact.target}." for fact in training.facts(held_out=True)}
    known = {f"{fact.prompt} {fact.target}." for fact in training.facts(held_out=False)}
    assert not closed & set(told) and len(known & set(told)) > 200
    assert len(closed) == 2 * 4 * 197 and len(known) == 10 * 4 * 197
    assert set(np.unique(weights)) == {np.float32(0.2), np.float32(1.0)}


# --- claims --------------------------------------------------------------------------------------

GOOD_LAYERS = {
    "out_proj": [0.94, 0.95, 0.93, 0.8, 0.6, 0.4, 0.05],
    "in_proj_ssm": [0.72, 0.9, 0.94, 0.9, 0.6, 0.5, 0.05],
    "in_proj_gate": [0.94, 0.92, 0.9, 0.6, 0.5, 0.4, 0.1],
}
TRACED = {
    ("resid_post", "last_subject"): [0.8, 0.7, 0.6, 0.4, 0.2, 0.1, 0.0],
    ("resid_post", "last_token"): [0.0, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9],
    ("mixer_out", "last_subject"): [0.1, 0.2, 0.1, 0.0, 0.0, 0.0, 0.0],
    ("mixer_out", "last_token"): [0.0, 0.0, 0.0, 0.1, 0.3, 0.2, 0.1],
}
ROLES = ["first_subject", "last_subject", "first_subsequent", "last_token"]


def handmade(
    claims: ModuleType,
    sweep: dict[str, list[float]] = GOOD_LAYERS,
    traced: dict[tuple[str, str], list[float]] = TRACED,
    spread: float = 0.03,
) -> Any:
    """Measurements with these scores and effects, cases and facts spread around them."""
    draws = np.random.default_rng(0)
    level = np.array([sweep[site] for site in claims.SITES])[..., None]
    above = {"efficacy": 0.04, "paraphrase": 0.0, "neighbourhood": -0.02}
    cells = {}
    for name, more in above.items():
        noise = spread * draws.standard_normal((3, N_LAYERS, N_CASES))
        cells[name] = (("site", "layer", "case"), (level + more + noise).clip(0.001, 1))
    coords: dict[str, Any] = {"site": list(claims.SITES), "layer": range(N_LAYERS)}
    effect = np.zeros((N_CASES, 2, N_LAYERS, 4))
    sites = ["resid_post", "mixer_out"]
    for (site, role), values in traced.items():
        effect[:, sites.index(site), :, ROLES.index(role)] = values
    effect += spread * draws.standard_normal(effect.shape)
    dims = ("prompt", "site", "layer", "pos")
    trace = xr.Dataset(
        {"indirect_effect": (dims, effect)},
        {
            "site": sites,
            "layer": range(N_LAYERS),
            "token_role": (("prompt", "pos"), [ROLES] * N_CASES),
        },
    )
    return claims.Measured(trace, xr.Dataset(cells, coords))


def changed(site: str, layer: int, score: float) -> dict[str, Any]:
    rows = {name: list(row) for name, row in GOOD_LAYERS.items()}
    rows[site][layer] = score
    return {"sweep": rows}


def flat(*keys: tuple[str, str]) -> dict[str, Any]:
    return {"traced": {key: [0.3] * 7 if key in keys else row for key, row in TRACED.items()}}


MOVED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "all is as published": ({}, set()),
    "one early layer is poor": (changed("out_proj", 1, 0.6), {"out_proj_broad", "out_proj_parts"}),
    "an early layer is far from the best": (changed("out_proj", 0, 0.82), {"out_proj_broad"}),
    "a late layer works": (changed("out_proj", 5, 0.9), {"out_proj_late"}),
    "the first layer is as good": (changed("in_proj_ssm", 0, 0.94), {"in_proj_ssm"}),
    "the gate of an early layer fails": (changed("in_proj_gate", 1, 0.7), {"in_proj_gate"}),
    "the subject matters in all layers": (flat(("resid_post", "last_subject")), {"early_site"}),
    "the last token matters in all layers": (flat(("resid_post", "last_token")), {"late_site"}),
    "mixers write the last token early": (flat(("mixer_out", "last_token")), {"late_site"}),
    "facts that do not agree": (
        {"spread": 2.0},
        {"early_site", "late_site", "out_proj_broad", "out_proj_parts", "in_proj_ssm",
         "in_proj_gate", "out_proj_late"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "failing"), MOVED.values(), ids=MOVED)
def test_a_claim_fails_where_it_is_not_true_and_nowhere_else(
    claims: ModuleType, changes: dict[str, Any], failing: set[str]
) -> None:
    found = ml.claims.judge(claims.CLAIMS, handmade(claims, **changes))
    assert {name for name, outcome in found.items() if not outcome.holds} == failing


def test_the_score_is_the_harmonic_mean_of_mean_parts(claims: ModuleType) -> None:
    measured = handmade(claims)
    cell = measured.sweep.sel(site="out_proj", layer=2)
    means = [float(cell[name].mean()) for name in claims.METRICS]
    drawn = claims.scores(measured.sweep, resamples=50)
    assert float(drawn.sel(site="out_proj", layer=2)[0]) == pytest.approx(
        3 / sum(1 / mean for mean in means)
    )
    assert drawn[1:].std("sample").max() > 0


# --- the whole study -----------------------------------------------------------------------------


@pytest.fixture
def small(study_file: StudyFile, cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments, and settings, of a study that takes seconds."""
    sweep = study_file("mamba_facts", "mamba_sweep")
    monkeypatch.setenv("MECHLAB_CACHE", str(cache))
    for name, value in {"TOKENS": 1_500, "CONTEXTS": 1, "PARAPHRASES": 1, "NEIGHBOURS": 1}.items():
        monkeypatch.setattr(sweep, name, value)
    model = ["--layers", "3", "--width", "16", "--steps", "1", "--all-facts", "--edit-steps", "1"]
    return [*model, "--facts", "2", "--samples", "1", "--cases", "2", "--control", "2"]


def test_random_weights_reach_their_verdicts_and_no_edit_is_made_twice(
    study_file: StudyFile, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_file("mamba_facts", "study")
    made: list[tuple[str, int, str]] = []
    edit = ml.rank_one_edit

    def counted(model: ml.Model, request: Any, **options: Any) -> Any:
        made.append((options["site"], options["layer"], request.subject))
        return edit(model, request, **options)

    monkeypatch.setattr(study.ml, "rank_one_edit", counted)
    # The same model again for a control: all that is measured of it must be stored already.
    monkeypatch.setattr(study.ml, "untrained", lambda model, seed: model)
    assert study.main([*small, "--out", str(tmp_path)]) == 1, "one step of training teaches nothing"
    found = json.loads((tmp_path / "verdicts.json").read_text())["claims"]
    assert {claim["verdict"] for claim in found.values()} == {"fails"} and len(found) == 7
    assert (tmp_path / "sweep.html").stat().st_size > 10_000
    assert len(made) == len(set(made)) == 3 * 3 * 2  # projections, layers, cases


@pytest.mark.slow
def test_a_second_run_reads_the_model_and_its_control_back(
    study_file: StudyFile,
    small: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = study_file("mamba_facts", "study")
    arguments = [*small, "--out", str(tmp_path)]
    assert study.main(arguments) == 1
    first = capsys.readouterr().out

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a stored edit was made anew")

    monkeypatch.setattr(study.ml, "rank_one_edit", never)
    assert study.main(arguments) == 1
    assert capsys.readouterr().out == first


def test_what_cannot_be_run_ends_with_one_error(
    study_file: StudyFile, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    study = study_file("mamba_facts", "study")
    monkeypatch.setenv("MECHLAB_CACHE", str(cache))
    assert study.main(["--cases", "1", "--edit-steps", "0"]) == 2
    assert "--cases from 2; --edit-steps from 1" in capsys.readouterr().err
    tiny = ["--layers", "3", "--width", "16", "--steps", "1"]
    assert study.main(tiny) == 2, "it knows no fact that could be edited"
    assert "PromptError" in capsys.readouterr().err
