"""The study of the CMR fit: both ways find the same cells, and it says what it did."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

StudyFile = Callable[[str, str], ModuleType]
QUICK = ["--heads", "4", "--fraction", "2", "--repeats", "1", "--threads", "1"]


def test_the_loop_over_cells_finds_the_same_and_is_scaled(
    study_file: StudyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cmr.json"
    assert study_file("speed", "cmr").main([*QUICK, "--json", str(file)]) == 0
    found = json.loads(file.read_text())["fit"]
    assert (found["heads"], found["heads_of_loop"], found["cells"]) == (4, 2, 4620)
    assert found["other_cells"] == 0 and found["distances"][1] > 0.01
    expected = found["seconds"]["loop"][0] / found["seconds"]["mechlab"][0]
    assert found["ratio"]["median"] == pytest.approx(expected)
    assert "(2 of 4 heads timed, and scaled)" in capsys.readouterr().out


def test_distances_that_differ_end_with_exit_code_1(
    study_file: StudyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_file("speed", "cmr")
    right = study.plain_fit

    def wrong(*given: Any) -> Any:
        distances, cells = right(*given)
        return distances * 1.01, cells

    monkeypatch.setattr(study, "plain_fit", wrong)
    assert study.main(["--heads", "1", "--repeats", "1"]) == 1
