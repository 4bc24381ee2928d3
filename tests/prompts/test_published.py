"""Readers of published files: what they make of them, and all bad rows at once."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mechlab.errors import PromptError
from mechlab.prompts import (
    arithmetic,
    ioi,
    read_arithmetic_templates,
    read_comp_mech,
    read_lre,
    read_mib_ioi,
    read_one_to_many,
)

ROW = {
    "base_prompt": "Oslo lies in",
    "template": "{}: Oslo lies in{}. Oslo lies in",
    "target_true": " Norway",
    "target_new": " Peru",
    "prompt": "Redefine: Oslo lies in Peru. Oslo lies in",
}
MANY = {
    "query": '<|begin_of_text|>Songs by Abba: 1. "One" 2. "',
    "subject": "Abba",
    "target_answer_idx": 2,
    "three_answers_label_list": ["One", "Two", "Three"],
}


def data(*parts: str) -> Path:
    if not (root := os.environ.get("MECHLAB_DATA")):
        pytest.skip("MECHLAB_DATA is unset: the public data is not here")
    return Path(root, *parts)


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    text = (
        "\n".join(map(json.dumps, content)) if name.endswith("l") else json.dumps(content, indent=1)
    )  # type: ignore[call-overload]  # noqa: E501
    path.write_text(text, encoding="utf-8")
    return path


def test_a_redefinition_has_its_context_as_answer(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", [ROW])
    (pair,) = read_comp_mech(path)
    assert (pair.answer, pair.wrong_answer) == (" Peru", " Norway")
    assert pair.corrupted == "Redefine: Oslo lies in Norway. Oslo lies in"
    (pair,) = read_comp_mech(path, corrupted="base")
    assert pair.corrupted == "Oslo lies in"


def test_bad_rows_are_listed_with_their_lines(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "target_new": ""}, {**ROW, "prompt": "Redefine: Oslo"}, 7]
    with pytest.raises(
        PromptError, match="(?s)3 of 4 rows.*line 9: no text under target_new.*line 16.*line 23"
    ):
        read_comp_mech(write(tmp_path, "a.json", rows))


def test_relations_take_any_of_their_templates(tmp_path: Path) -> None:
    relation = {
        "prompt_templates": ["{} is in", "The city {} is in"],
        "prompt_templates_zs": ["Where is {}? In"],
        "samples": [{"subject": "Oslo", "object": "Norway"}],
    }
    path = write(tmp_path, "a.json", relation)
    assert read_lre(path, template=1)[0].prompt == "The city Oslo is in"
    assert read_lre(path, zero_shot=True)[0].target == "Norway"
    with pytest.raises(PromptError, match="(?s)has 2 prompt_templates, and template=2"):
        read_lre(path, template=2)


def test_questions_with_several_answers_become_pairs(tmp_path: Path) -> None:
    other = json.loads(json.dumps(MANY).replace("Abba", "Queen").replace("One", "Four"))
    other["three_answers_label_list"] = ["Four", "Five", "Six"]
    first, second = read_one_to_many(write(tmp_path, "a.jsonl", [MANY, other]))
    assert first.clean == "Songs by Abba: 1. One 2." and first.corrupted == second.clean
    assert (first.answer, first.wrong_answer) == ("Two", "One")
    assert [first.clean[a:b] for _, a, b in first.places] == ["Abba", "One"]
    bad: list[Any] = [MANY, {**MANY, "target_answer_idx": 4}, {**MANY, "subject": "Queen"}]
    with pytest.raises(PromptError, match="(?s)2 of 3 rows.*line 2: target_ans.*line 3: subject"):
        read_one_to_many(write(tmp_path, "b.jsonl", bad))
    with pytest.raises(PromptError, match="no row has a subject and answers other than"):
        read_one_to_many(write(tmp_path, "c.jsonl", [MANY]))


def test_formulas_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    good = {"({x}+{y}*{z})": "What is {x} plus {y} times {z}? "}
    assert read_arithmetic_templates(write(tmp_path, "a.json", good)) == {
        "({x}+{y}*{z})": ("What is {x} plus {y} times {z}?",)
    }
    bad = {**good, "{x}**{y}": "a", "{x}+{y}+{z}": "only {x}"}
    with pytest.raises(PromptError, match="(?s)2 of 3 formulas.*a formula holds.*does not hold"):
        read_arithmetic_templates(write(tmp_path, "b.json", bad))


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "names.json", {"a": 1})
    with pytest.raises(PromptError, match="does not hold a JSON list of texts"):
        read_mib_ioi(tmp_path)
    with pytest.raises(PromptError, match="not an object"):
        read_lre(write(tmp_path, "b.json", [1]))
    path.write_text("{", encoding="utf-8")
    with pytest.raises(PromptError, match="is not JSON"):
        read_lre(path)


def test_the_published_redefinitions_are_read_whole() -> None:
    pairs = read_comp_mech(data("comp_mech", "full_data_sampled_gpt2.json"))
    assert len(pairs) == 10_000
    assert all(p.clean.startswith("Redefine: ") and p.answer[0] == " " for p in pairs)


def test_the_published_relations_and_lists_are_read() -> None:
    files = sorted(data("lre").glob("*/*.json"))
    assert len(files) == 47 and all(len(read_lre(path)) > 0 for path in files)
    lists = sorted(data("one_to_many").glob("*/*/*/*/*.jsonl"))
    assert lists and all(len(read_one_to_many(path)) > 200 for path in lists)


def test_the_published_words_and_formulas_make_prompts() -> None:
    words = read_mib_ioi(data("mib", "IOI_task"))
    assert len(ioi(20, words=words)) == 20 and "{" not in ioi(20, words=words)[7].clean
    path = data("lm_arithmetic", "three_operand_questions.json")
    pairs = arithmetic(30, operands=3, templates=read_arithmetic_templates(path), maximum=50)
    assert len(pairs) == 30 and not any("{" in pair.clean for pair in pairs)
