"""The study of the speed of edits: both ways are the same computation, and it says what it did."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

StudyFile = Callable[[str, str], ModuleType]
QUICK = ["--quick", "--threads", "1", "--repeats", "1", "--layer", "1", "--tokens", "128"]
QUICK += ["--length", "32", "--part"]


def test_both_ways_find_the_same_vector_and_the_same_moments(
    study_file: StudyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_file("speed", "editing")
    file = tmp_path / "editing.json"
    assert study.main([*QUICK, "value", "statistics", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert 0 < found["value"]["difference"] < 1e-3
    assert 0 < found["statistics"]["difference"] < 1e-5
    seconds = found["statistics"]["seconds"]
    ratio = found["statistics"]["ratio"]["float32"]["median"]
    assert ratio == pytest.approx(seconds["bare"][0] / seconds["float32"][0])
    assert "wanted 0.75" in capsys.readouterr().out


def test_other_moments_end_with_exit_code_1(
    study_file: StudyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_file("speed", "editing")
    right = study.moment_until

    def wrong(*args: Any) -> Any:
        return right(*args) * 1.01

    monkeypatch.setattr(study, "moment_until", wrong)
    assert study.main([*QUICK, "statistics"]) == 1
