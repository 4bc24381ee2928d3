"""Files of prompts: accepted columns, all bad rows at once, every way a file can be wrong."""

import json
import os
from pathlib import Path

import pytest

from mechlab.errors import PromptError
from mechlab.prompts import Fact, PromptPair, read_facts, read_pairs, records

PARIS = Fact("The capital of France is", "France", "Paris")
ROME = Fact("The capital of Italy is", "Italy", "Rome")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


CSV = """prompt,subject,target
The capital of France is,France,Paris

The capital of Italy is,Italy,Rome
"""
ROWS = [
    {"prompt": fact.prompt, "subject": fact.subject, "target": fact.target}
    for fact in (PARIS, ROME)
]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.CSV", b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode()),
        ("a.tsv", CSV.replace(",", "\t")),
        ("a.json", json.dumps(ROWS)),
        ("a.json", json.dumps({"facts": ROWS}, indent=2)),
        ("a.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n"),
    ],
)
def test_every_format_gives_the_same_facts(tmp_path: Path, name: str, content: str | bytes) -> None:
    facts = read_facts(write(tmp_path, name, content))
    assert list(facts) == [PARIS, ROME] and facts.name == "a"


def test_other_names_of_columns_are_accepted(tmp_path: Path) -> None:
    known = [{"known_id": 7, "subject": "France", "attribute": "Paris", "prompt": PARIS.prompt}]
    assert read_facts(write(tmp_path, "a.json", json.dumps(known)))[0] == PARIS
    upper = "Question,Entity,Answer,Label\nThe capital of France is,France,Paris,fr\n"
    assert read_facts(write(tmp_path, "a.csv", upper)).labels == ("fr",)


def test_a_template_with_braces_is_filled(tmp_path: Path) -> None:
    rows = "template,subject,object\nThe capital of {} is,France,Paris\n"
    assert read_facts(write(tmp_path, "a.csv", rows))[0] == PARIS
    as_prompt = rows.replace("template", "prompt")
    assert read_facts(write(tmp_path, "b.csv", as_prompt))[0] == PARIS
    relation = {
        "prompt_templates": ["The capital of {} is"],
        "samples": [{"subject": "France", "object": "Paris"}],
    }
    assert read_facts(write(tmp_path, "c.json", json.dumps(relation)))[0] == PARIS


def test_the_template_decides_where_the_subject_is(tmp_path: Path) -> None:
    rows = "template,subject,target\nIn a word: {} is,a,b\n"
    assert read_facts(write(tmp_path, "a.csv", rows))[0].subject_start == 11


def test_columns_and_template_may_be_given(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "country,capital\nFrance,Paris\nItaly,Rome\n")
    names = {"subject": "country", "target": "capital"}
    facts = read_facts(path, template="The capital of {} is", columns=names)
    assert list(facts) == [PARIS, ROME]
    with pytest.raises(PromptError, match="unknown fields: subjekt"):
        read_facts(path, columns={"subjekt": "country"})


def test_all_bad_rows_are_listed_with_their_lines(tmp_path: Path) -> None:
    rows = [
        "prompt,subject,target",
        "The capital of France is,France,Paris",
        "The capital of France is,france,Paris",
        '"Two',
        'lines about Italy",Italy,Rome',
        "The capital of Italy is,Italy,",
        "too,many,fields,here",
        "In {} and {},Italy,Rome",
    ]
    with pytest.raises(PromptError) as caught:
        read_facts(write(tmp_path, "a.csv", "\n".join(rows)))
    message = str(caught.value)
    assert "4 of 6 rows of" in message and "nothing was read" in message
    for problem in (
        "line 3: subject 'france' does not occur in the prompt",
        "line 6: no target",
        "line 7: 4 fields under 3 columns",
        "line 8: template 'In {} and {}' does not hold {} exactly once",
    ):
        assert problem in message


def test_bad_rows_of_json_have_lines_as_well(tmp_path: Path) -> None:
    rows = [ROWS[0], {**ROWS[1], "subject": "Spain"}, 7, {**ROWS[0], "target": 3}]
    with pytest.raises(PromptError) as caught:
        read_facts(write(tmp_path, "a.json", json.dumps(rows, indent=1)))
    for problem in (
        "line 7: subject 'Spain'",
        "line 12: a JSON int",
        "line 13: Fact cannot be made",
    ):
        assert problem in str(caught.value)
    lines = [json.dumps(ROWS[0]), "", "{nonsense", json.dumps({"prompt": "x"})]
    with pytest.raises(PromptError, match="(?s)line 3: not JSON.*line 4: no subject and no target"):
        read_facts(write(tmp_path, "a.jsonl", "\n".join(lines)))


def test_many_bad_rows_are_all_numbered(tmp_path: Path) -> None:
    rows = ["prompt,subject,target", *["x,y,z"] * 70]
    with pytest.raises(PromptError, match="(?s)70 of 70 rows.*line 51: .*and line 52, 53, .* 71\n"):
        read_facts(write(tmp_path, "a.csv", "\n".join(rows)))


def test_a_missing_column_is_named_with_its_choices(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "sentence,subject\nx,y\n")
    with pytest.raises(PromptError) as caught:
        read_facts(path)
    message = str(caught.value)
    assert "no column for prompt and target; it has 'sentence', 'subject'" in message
    assert "prompt: prompt, text, question, template" in message and "columns={" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", "unknown extension '.txt'(?s:.*)Allowed: .csv"),
        ("a.csv", "", "holds no prompts"),
        ("a.csv", "prompt,subject,target\n", "holds no prompts"),
        ("a.json", " ", "holds no prompts"),
        ("a.json", "[]", "holds no prompts"),
        ("a.json", '"x"', "holds a JSON str"),
        ("a.json", '{"a": 1}', "holds a JSON dict"),
        ("a.json", '{"a": "\\"facts\\": ["}', "holds a JSON dict"),
        ("a.json", '{"facts": 1}', "holds a JSON dict"),
        ("a.json", '{"facts": []}', "holds no prompts"),
        ("a.json", '[{"a": 1},\n{]', "not JSON: .* line 2, character 2"),
        ("a.json", "[" * 100_000, "nested too deeply|not JSON"),
        ("a.jsonl", "\n\n", "holds no prompts"),
        ("a.csv", b"prompt\nok\n\xff\n", "not UTF-8: line 3 holds the byte 0xff"),
        ("a.csv", 'prompt,subject,target\n"a"b,c,d\n', "not well-formed CSV near line 2"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(PromptError, match=f"{name} .*{message}"):
        read_facts(write(tmp_path, name, content))


def test_a_missing_file_a_folder_and_a_huge_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PromptError, match="a.csv is not there"):
        read_facts(tmp_path / "a.csv")
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(PromptError, match="b.csv is not there, or not a file"):
        read_facts(tmp_path / "b.csv")
    monkeypatch.setattr(records, "MAX_BYTES", 10)
    with pytest.raises(PromptError, match="(?s)Allowed: up to 0 MiB.*Cut it"):
        read_facts(write(tmp_path, "c.csv", CSV))


def test_pairs_are_read_the_same_way(tmp_path: Path) -> None:
    rows = "clean,corrupted,answer,wrong_answer\nJohn saw Mary,Mary saw John,Mary,John\n"
    pairs = read_pairs(write(tmp_path, "a.csv", rows))
    assert list(pairs) == [PromptPair("John saw Mary", "Mary saw John", "Mary", "John")]
    with pytest.raises(PromptError, match="(?s)1 of 1 rows.*line 2: .*are both 'Mary'"):
        read_pairs(write(tmp_path, "b.csv", rows.replace("Mary,John\n", "Mary,Mary\n")))


@pytest.mark.skipif("MECHLAB_DATA" not in os.environ, reason="needs the data folder MECHLAB_DATA")
def test_the_published_facts_are_read() -> None:
    data = Path(os.environ["MECHLAB_DATA"])
    known = read_facts(data / "known_1000" / "known_1000.json")
    assert len(known) == 1209 and known[0].subject == "Vinson Massif"
    assert sum(len(read_facts(path)) for path in data.glob("lre/*/*.json")) == 11089
