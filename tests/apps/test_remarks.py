"""Runs & compare: tags and notes of runs, with results of a cardboard engine."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import mechlab as ml
from store_view import filtered, rows
from trace_request import TraceRequest

MAIN = str(Path(__file__).parents[2] / "apps" / "main.py")
FRANCE = TraceRequest(prompt="The capital of France is", subject="France", target="Paris")
ROME = TraceRequest(prompt="Rome lies in", subject="Rome", target="Italy")


@pytest.fixture
def two(stored) -> tuple[str, str]:
    """Two runs, the first with a tag and a note."""
    runs = stored(FRANCE), stored(ROME)
    ml.Store().remark(runs[0], tags=["paper"], note="bright :red[at] L1\n<b>again</b>")
    return runs


def opened(**link: str) -> AppTest:
    app = AppTest.from_file(MAIN, default_timeout=60)
    for name, value in link.items():
        app.query_params[name] = value
    app.run()
    app.switch_page("views/stored.py")
    return checked(app)


def checked(app: AppTest) -> AppTest:
    app.run()
    assert not app.exception, [e.value for e in app.exception]
    return app


def said(app: AppTest) -> str:
    kinds = (app.markdown, app.caption, app.warning, app.error, app.success)
    return "\n".join(str(part.value) for kind in kinds for part in kind).replace("\\", "")


def test_the_table_shows_them_and_the_link_filters_by_tag(two) -> None:
    app = opened(tag="paper")
    assert app.dataframe[0].value[["run", "tags"]].values.tolist() == [[two[0], "paper"]]
    assert app.dataframe[0].value["note"][0] == "bright :red[at] L1↵<b>again</b>"
    assert "1 of 2 runs" in said(app)
    app.selectbox(key="tag").set_value(None)
    assert len(checked(app).dataframe[0].value) == 2
    lost = opened(tag=":red[no]", kind="causal_trace")
    assert "The link asked for tag ':red[no]': no run has it" in said(lost)
    assert len(lost.dataframe[0].value) == 2


def test_words_are_looked_for_in_tags_and_notes_too(two) -> None:
    records, remarks = ml.Store().find(), ml.Store().remarks()
    for text in ("PAPER", "bright rome", "bright"):
        found = filtered(records, text=text, remarks=remarks)
        assert [one.id for one in found] == ([] if "rome" in text else [two[0]])
    assert [row["tags"] for row in rows(records, {}, remarks)] == ["", "paper"]


def test_they_are_edited_for_the_ticked_run_and_refused_aloud(two) -> None:
    app = opened(ticked=two[1])
    assert app.text_input(key=f"tags.{two[1]}").value == ""
    app.text_input(key=f"tags.{two[1]}").set_value("to-check, paper")
    app.text_area(key=f"note.{two[1]}").set_value("why so late?")
    app.button(key="remark_now").click()
    assert "are kept" in said(checked(app))
    assert list(app.dataframe[0].value["tags"]) == ["paper to-check", "paper"]
    assert app.selectbox(key="tag").options == ["paper", "to-check"]
    app.text_input(key=f"tags.{two[1]}").set_value("<b>")
    app.button(key="remark_now").click()
    assert "no tags: '<b>'" in said(checked(app))
    assert ml.Store().remark(two[1]).tags == ("paper", "to-check")


def test_a_filter_whose_last_tag_is_taken_away_lets_go(two) -> None:
    app = opened(tag="paper", ticked=two[0])
    app.text_input(key=f"tags.{two[0]}").set_value("")
    app.button(key="remark_now").click()
    assert len(checked(app).dataframe[0].value) == 2
