"""The study of head analyses: what it compares is the same computation, and it says what it did."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

StudyFile = Callable[[str, str], ModuleType]
QUICK = ["--quick", "--threads", "1", "--tokens", "6", "--fraction", "6", "--cells", "36"]
QUICK += ["--senders", "2"]


def test_all_three_comparisons_agree_and_are_written(
    study_file: StudyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_file("speed", "heads")
    file = tmp_path / "heads.json"
    assert study.main([*QUICK, "--json", str(file)]) == 0
    parts = {part["part"]: part for part in json.loads(file.read_text())["parts"]}
    assert {name: part["runs"] for name, part in parts.items()} == {
        "edges": 2 * 8 + 2 * 4,  # 2 heads of layer 0 to 8, of layer 1 to 4
        "logits": 12,
        "z": 3 * 6 * 4,
    }
    for name, part in parts.items():
        assert part["agree"] and part["difference"] <= study.AGREEMENT, name
        assert part["largest_effect"] > 10 * study.AGREEMENT, "too small to disagree"
        scale = part["runs"] / part["runs_timed"]
        seconds = part["seconds"]
        expected = scale * seconds["baseline_timed"][0] / seconds["mechlab"][0]
        assert part["ratio"]["median"] == pytest.approx(expected)
    assert parts["edges"]["runs_timed"] == 8
    out = capsys.readouterr().out
    assert "(8 of 24 runs timed, and scaled)" in out and "wanted 11: " in out


def test_numbers_that_differ_end_with_exit_code_1(
    study_file: StudyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_file("speed", "heads")
    right = study.one_run_per_head
    monkeypatch.setattr(study, "one_run_per_head", lambda *a: right(*a) + 1e-4)
    assert study.main([*QUICK, "--part", "logits"]) == 1


def test_the_sampled_cells_are_those_of_the_whole_grid(study_file: StudyFile) -> None:
    from transformer_lens import patching

    baselines = study_file("speed", "heads_baselines")
    case = baselines.head_case(4, quick=True)
    cells, some = baselines.z_cells(case, 7)
    with torch.no_grad():
        grid = patching.get_act_patch_attn_head_out_by_pos(
            case.model.bridge, case.tokens[1], case.caches[0], case.metric
        ).numpy()
    np.testing.assert_array_equal(some, grid[tuple(cells.T)])
    assert {layer for layer, _, _ in cells.tolist()} == {0, 1, 2}


def test_the_sampled_sources_are_those_of_all_sources(study_file: StudyFile) -> None:
    from transformer_lens import patching

    baselines = study_file("speed", "heads_baselines")
    case = baselines.head_case(4, quick=True)
    some = baselines.direct_paths(case, [(1, 2)])[0]
    with torch.no_grad():
        grid = patching.get_act_patch_direct_path_all_sources(
            case.model.bridge, case.tokens[1], *case.caches, case.metric, "q", verbose=False
        ).numpy()[1, 2]
    np.testing.assert_array_equal(some[2], grid[2])
    assert np.isnan(some[:2]).all()


def test_what_cannot_be_run_is_one_clear_error(
    study_file: StudyFile, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_file("speed", "heads")
    assert study.main([*QUICK, "--tokens", "65"]) == 2  # the tiny model's context is 64
    assert "65 tokens" in capsys.readouterr().err
