"""`mechlab retrieval`: detect, mask and decode on the shipped model; what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mechlab.cli import app

FEW = ["--lengths", "96", "--depths", "2", "--tokens", "4"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["retrieval", *arguments])


def test_heads_are_detected_masked_and_contrasted(cache: Path) -> None:
    detected = run(*FEW, "--cache", str(cache), "--json")
    assert detected.exit_code == 0, detected.output
    found = json.loads(detected.stdout)
    assert found["found"] == 2 and found["heads"][0]["score"] == 1
    scores = [row["score"] for row in found["heads"]]  # of answered prompts, as in the text
    assert scores == sorted(scores, reverse=True)
    assert [row["success"] for row in found["prompts"]] == [True, True]
    assert Path(found["figure"]).is_file()

    masked = run(*FEW, "--method", "mask", "--k", "20", "--draws", "1", "--cache", str(cache))
    assert masked.exit_code == 0, masked.output
    assert "recall, nothing masked: 100.0 %" in masked.stdout
    assert "20 chosen heads: 0.0 %" in masked.stdout

    text = ["--prompt", "The capital of Poland is", "--heads", "L5H0,L4H1"]
    page = cache / "written.html"
    drawn = ["--html", str(page), "--cache", str(cache)]
    written = run("--method", "decode", *text, "--tokens", "3", *drawn)
    assert written.exit_code == 0, written.output
    assert "written tokens" in page.read_text()
    assert "The capital of Poland is| Warsaw" in written.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "guess"], "Allowed: detect, mask, recall, decode"),
        (["--alpha", "1"], "--alpha (of --method decode)"),
        (["--method", "decode", "--alpha", "x", "--heads", "L1H1"], "entropy, or a number from 0"),
        (["--method", "recall"], "Name some"),
        (["--method", "recall", "--heads", "L99H0"], "heads that atlas does not have: L99H0"),
        (["--lengths", "4000"], "context"),
        (["--form", "psalm"], "form"),
        (["--method", "mask", "--estimate", "--seed", "7"], "heads, which are not known yet"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: list[str], message: str, cache: Path) -> None:
    result = run(*arguments, "--cache", str(cache))
    assert result.exit_code == 2
    assert message.lower() in " ".join((result.stderr + result.stdout).lower().split())
