"""The study of induction scores: both ways give the same numbers, and it says what it did."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

StudyFile = Callable[[str, str], ModuleType]
QUICK = ["--quick", "--threads", "1", "--repeats", "1", "--count", "3", "--length", "20"]
QUICK += ["--batch", "2"]


def test_scores_and_lags_equal_those_of_cached_attention(
    study_file: StudyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_file("speed", "induction")
    file = tmp_path / "induction.json"
    assert study.main([*QUICK, "--json", str(file)]) == 0
    parts = {part["part"]: part for part in json.loads(file.read_text())["parts"]}
    assert set(parts) == {"scores", "lags"}
    for part in parts.values():
        assert part["agree"] and part["spread"] > 10 * study.AGREEMENT
        own, other = (part["seconds"][name][0] for name in ("mechlab", "forward"))
        assert part["ratios"]["forward"]["median"] == pytest.approx(own / other)
    assert "3 prompts of 41 tokens, 2 at once" in capsys.readouterr().out


def test_numbers_that_differ_end_with_exit_code_1(
    study_file: StudyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_file("speed", "induction")
    title, ours, cached = study.PARTS["scores"]

    def off(case: object) -> np.ndarray:
        values: np.ndarray = cached(case) + 1e-4
        return values

    monkeypatch.setitem(study.PARTS, "scores", (title, ours, off))
    assert study.main([*QUICK, "--part", "scores"]) == 1
