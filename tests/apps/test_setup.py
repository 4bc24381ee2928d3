from pathlib import Path

from streamlit.testing.v1 import AppTest

import loaded
import mechlab as ml
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
