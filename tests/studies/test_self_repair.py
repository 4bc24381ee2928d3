"""The study of self-repair: claims hold on planted repair, and fail where there is none."""

from functools import cache
from types import ModuleType
from typing import Any

import circuits
import planted
import pytest

import mechlab as ml


@pytest.fixture
def claims(study_file) -> ModuleType:
    return study_file("self_repair", "repair_claims")


def backup(**options: float) -> ml.Model:
    return circuits.made("backup", **options).model


@cache
def repaired(claims: ModuleType, model: ml.Model) -> Any:
    pairs = planted.conflicts()
    result = ml.self_repair(model, pairs, token="answer")
    return claims.Repaired(result, [f"{p.clean}" for p in pairs], ["one"] * len(pairs))


def held(claims: ModuleType, model: ml.Model) -> set[str]:
    found = ml.claims.judge(claims.CLAIMS, repaired(claims, model))
    return {name for name, outcome in found.items() if outcome.holds}


PLANTED: dict[str, tuple[dict[str, float], set[str]]] = {
    "a backup head": ({"c": 0.5}, {"direct_exceeds_total", "compensation"}),
    "an erasing MLP": ({"c": 0.0, "erase": 0.5}, {"direct_exceeds_total", "erasure"}),
    "both": ({"c": 0.8, "erase": 0.3}, {"direct_exceeds_total", "compensation", "erasure"}),
    "no repair": ({"c": 0.0}, set()),
}


@pytest.mark.parametrize(("options", "expected"), PLANTED.values(), ids=PLANTED)
def test_claims_hold_where_repair_is_planted(options, expected, claims):
    assert held(claims, backup(**options)) == expected


def test_the_norm_is_told_from_modules(claims):
    found = repaired(claims, backup(c=0.0))
    direct = found.result.direct_effect
    norm = found.result.assign(norm_effect=-0.4 * direct, total_effect=0.6 * direct)
    by_norm = claims.Repaired(norm, found.subjects, found.sentences)
    judged = ml.claims.judge(claims.CLAIMS, by_norm)
    assert {n for n, o in judged.items() if o.holds} == {"direct_exceeds_total", "norm"}


def test_no_claim_holds_on_an_untrained_twin(claims):
    twin = ml.untrained(circuits.backup(c=0.8, erase=0.3, norm="real").model)
    assert held(claims, twin) == set()


def test_the_layer_is_chosen_on_other_facts(claims):
    found = repaired(claims, backup(c=0.5))
    assert set(found.chosen_layers().values.tolist()) == {0}, "the backup writes nothing unasked"
    for subject in set(found.subjects):
        rows = [s == subject for s in found.subjects]
        assert len(set(found.halves[rows])) == 1


def test_few_facts_are_not_tested(claims):
    few = repaired(claims, backup(c=0.5))
    few = claims.Repaired(few.result.isel(prompt=slice(5)), few.subjects[:5], few.sentences[:5])
    for claim in claims.CLAIMS:
        assert claim.test(few).note.startswith("5 facts about 5 subjects"), claim.name


@pytest.mark.parametrize(
    "family",
    [
        "neox",
        "mamba",
        pytest.param("gpt2", marks=pytest.mark.slow),
        pytest.param("llama", marks=pytest.mark.slow),
    ],
)
def test_random_weights_reach_their_verdicts(
    family, study_file, model_folder, tmp_path, monkeypatch, capsys
):
    study = study_file("self_repair", "study")
    monkeypatch.setattr(study.ml, "Store", planted.Unstored)
    arguments = ["--model", str(model_folder(family, "bpe")), "--count", "10", "--all-facts"]
    assert study.main([*arguments, "--draws", "1", "--out", str(tmp_path)]) == 1
    found = planted.verdicts(tmp_path)
    assert set(found) == {"direct_exceeds_total", "compensation", "erasure", "norm"}
    assert "holds" not in found.values()
    assert (set(found.values()) == {"not applicable"}) == (family == "mamba")
    assert "| ablated | direct |" in capsys.readouterr().out
    assert {p.name for p in tmp_path.glob("*/*.html")} == {"compensation.html", "effects.html"}


def test_an_unknown_model_ends_with_one_error(study_file, capsys):
    assert planted.without_weights(study_file("self_repair", "study"), capsys).startswith(
        "ModelError: "
    )
