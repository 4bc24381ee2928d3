"""The study of retrieval scores: both ways are the same computation, and it says what it did."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

StudyFile = Callable[[str, str], ModuleType]
QUICK = ["--quick", "--threads", "1", "--part", "time", "--lengths", "70", "110"]
QUICK += ["--depths", "4", "--steps", "5", "--fraction", "2"]


def test_both_ways_agree_and_the_sampled_times_are_scaled(
    study_file: StudyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_file("speed", "retrieval")
    file = tmp_path / "retrieval.json"
    assert study.main([*QUICK, "--json", str(file)]) == 0
    found = json.loads(file.read_text())["time"]
    assert (found["tests"], found["tests_of_baseline"]) == (8, 4)
    assert found["positions_compared"] == 4 * 5 * 2 * 4  # tests, steps, layers, heads
    assert found["positions_different"] == 0 and found["same_tokens"]
    assert found["distinct_positions"] > 20, "heads that all attend to one place could not disagree"
    seconds = found["seconds"]
    assert seconds["published"][0] == pytest.approx(2 * seconds["published_timed"][0])
    expected = seconds["published"][0] / seconds["mechlab"][0]
    assert found["ratio"]["median"] == pytest.approx(expected)
    assert "(4 of 8 tests timed, and scaled)" in capsys.readouterr().out


def test_positions_that_differ_end_with_exit_code_1(
    study_file: StudyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_file("speed", "retrieval")
    right = study.published

    def wrong(*args: Any, **options: Any) -> Any:
        found = right(*args, **options)
        found.attended[0, 0] += 1
        return found

    monkeypatch.setattr(study, "published", wrong)
    assert study.main(QUICK) == 1


def test_the_peak_lies_above_where_the_process_stood(study_file: StudyFile) -> None:
    """In the same unit, whatever the system counts in."""
    study = study_file("speed", "retrieval")
    options = study.parser().parse_args(["--quick", "--tokens", "600", "--steps", "2"])
    for way in study.WAYS:
        found = study.peak_memory(way, options)
        assert found["before_mb"] > 100  # an interpreter with torch
        assert found["growth_mb"] >= 0
