from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import loaded
import mechlab as ml
from cost import estimate
from model_path import folder_of
from model_view import about
from pages import PAGES
from trace_request import TraceRequest

MAIN = str(Path(__file__).parents[2] / "apps" / "main.py")


def setup_page() -> AppTest:
    app = AppTest.from_file(MAIN, default_timeout=60)
    app.run()
    app.switch_page("views/setup.py")
    app.run()
    assert not app.exception, [e.value for e in app.exception]
    return app


def test_a_model_that_is_not_loaded_says_what_will_happen(engine) -> None:
    app = setup_page()
    assert app.selectbox(key="in.model").options[:2] == ["atlas", "echo"]
    assert "The first run loads it" in app.info[0].value
    assert engine.loads == []


def test_a_loaded_model_shows_its_facts_and_the_tokens(engine) -> None:
    app = setup_page()
    request = TraceRequest()
    loaded.load(request.load_arguments)
    app.run()
    assert any("3·␣of" in str(m.value) for m in app.markdown)
    assert len(app.table) == 1
    app.button(key="unload").click()
    app.run()
    assert not loaded.is_loaded(request.load_arguments)


def test_the_choice_of_a_model_is_kept_on_the_other_page(engine) -> None:
    app = setup_page()
    app.selectbox(key="in.model").set_value("echo")
    app.text_input(key="in.prompt").set_value("Rome lies in")
    app.run()
    app.switch_page("views/tracing.py")
    app.run()
    assert app.text_input(key="in.prompt").value == "Rome lies in"
    assert app.session_state["in.model"] == "echo"


def test_the_bar_offers_models_while_none_is_loaded_and_takes_one_on_a_click(engine) -> None:
    app = setup_page()
    assert app.button(key="load_chip").label == "Load it now"
    app.session_state["in.checkpoint"] = 5  # of the model before
    app.button(key="take_model.echo").click()
    app.run()
    (job,) = ml.jobs.TABLE.jobs()
    ml.jobs.TABLE.wait(job.id, 20)
    assert engine.loads[0]["name"] == "echo" and engine.loads[0]["checkpoint"] is None
    app.run()
    assert not app.exception
    assert app.session_state["in.model"] == "echo"
    assert "load_chip" not in [button.key for button in app.button]


def test_a_training_step_is_chosen_where_the_model_has_some_and_holds_on_all_pages(engine) -> None:
    app = setup_page()
    assert "in.checkpoint" not in [box.key for box in app.selectbox]
    app.selectbox(key="in.model").set_value("echo")
    app.run()
    assert app.selectbox(key="in.checkpoint").options == ["step 0", "step 500"]
    app.selectbox(key="in.checkpoint").set_value(500)
    app.run()
    app.switch_page("views/induction.py")
    app.run()
    assert not app.exception
    assert app.selectbox(key="in.checkpoint").value == 500
    app.switch_page("views/setup.py")
    app.run()
    app.selectbox(key="in.model").set_value("atlas")
    app.run()
    assert not app.exception
    assert app.session_state["in.checkpoint"] is None


def test_a_fact_that_cannot_be_used_is_said_here_too(engine) -> None:
    app = setup_page()
    app.text_input(key="in.subject").set_value("Spain")
    app.run()
    assert "does not occur" in app.error[0].value


@pytest.mark.parametrize("name", ["~nosuchuser/x", "x" * 3000, "/" + "x" * 3000, "~/\x00", ""])
def test_a_name_that_can_be_no_path_is_a_model_that_is_not_here(engine, name: str) -> None:
    assert folder_of(name) is None
    assert about(name).where == "not on this machine"
    request = TraceRequest(model=name)
    assert request.model_name == name
    assert estimate(request).rows is None


def test_a_link_to_a_folder_means_the_folder_whose_name_results_carry(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    assert folder_of(str(tmp_path / "alias")) == (tmp_path / "real").resolve()
    assert TraceRequest(model=str(tmp_path / "alias")).model_name == "real"


def test_no_page_minds_a_name_that_can_be_no_path(engine) -> None:
    few = [page.file for page in PAGES if page.address in ("trace", "setup")]
    for name, files in (("~nosuchuser/x", [page.file for page in PAGES]), ("x" * 3000, few)):
        app = AppTest.from_file(MAIN, default_timeout=60)
        app.session_state["in.model"] = name
        for file in [None, *files]:
            if file is not None:
                app.switch_page(file)
            app.run()
            assert not app.exception, (file, [e.value for e in app.exception])
            told = "".join(str(p.value) for p in (*app.markdown, *app.caption, *app.info))
            assert "x" * 400 not in told, "cut"
            assert file != "views/setup.py" or "not on this machine" in told


def test_a_load_that_fails_says_why_in_lines(engine, monkeypatch) -> None:
    def fails(name: str, **_: object) -> None:
        raise ml.ModelError("no *such* model.\n  Allowed: atlas.")

    monkeypatch.setattr(ml, "load_model", fails)
    app = setup_page()
    app.button(key="load").click().run()
    ml.jobs.TABLE.wait(ml.jobs.TABLE.jobs()[0].id, 20)
    app.run()
    assert app.error[0].value.replace("\\", "") == "no *such* model.  \nAllowed: atlas."
