import json
from types import SimpleNamespace

import pytest

import mechlab as ml
import prompt_files
from trace_request import TraceRequest

CSV = b"prompt,subject,target\nRome lies in,Rome,Italy\nThe capital of France is,France,Paris\n"


def test_a_file_is_kept_under_its_content_and_named_in_requests() -> None:
    set_id = prompt_files.take("../../my facts.csv", CSV)
    assert prompt_files.known() == {set_id: "my facts · 2 facts"}
    request = TraceRequest(prompt_set=set_id)
    assert request.label == "my facts · 2 facts"
    assert request.digest() == prompt_files.facts_of(set_id).digest
    assert [fact.subject for fact in request.prompts()] == ["Rome", "France"]
    assert prompt_files.id_of_digest(request.digest()) == set_id
    facts = eval(request.prompts_code(), {"ml": ml})
    assert facts.digest == request.digest()
    rows = json.loads(json.dumps(request.spec()["prompts"]))
    assert ml.prompts.as_prompt_set([ml.prompts.Fact(**row) for row in rows]).digest == facts.digest


def test_which_fact_of_a_file_the_fields_show_makes_no_difference() -> None:
    set_id = prompt_files.take("facts.csv", CSV)
    one = TraceRequest(prompt_set=set_id, prompt="Rome lies in", subject="Rome")
    assert TraceRequest(prompt_set=set_id).differences(one) == []
    assert TraceRequest().differences(one) != []


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("facts.exe", CSV, "cannot be taken"),
        ("facts.csv", b"x" * 5_000_001, "cannot be taken"),
        ("facts.csv", b"a,b\n1,2\n", "prompt"),
        ("facts.csv", b"prompt,subject,target\nRome lies in,Oslo,Italy\n", "Oslo"),
        ("facts.json", b"{", "facts.json"),
        ("facts.csv", b"\xff\xfe\x00", "facts.csv"),
    ],
)
def test_a_file_that_cannot_be_used_says_why_and_is_not_kept(name, data, said) -> None:
    with pytest.raises(ml.MechlabError, match=said):
        prompt_files.take(name, data)
    assert prompt_files.known() == {}


@pytest.mark.parametrize("set_id", ["../../../etc/passwd", "0" * 12, "", "A" * 12])
def test_a_name_that_is_no_file_here_opens_nothing(set_id: str) -> None:
    with pytest.raises(ml.PromptError, match="is not here"):
        prompt_files.facts_of(set_id)


def test_the_upload_field_chooses_the_file_or_says_what_is_wrong(monkeypatch) -> None:
    from components import setup_prompt

    state: dict[str, object] = {
        "fact_file": SimpleNamespace(name="facts.csv", getvalue=lambda: CSV)
    }
    monkeypatch.setattr("streamlit.session_state", state)
    setup_prompt._take()
    assert state[setup_prompt._SAID][0] == "ok"
    assert state["in.trace.prompt_set"] in prompt_files.known()
    state["fact_file"] = SimpleNamespace(name="facts.csv", getvalue=lambda: b"")
    setup_prompt._take()
    assert state[setup_prompt._SAID][0] == "error"
