"""Readers of edit cases: CounterFact's and zsRE's layouts, and files of one's own."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mechlab.errors import PromptError
from mechlab.prompts import EditRequest, ScoredPrompt, read_counterfact, read_edit_cases, read_zsre


def counterfact(number: int, **changes: Any) -> dict[str, Any]:
    """One record in the layout of `counterfact.json`."""
    rewrite = {
        "prompt": "The seat of {} is",
        "relation_id": "P159",
        "target_new": {"str": "Lyon", "id": "Q456"},
        "target_true": {"str": "Oslo", "id": "Q585"},
        "subject": f"Firm {number}",
    }
    return {
        "case_id": number,
        "pararel_idx": 7,
        "requested_rewrite": rewrite | changes.pop("rewrite", {}),
        "paraphrase_prompts": [f"He left. Firm {number} sits in", f"Firm {number} is from"],
        "neighborhood_prompts": [f"The seat of Other {k} is" for k in range(10)],
        "attribute_prompts": ["The seat of Third is"],
        "generation_prompts": [f"Firm {number} began in"],
        **changes,
    }


def zsre(number: int, **changes: Any) -> dict[str, Any]:
    """One record in the layout of `zsre_mend_eval.json`."""
    return {
        "subject": f"Dam {number}",
        "src": f"What river does Dam {number} cross, and is Dam {number} old?",
        "pred": "Rhine",
        "rephrase": f"Which river is crossed by Dam {number}?",
        "alt": "Elbe",
        "answers": ["Oder", "Odra"],
        "loc": "nq question: who wrote it",
        "loc_ans": "A poet",
        "cond": "",
    } | changes


def written(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    return path


def test_a_counterfact_record_becomes_a_case(tmp_path: Path):
    file = written(tmp_path / "counterfact.json", [counterfact(0), counterfact(1)])
    cases = read_counterfact(file)
    case = cases[1]
    assert case.request == EditRequest("The seat of {} is", "Firm 1", "Lyon", "Oslo")
    assert [len(case.prompts_of(kind)) for kind in ("paraphrase", "neighbourhood")] == [2, 10]
    assert case.neighbourhood[3] == ScoredPrompt("The seat of Other 3 is", "Lyon", "Oslo")
    assert case.generation_prompts == ("Firm 1 began in",) and case.reference_texts == ()
    texts = [
        {"relation_id": "P159", "target_id": "Q456",
         "samples": [{"name": "A", "text": "A is in Lyon."}, {"name": "B", "text": "B, Lyon."}]},
        {"relation_id": "P1", "target_id": "Q456", "samples": [{"name": "C", "text": "C."}]},
    ]  # fmt: skip
    snippets = written(tmp_path / "attribute_snippets.json", texts)
    assert read_counterfact(file, snippets=snippets)[0].reference_texts == (
        "A is in Lyon.",
        "B, Lyon.",
    )
    with pytest.raises(PromptError, match=r"1 rows of .*\n.*line 2: no texts"):
        read_counterfact(file, snippets=written(snippets, [{"relation_id": "P1"}]))


def test_a_zsre_record_has_no_old_object_and_one_neighbour_of_its_own(tmp_path: Path):
    file = written(tmp_path / "zsre_mend_eval.json", [zsre(3)])
    (case,) = read_zsre(file)
    assert case.request.template == "What river does {} cross, and is Dam 3 old?"
    assert case.request.prompt == zsre(3)["src"]
    assert (case.request.target, case.request.target_true) == ("Oder", "")
    assert case.neighbourhood == (ScoredPrompt("nq question: who wrote it?", "", "A poet"),)
    assert case.paraphrases == (ScoredPrompt("Which river is crossed by Dam 3?", "Oder"),)
    assert read_zsre(file, target="alt")[0].request.target == "Elbe"


def test_all_bad_rows_of_published_files_are_listed_with_their_lines(tmp_path: Path):
    bad = [
        counterfact(0),
        counterfact(1, rewrite={"target_new": {"str": "Oslo"}}),
        {"case_id": 2},
        counterfact(3, neighborhood_prompts="The seat of"),
        counterfact(4, rewrite={"prompt": "The seat is"}),
    ]
    file = tmp_path / "bad.json"
    file.write_text("[" + ",\n".join(map(json.dumps, bad)) + "]", encoding="utf-8")
    with pytest.raises(PromptError, match="4 of 5 rows") as caught:
        read_counterfact(file)
    for line, reason in ((2, "both 'Oslo'"), (3, "requested_rewrite"), (4, "neighbourhood is str")):
        assert f"line {line}: " in str(caught.value) and reason in str(caught.value)
    lost = [zsre(0, subject="Weir"), zsre(1, answers=[]), zsre(2, loc_ans=None), zsre(3)]
    with pytest.raises(PromptError, match="3 of 4 rows") as caught:
        read_zsre(written(tmp_path / "lost.json", lost))
    for reason in ("'Weir' does not occur", "no list under answers", "no text under loc_ans"):
        assert reason in str(caught.value)


OWN = {
    "prompt": "The capital of Poland is",
    "subject": "Poland",
    "target_new": "London",
    "target_true": "Warsaw",
    "paraphrases": ["Poland's capital is", "Its capital, that of Poland, is"],
    "neighbourhood": [{"prompt": "The capital of Spain is", "target_true": "Madrid"}],
}


def test_own_files_say_the_same_in_json_lines_and_tables(tmp_path: Path):
    as_json = read_edit_cases(written(tmp_path / "own.json", [OWN]))
    lines = tmp_path / "own.jsonl"
    lines.write_text(json.dumps(OWN) + "\n", encoding="utf-8")
    assert read_edit_cases(lines).digest == as_json.digest
    assert as_json[0].neighbourhood == (ScoredPrompt("The capital of Spain is", "", "Madrid"),)
    table = tmp_path / "own.csv"
    table.write_text(
        "Template,country,target,target_true,paraphrases\n"
        "The capital of {} is,Poland,London,Warsaw,\"Poland's capital is | Its capital, that of "
        'Poland, is"\n',
        encoding="utf-8",
    )
    (case,) = read_edit_cases(table, columns={"subject": "country"})
    assert case.request == as_json[0].request and case.paraphrases == as_json[0].paraphrases


def test_all_bad_rows_of_own_files_are_listed(tmp_path: Path):
    rows = [OWN, OWN | {"subject": "Spain"}, OWN | {"target_new": "Warsaw"}, OWN | {"subject": ""}]
    with pytest.raises(PromptError, match="3 of 4 rows") as caught:
        read_edit_cases(written(tmp_path / "bad.json", rows))
    for reason in ("'Spain' does not occur", "both 'Warsaw'", "no subject"):
        assert reason in str(caught.value)
    with pytest.raises(PromptError, match="no column for target"):
        read_edit_cases(written(tmp_path / "none.json", [{"prompt": "a b", "subject": "b"}]))


@pytest.mark.parametrize("name", ["counterfact.json", "zsre_mend_eval.json"])
def test_published_files_are_read_whole(name: str):
    found = sorted(Path(os.environ.get("MECHLAB_DATA", "/nowhere")).rglob(name))
    if not found:
        pytest.skip(f"{name} is not under MECHLAB_DATA")
    cases = (read_counterfact if name == "counterfact.json" else read_zsre)(found[0])
    assert len(cases) > 10_000 and all(case.paraphrases for case in cases)


def test_the_public_facts_are_read_with_columns_of_their_own():
    found = sorted(Path(os.environ.get("MECHLAB_DATA", "/nowhere")).rglob("known_1000.json"))
    if not found:
        pytest.skip("known_1000.json is not under MECHLAB_DATA")
    cases = read_edit_cases(found[0], columns={"target": "attribute"})
    assert len(cases) > 1000
