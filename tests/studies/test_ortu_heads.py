"""The study of fact against counterfactual: planted heads are found, and no others."""

import json
from types import ModuleType
from typing import Any

import circuits
import planted
import pytest

import mechlab as ml


@pytest.fixture(scope="module")
def study(study_file) -> ModuleType:
    return study_file("ortu_heads", "study")


@pytest.fixture(scope="module")
def circuit() -> circuits.Circuit:
    return circuits.conflict(norm="real")


def planted_heads(circuit: circuits.Circuit) -> dict[str, tuple[ml.Head, ...]]:
    heads = circuit.heads
    return {"promote": (heads["copy"],), "suppress": (heads["fact"], heads["anti"])}


def options(study: ModuleType, out: Any) -> Any:
    return study.parser().parse_args(["--out", str(out), "--controls", "2"])


def test_exactly_the_planted_heads_are_found(study, circuit, tmp_path):
    finding, pages = study.study(
        circuit.model, planted.conflicts(), planted_heads(circuit), options(study, tmp_path)
    )
    assert finding.record["found"] == {"promote": ["L1H2"], "suppress": ["L1H1", "L2H3"]}
    assert finding.verdicts == dict.fromkeys(("promote", "suppress", "turned_up"), "holds")
    assert finding.exit_code == 0
    assert not any(outcome.holds for outcome in finding.control.values()), "the untrained twin"
    assert all(page.exists() for page in pages)


@pytest.mark.parametrize(
    "heads",
    [
        {"promote": ml.heads("L1H0"), "suppress": ml.heads("L2H0", "L2H1")},
        {"promote": ml.heads("L1H1"), "suppress": ml.heads("L1H2")},
    ],
    ids=["other heads", "heads turned round"],
)
def test_claims_about_wrong_heads_fail(heads, study, circuit, tmp_path):
    measured = study.measure(circuit.model, planted.conflicts(), heads, options(study, tmp_path))
    outcomes = ml.claims.judge(study.CLAIMS, measured)
    assert [outcome.holds for outcome in outcomes.values()] == [False] * 3
    assert all(outcome.conditions for outcome in outcomes.values()), "tested, and not left out"


@pytest.mark.parametrize("family", ["neox", "llama", pytest.param("gpt2", marks=pytest.mark.slow)])
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
