"""States of the paths page on a real tiny model; clicks themselves are tested in a browser."""

from typing import Any

from toy_pages import PAIR, grids_on, opened, press, run_to_the_end, texts
from toy_pages import toy as toy

import loaded
import mechlab as ml
from paths_request import PathsRequest


def stored(model: ml.Model, **fields: Any) -> str:
    request = PathsRequest(model=model.name, **{**PAIR, **fields})
    return request.compute(model, None, recompute=False)[:12]


def test_an_empty_page_asks_its_question_and_runs_nothing(toy: ml.Model) -> None:
    app = opened("paths")
    assert "Through which paths" in texts(app)
    assert (grids_on(app), ml.jobs.TABLE.jobs()) == (0, [])
    assert not app.button(key="run_now").disabled


def test_run_leads_to_senders_a_graph_and_both_ends_of_an_edge(toy: ml.Model) -> None:
    app = run_to_the_end(press(opened("paths"), "run_now"))
    assert (grids_on(app), len(app.get("plotly_chart"))) == (1, 1)
    assert "showing 12 of 12" in texts(app)
    assert "all paths together" in texts(app)
    app.selectbox(key="edge").set_value("L1H2 → logits")
    app.run()
    assert grids_on(app) == 2  # the logits have no pattern
    assert "sender L1H2" in texts(app)


def test_a_step_back_walks_the_trail_and_joins_the_graph(toy: ml.Model) -> None:
    stored(toy)
    back = stored(toy, receiver="L1H2.q")
    loaded.load({"name": toy.name})
    app = opened("paths")
    app.selectbox(key="edge").set_value("L1H2 → logits")
    app.run()
    press(app, "receive.q")
    assert app.text_input(key="in.paths.receiver").value == "L1H2.q"
    assert app.query_params["trail"] == "logits~L1H2.q"
    assert app.query_params["run"] == back
    assert "Senders to L1H2.q" in texts(app)
    assert "showing 16 of 16" in texts(app)  # 12 to the logits, 4 to the head
    press(app, "trail.logits")
    assert app.text_input(key="in.paths.receiver").value == "logits"
    assert "trail" not in app.query_params


def test_links_restore_and_say_what_is_not_there(toy: ml.Model) -> None:
    run = stored(toy, receiver="L2H0.q")
    app = opened("paths", run=run, edge="L0H1 → L2H0.q", trail="logits~L2H0.q~<b>")
    assert app.text_input(key="in.paths.receiver").value == "L2H0.q"
    assert app.selectbox(key="edge").value == "L0H1 → L2H0.q"
    assert app.button(key="trail.logits").label == "logits"
    assert "trail '<b>': it names no receiver" in texts(app)
    assert app.query_params["trail"] == "logits~L2H0.q"
    huge = f"L{'9' * 5000}H0~MLP٣"
    bad = opened("paths", run=run, edge="L9H9 → logits", threshold="1e999", trail=huge)
    assert "L9H9 → logits, which is not shown here" in texts(bad)
    assert "threshold '1e999': it is a number from 0 to" in texts(bad)
    assert texts(bad).count("it names no receiver") == 2 and "trail" not in bad.query_params
    lost = opened("paths", run="../../etc/x")
    assert "is not a run id" in lost.warning[0].value


def test_senders_of_ones_own_changed_inputs_and_nonsense(toy: ml.Model) -> None:
    app = opened("paths", run=stored(toy, senders="set", nodes="L0H1, L0H2+L1H3, MLP0"))
    assert app.text_input(key="in.paths.nodes").value == "L0H1, L0H2+L1H3, MLP0"
    assert "showing 3 of 3" in texts(app)
    app.text_input(key="in.paths.receiver").set_value("L2H1.k")
    app.run()
    assert "receiver: logits → L2H1.k" in texts(app)
    app.text_input(key="in.paths.receiver").set_value("nonsense")
    app.run()
    assert app.button(key="run_now").disabled
    assert "'nonsense' is not a node here" in texts(app)
    press(app, "back")
    assert "The inputs changed" not in texts(app)


def test_a_receiver_that_the_model_does_not_have_fails_in_a_sentence(toy: ml.Model) -> None:
    app = opened("paths")
    app.text_input(key="in.paths.receiver").set_value("L7H0.q")
    app = run_to_the_end(press(app.run(), "run_now"))
    assert "L7" in app.error[0].value or "layer" in app.error[0].value
    assert not app.button(key="run_now").disabled
