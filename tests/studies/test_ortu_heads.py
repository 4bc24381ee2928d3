"""The study of fact against counterfactual: planted heads are found, and no others."""

import json
from types import ModuleType
from typing import Any

import circuits
import planted
import pytest

import mechlab as ml


@pytest.fixture
def study(study_file) -> ModuleType:
    return study_file("ortu_heads", "study")


@pytest.fixture(scope="module")
def circuit() -> circuits.Circuit:
    return circuits.conflict(norm="real")


def run(study: ModuleType, circuit: circuits.Circuit, out: Any, **heads: list[ml.Head]) -> Any:
    planted_heads = {
        "promote": (circuit.heads["copy"],),
        "suppress": (circuit.heads["fact"], circuit.heads["anti"]),
    }
    options = study.parser().parse_args(["--out", str(out), "--controls", "2"])
    finding, pages = study.study(
        circuit.model, planted.conflicts(), {**planted_heads, **heads}, options
    )
    assert all(page.exists() for page in pages)
    return finding


def test_exactly_the_planted_heads_are_found(study, circuit, tmp_path):
    finding = run(study, circuit, tmp_path)
    assert finding.record["found"] == {"promote": ["L1H2"], "suppress": ["L1H1", "L2H3"]}
    assert finding.verdicts == dict.fromkeys(("promote", "suppress", "turned_up"), "holds")
    assert finding.exit_code == 0
    assert not any(outcome.holds for outcome in finding.control.values()), "the untrained twin"


def test_claims_about_other_heads_fail(study, circuit, tmp_path):
    finding = run(
        study, circuit, tmp_path, promote=ml.heads("L1H0"), suppress=ml.heads("L2H0", "L2H1")
    )
    assert finding.verdicts == dict.fromkeys(("promote", "suppress", "turned_up"), "fails")
    assert finding.exit_code == 1


def test_heads_turned_round_are_told_by_their_sign(study, circuit, tmp_path):
    heads = {"promote": [circuit.heads["fact"]], "suppress": [circuit.heads["copy"]]}
    finding = run(study, circuit, tmp_path, **heads)
    assert set(finding.verdicts.values()) == {"fails"}


@pytest.mark.parametrize("family", ["gpt2", "neox", "llama"])
def test_random_weights_hold_no_such_heads(family, study, model_folder, tmp_path, capsys):
    file = tmp_path / "heads.json"
    file.write_text(json.dumps({"promote": ["L1H1"], "suppress": ["L2H0", "L2H3"]}))
    arguments = ["--model", str(model_folder(family, "bpe")), "--heads", str(file)]
    arguments += ["--count", "12", "--controls", "1", "--out", str(tmp_path)]
    assert study.main(arguments) == 1, capsys.readouterr().err
    assert set(planted.verdicts(tmp_path)) == {"promote", "suppress", "turned_up"}
    assert "holds" not in planted.verdicts(tmp_path).values()


def test_the_papers_file_can_be_read(study, model_folder, tmp_path):
    rows = [
        {
            "base_prompt": f"{name} is in",
            "template": "{}: " + f"{name} is in" + "{}. " + f"{name} is in",
            "target_true": " Rome",
            "target_new": " Lima",
            "prompt": f"Redefine: {name} is in Lima. {name} is in",
        }
        for name in ("Big Ben", "The river")
    ]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    options = study.parser().parse_args(["--data", str(file), "--count", "1"])
    (pair,) = study.read_pairs(ml.load_model(str(model_folder("gpt2", "bpe"))), options)
    assert (pair.answer.strip(), pair.wrong_answer.strip()) == ("Lima", "Rome")
    assert study.groups([pair]) == ["Lima"]


def test_without_weights_it_says_where_to_put_them(study, capsys):
    said = planted.without_weights(study, capsys)
    assert said.startswith("ModelError: ") and "--model PATH" in said


def test_another_shape_needs_its_own_heads(study, model_folder, capsys):
    assert study.main(["--model", str(model_folder("gpt2", "bpe")), "--count", "4"]) == 2
    assert "give this model's heads with --heads" in capsys.readouterr().err


def test_both_groups_must_be_named(study, model_folder, tmp_path, capsys):
    file = tmp_path / "heads.json"
    file.write_text('{"promote": ["L1H1"]}')
    folder = str(model_folder("gpt2", "bpe"))
    assert study.main(["--model", folder, "--heads", str(file)]) == 2
    assert "needs the groups promote, suppress" in capsys.readouterr().err
