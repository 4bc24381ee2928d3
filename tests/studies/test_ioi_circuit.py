"""The study of the IOI circuit: the procedure finds a planted circuit, and nothing beside it."""

import json
from dataclasses import replace
from types import ModuleType
from typing import Any

import circuits
import numpy as np
import planted
import pytest

import mechlab as ml

TEMPLATES = (
    "When {a} and {b} went , {c} gave to",
    "When {a} , {b} went and {c} gave to",
    "went {a} and {b} When , {c} gave to",
)
CLASSES = {
    "name movers": "mover",
    "S-inhibition": "inhibition",
    "induction and duplicate token": "duplicate",
}


@pytest.fixture(scope="module")
def study(study_file) -> ModuleType:
    return study_file("ioi_circuit", "study")


@pytest.fixture(scope="module")
def circuit() -> circuits.Circuit:
    return circuits.name_mover(norm="real")


def prompts(circuit: circuits.Circuit) -> ml.prompts.PromptSet:
    words = ml.prompts.IoiWords(TEMPLATES, circuits.NAMES, ("x",), ("x",))
    return ml.prompts.ioi(24, model=circuit.model, words=words)


def expected(circuit: circuits.Circuit, **moved: ml.Head) -> dict[str, tuple[ml.Head, ...]]:
    roles = {**circuit.heads, **moved}
    return {name: (roles[role],) for name, role in CLASSES.items()}


def test_exactly_the_planted_heads_are_found_and_none_on_the_untrained_twin(
    study, circuit, tmp_path
):
    options = study.parser().parse_args(["--out", str(tmp_path)])
    planted_heads = expected(circuit)
    finding, pages = study.study(circuit.model, prompts(circuit), planted_heads, options)
    found = {name: heads for name, heads in finding.record["found"].items() if heads}
    assert found == {name: [str(head)] for name, (head,) in planted_heads.items()}
    assert finding.exit_code == 0
    applied = {name for name, v in finding.verdicts.items() if v == "holds"}
    assert applied == {"task", *CLASSES}
    assert not any(outcome.holds for outcome in finding.control.values())
    assert all(page.exists() for page in pages)


@pytest.fixture(scope="module")
def stages(study, circuit) -> Any:
    return study.measure(circuit.model, prompts(circuit), expected(circuit))


@pytest.mark.parametrize(
    ("role", "wrong", "name"),
    [
        ("mover", ml.Head(2, 0), "name movers"),
        ("inhibition", ml.Head(1, 0), "S-inhibition"),
        ("duplicate", ml.Head(0, 2), "induction and duplicate token"),
    ],
)
def test_a_claim_about_other_heads_fails_and_about_the_planted_ones_holds(
    role, wrong, name, study, circuit, stages
):
    # A stage's receivers are heads of other classes: its effects are those of the right circuit.
    wrongly = replace(stages, circuit=expected(circuit, **{role: wrong}))
    for given, verdict in ((stages, "holds"), (wrongly, "fails")):
        outcome = ml.claims.judge(study.CLAIMS, given)[name]
        assert ml.claims.verdict(outcome, ml.claims.Outcome()) == verdict


def test_the_published_circuit_has_26_different_heads(study_file):
    claims = study_file("ioi_circuit", "ioi_claims")
    heads = [head for group in claims.PUBLISHED.values() for head in group]
    assert len(heads) == len(set(heads)) == 26
    assert set(claims.PUBLISHED) == set(claims.SIGN)


def test_overlap_counts_only_what_has_the_expected_sign(study_file):
    overlap = study_file("ioi_circuit", "ioi_claims")._overlap
    values = np.array([[3.0, 0.0], [1.0, -2.0]])
    assert overlap(values, ml.heads("L0H0", "L1H0")) == 1.0
    assert overlap(values, ml.heads("L0H0", "L1H1")) == 0.5
    assert overlap(-values, ml.heads("L1H1", "L0H1")) == 0.5, "an effect of 0 is none"


def test_backup_heads_are_those_that_write_more_without_the_movers(study, circuit):
    pairs = prompts(circuit)
    rise = study._rise_without(circuit.model, pairs, (circuit.heads["mover"],))
    mover = circuit.heads["mover"]
    assert np.isnan(rise.sel(layer=mover.layer, head=mover.head)).all()
    np.testing.assert_allclose(rise.fillna(0), 0, atol=1e-6)
    backup = circuits.backup(c=1.0, norm="real")
    rise = study._rise_without(backup.model, backup.pairs, (backup.heads["primary"],))
    assert ml.top_heads(rise.mean("prompt"), at_least=0.5) == [backup.heads["backup"]]


@pytest.mark.parametrize(
    "family",
    [
        "llama",
        pytest.param("gpt2", marks=pytest.mark.slow),
        pytest.param("neox", marks=pytest.mark.slow),
    ],
)
def test_random_weights_hold_no_circuit(family, study, model_folder, tmp_path, capsys):
    file = tmp_path / "heads.json"
    heads = {
        "name movers": ["L2H0"],
        "S-inhibition": ["L1H1"],
        "induction and duplicate token": ["L1H2"],
        "previous token": ["L0H0"],
    }
    file.write_text(json.dumps(heads))
    words = tmp_path / "words.json"
    templates = ["When {a} and {b} went to the {place} {c} gave to"]
    templates += ["the {place} of {a} and {b} is where {c} gave the book to"]
    names = [f"w{i}" for i in range(12)]
    content = {"templates": templates, "names": names, "places": ["city"], "objects": ["book"]}
    words.write_text(json.dumps(content))
    arguments = ["--model", str(model_folder(family, "words")), "--circuit", str(file)]
    arguments += ["--words", str(words), "--count", "12", "--out", str(tmp_path)]
    assert study.main(arguments) == 1, capsys.readouterr().err
    found = planted.verdicts(tmp_path)
    assert "holds" not in {v for name, v in found.items() if name != "task"}


def test_without_weights_it_says_where_to_put_them(study, capsys):
    said = planted.without_weights(study, capsys)
    assert said.startswith("ModelError: ") and "--model PATH" in said
    assert "hub cache" in said


def test_another_shape_needs_its_own_circuit(study, model_folder, capsys):
    assert study.main(["--model", str(model_folder("gpt2", "bpe")), "--count", "4"]) == 2
    assert "give this model's heads with --circuit" in capsys.readouterr().err


def test_unknown_classes_are_refused(study, model_folder, tmp_path, capsys):
    file = tmp_path / "heads.json"
    file.write_text('{"movers": ["L1H1"]}')
    folder = str(model_folder("gpt2", "bpe"))
    assert study.main(["--model", folder, "--circuit", str(file)]) == 2
    assert "classes must be among name movers" in capsys.readouterr().err


def test_pairs_of_one_template_are_not_tested(stages, study_file):
    claims = study_file("ioi_circuit", "ioi_claims")
    alone = replace(stages, groups=["one"] * len(stages.groups))
    assert claims.test_class(alone, "name movers").note.startswith("all pairs are of one template")
