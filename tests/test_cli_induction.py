"""`mechlab induction` and `mechlab cmr` on the shipped model, on given curves; what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import mechlab as ml
from mechlab.cli import app

pytestmark = pytest.mark.usefixtures("loaded_once")
FEW = ["--lists", "2", "--length", "10"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_heads_are_scored_once_and_both_commands_and_a_spec_show_the_same_run(
    cache: str, tmp_path: Path
) -> None:
    page = tmp_path / "heads.html"
    scored = run("induction", *FEW, "--cache", cache, "--json", "--html", str(page))
    assert scored.exit_code == 0, scored.output
    found = json.loads(scored.stdout)
    scores = [row["prefix_matching"] for row in found["heads"]]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0.3
    assert found["heads"][0]["peak_lag"] == 1
    assert page.is_file() and (tmp_path / "heads-copying.html").is_file()
    fitted = run("cmr", *FEW, "--cache", cache, "--json")
    assert fitted.exit_code == 0, fitted.output
    about = json.loads(fitted.stdout)
    assert about["run"] == found["run"]  # nothing is computed again
    assert about["figure"].endswith("-cmr.html")
    first = about["heads"][0]
    needed = {"distance", "peak_lag", "prefix_matching", "near_optimal", "p_matched", "p_walk"}
    assert needed <= first.keys()
    assert {"below_0.5", "below_0.1"} <= about["summary"].keys()
    spec = tmp_path / "spec.json"
    prompts = {"set": "repeated_tokens", "count": 2, "length": 10}
    about = {"method": "memory_heads", "model": "atlas", "prompts": prompts}
    spec.write_text(json.dumps(about))
    again = run("run", str(spec), "--estimate", "--cache", cache)
    assert again.exit_code == 0 and f"run {found['run']} is stored already" in again.stdout


def test_groups_of_heads_are_ablated_and_shown_beside_random_ones(cache: str) -> None:
    few = [*FEW, "--kinds", "zero", "--draws", "2", "--k", "2", "--cache", cache]
    cost = run("induction", *few, "--ablate", "--heads", "L4H4,L4H2", "--estimate")
    assert "up to 16 runs" in cost.stdout, cost.output  # 2 lists, twice, 4 sets
    done = run("induction", *few, "--ablate")
    assert done.exit_code == 0, done.output
    assert "cmr: L" in done.stdout and "induction: L" in done.stdout
    assert "copy loss (nats)" in done.stdout and "recall next (probability)" in done.stdout
    assert "icl score" not in done.stdout  # no texts, no number


def test_checkpoints_are_scored_one_by_one(cache: str) -> None:
    steps = ["--checkpoints", "--steps", "0,4000", "--cache", cache]
    done = run("induction", "--model", "echo", *FEW, *steps, "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["checkpoints"]
    assert [row["step"] for row in rows] == [0, 4000]
    stored = ml.Store(cache).find(method="memory_heads")
    assert sum(entry.model_name == "echo" for entry in stored) == 2


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_given_curves_are_fitted_without_a_model(ending: str, tmp_path: Path) -> None:
    path, lags = tmp_path / f"curves.{ending}", np.arange(-5, 6)
    curves = np.stack([lags == 1, lags == 0, np.zeros(11)])[None].astype(float)
    if ending == "npz":
        np.savez(path, lag_curve=curves, matching_score=np.array([[1.0, 0, 0]]))
    else:
        rows = [f"0,{h},{lag},{curves[0, h, i]}" for h in range(3) for i, lag in enumerate(lags)]
        path.write_text("\n".join(["layer,head,lag,value", *rows]))
    people = tmp_path / "people.csv"
    words = [f"s{i // 8},{i // 8},study,{i % 8 + 1},w{i % 8}" for i in range(16)]
    said = [f"s{s},{s},recall,{i + 1},w{w}" for s in range(2) for i, w in
            enumerate([(2, 3, 4, 0, 1, 6, 5, 7), (7, 5, 6, 2, 3, 1, 0, 4)][s])]  # fmt: skip
    people.write_text("\n".join(["subject,list,trial_type,position,item", *words, *said]))
    few = ["--null-draws", "50", "--html", str(tmp_path / "fit.html"), "--json"]
    done = run("cmr", "--curves", str(path), "--human", str(people), *few)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [row["head"] for row in found["heads"]] == ["L0H0", "L0H1"]  # a flat one has no fit
    best = found["heads"][0]
    assert best["distance"] < 1e-6 and (best["beta_enc"], best["peak_lag"]) == (1, 1)
    assert found["heads"][1]["human_distance"] is None  # nothing is left without lag 0
    assert best["human_distance"] > 0
    assert found["summary"]["fitted"] == 2
    assert ("prefix_matching" in best) == (ending == "npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["induction", "--k", "3"], "--k (of --ablate)"),
        (["induction", "--ablate", "--checkpoints"], "one of them"),
        (["induction", "--length", "400"], "longer than the context"),
        (["induction", "--length", "4"], "max_lag=5 of lists of 4"),
        (["induction", "--ablate", "--heads", "L1H1", "--texts", "no.txt"], "no file"),
        (["induction", "--ablate", "--estimate", "--seed", "9"], "not known yet"),
        (["cmr", "--source", "logits"], "source"),
        (["cmr", "--curves", "x.csv", "--estimate"], "as they are in the file"),
        (["cmr", "--curves", "x.csv", "--model", "atlas"], "--curves with --model"),
        (["cmr", "--curves", "setup.cfg"], "setup.cfg"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: list[str], message: str, cache: str) -> None:
    result = run(*arguments, "--cache", cache)
    assert result.exit_code == 2, result.output
    assert message.lower() in " ".join((result.stderr + result.stdout).lower().split())


def test_people_who_recalled_too_little_are_refused_before_any_run(tmp_path: Path) -> None:
    people = tmp_path / "people.csv"
    rows = [f"s,1,{kind},{i},w{i}" for kind in ("study", "recall") for i in range(1, 5)]
    people.write_text("\n".join(["subject,list,trial_type,position,item", *rows]))
    result = run("cmr", "--human", str(people), "--model", "no-such-model")
    assert result.exit_code == 2 and "crp lack the lags" in result.stderr, result.output
