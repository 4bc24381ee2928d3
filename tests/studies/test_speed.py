"""The study of speed: it measures what it says, and what it compares is the same computation."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import mechlab as ml

StudyFile = Callable[[str, str], ModuleType]
QUICK = ["--quick", "--threads", "1", "--samples", "2", "--repeats", "1", "--fraction", "6"]


def test_a_run_measures_everything_and_agrees(
    study_file: StudyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_file("speed", "study")
    file = tmp_path / "speed.json"
    assert study.main([*QUICK, "--case", "gpt2-12", "--json", str(file)]) == 0
    (case,) = json.loads(file.read_text())["cases"]
    assert (case["tokens"], case["layers"], case["cells"]) == (12, 3, 36)
    assert case["agree"] and case["difference"] <= study.AGREEMENT
    assert case["largest_effect"] > 100 * study.AGREEMENT, "effects too small to disagree"
    assert set(case["side"]) == {
        "published, last logits only",
        "published, through the bridge",
        "TransformerLens loop, 1 sample",
        "mechlab, 1 sample",
    }
    assert all(part["difference"] <= study.AGREEMENT for part in case["side"].values())
    assert case["ratio"]["median"] == pytest.approx(
        case["seconds"]["published"][0] / case["seconds"]["mechlab"][0]
    )
    assert case["floor_seconds"][0] == pytest.approx(case["operations"] / case["rates"][0])
    out = capsys.readouterr().out
    assert "published procedure" in out and "wanted 7: " in out


def test_numbers_that_differ_end_with_exit_code_1(study_file, monkeypatch, capsys):
    study = study_file("speed", "study")
    right = study.published
    monkeypatch.setattr(study, "published", lambda *a, **k: right(*a, **k) + 1e-4)
    monkeypatch.setattr(study, "side_baselines", lambda *_: {})
    assert study.main([*QUICK, "--case", "gpt2-12"]) == 1


def test_the_operations_of_a_plain_run_are_counted_exactly(study_file):
    measure = study_file("speed", "speed_measure")
    study = study_file("speed", "study")
    case = study.gpt2_case("gpt2-12", study.parser().parse_args(QUICK))
    ml.verify(case.model)
    with measure.counted_work(case.model) as work, torch.no_grad():
        case.model.bridge(case.tokens, use_cache=False)
    width, n_layers, vocab, tokens = 64, 3, 400, 12
    assert work.operations == 2 * tokens * (12 * width**2 * n_layers + width * vocab)
    before = work.operations
    with torch.no_grad():
        case.model.bridge(case.tokens, use_cache=False)
    assert work.operations == before, "nothing is counted afterwards"


def test_baselines_leave_the_model_as_found(study_file):
    study, baselines = (study_file("speed", name) for name in ("study", "speed_baselines"))
    case = study.gpt2_case("gpt2-12", study.parser().parse_args(QUICK))
    first = study.trace_effects(case)
    baselines.transformer_lens_loop(case)()
    baselines.published_through_bridge(case, [(0, 2)])
    np.testing.assert_array_equal(study.trace_effects(case), first)


def test_a_fraction_of_the_cells_is_spread_over_all_layers(study_file):
    study, baselines = (study_file("speed", name) for name in ("study", "speed_baselines"))
    case = study.gpt2_case("gpt2-12", study.parser().parse_args(QUICK))
    every, some = baselines.cells_of(case), baselines.cells_of(case, 6)
    assert len(every) == 36 and len(some) == 6
    assert {layer for layer, _ in some} == {0, 1, 2}


def test_memory_growth_sees_a_large_tensor(study_file):
    measure = study_file("speed", "speed_measure")
    assert measure.peak_growth(lambda: torch.ones(25_000_000)) == pytest.approx(100, abs=20)


def test_repetitions_alternate(study_file):
    measure = study_file("speed", "speed_measure")
    order: list[str] = []
    seconds = measure.alternate({n: lambda n=n: order.append(n) for n in "ab"}, 3)
    assert order == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_one_clear_error(study_file, capsys):
    study = study_file("speed", "study")
    assert study.main(["--device", "cuda"]) == 2
    assert "torch sees no CUDA device here" in capsys.readouterr().err


def test_a_model_that_is_not_shipped_is_reported_and_left_out(study_file, monkeypatch, capsys):
    study = study_file("speed", "study")

    def absent(*_: object, **__: object) -> None:
        raise ml.ModelError("unknown model 'atlas'.\n  Choose another.")

    monkeypatch.setattr(study.ml, "load_model", absent)
    assert study.main([*QUICK, "--case", "atlas"]) == 0
    assert "atlas: not measured (unknown model 'atlas'.)" in capsys.readouterr().out
