"""States of the edit page, one test each; clicks themselves are tested in a browser."""

import threading
import time
from typing import Any

import pytest
from edit_pages import FIELDS, REQUEST, key, once, opened, toy  # noqa: F401
from toy_pages import grids_on, press, run_to_the_end, texts

import mechlab as ml
import runs
from edit_request import FactEditRequest

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*answers have several tokens"),
    pytest.mark.filterwarnings("ignore:.*key statistics"),
]


class Compute:
    """Stands for the computation: waits at a gate, tells what is there, fails when told to."""

    def __init__(self) -> None:
        self.gate, self.error, self.partial = threading.Event(), "", None

    def __call__(self, request: Any, model: Any, progress: Any, *, recompute: bool) -> str:
        for step in range(3):
            progress(ml.Progress(step, 3, "steps", self.partial))
            if self.error:
                raise ml.OptionError(self.error)
            assert self.gate.wait(20)
        return "0" * 64


@pytest.fixture
def compute(monkeypatch: pytest.MonkeyPatch, toy: ml.Model) -> Compute:  # noqa: F811
    fake = Compute()
    monkeypatch.setattr(
        FactEditRequest, "compute", lambda request, *given, **how: fake(request, *given, **how)
    )
    yield fake
    fake.gate.set()


def test_an_empty_page_asks_tells_the_statistics_and_runs_nothing(toy: ml.Model) -> None:  # noqa: F811
    app = opened()
    assert "Can this fact be rewritten here" in texts(app)
    assert "200 tokens · missing: counted first" in texts(app)
    assert not app.button(key="run_now").disabled
    assert (grids_on(app), ml.jobs.TABLE.jobs()) == (0, [])
    assert "EDITS ACTIVE" not in texts(app)


def test_a_field_that_cannot_be_used_is_told_and_stops_the_run(toy: ml.Model) -> None:  # noqa: F811
    app = opened({**FIELDS, "new_object": ""})
    assert "Give the new object" in texts(app)
    assert app.button(key="run_now").disabled


def test_a_layer_and_a_fact_come_from_the_trace_with_a_warning(toy: ml.Model) -> None:  # noqa: F811
    app = opened()
    app.session_state["in.prompt"] = "Mary was born in"
    app.session_state["in.subject"] = "Mary"
    app.query_params["layer"], app.query_params["trace"] = "2", "0" * 12
    app.run()
    assert app.number_input(key="in.edit.layer").value == 2
    assert app.text_input(key="in.edit.template").value == "{} was born in"
    assert "does not prove that it is the best layer" in texts(app)
    app.number_input(key="in.edit.layer").set_value(0)
    assert "does not prove" not in texts(app.run())
    app.text_input(key="in.edit.template").set_value("{} sings in")
    app.run()
    assert app.session_state["in.prompt"] == "Mary sings in", "other pages see the same fact"
    assert "asked for layer 'x'" in texts(opened(layer="x", trace="0" * 12))


def test_a_running_job_shows_what_is_there_and_stops(compute: Compute, once: Any) -> None:  # noqa: F811
    compute.partial = ml.Store(once[0]).get(once[1])
    app = press(opened(), "run_now")
    deadline = time.time() + 10
    while ml.jobs.TABLE.jobs()[0].partial is None and time.time() < deadline:
        time.sleep(0.02)
    app.run()
    assert grids_on(app) == 3 and "What is there so far" in texts(app)
    app = press(app, "cancel")
    assert "Stopping" in app.button(key="cancel").label
    compute.gate.set()
    app = run_to_the_end(app)
    assert "Stopped" in texts(app) and grids_on(app) == 0


def test_a_failure_says_why(compute: Compute) -> None:
    compute.error = "key statistics of layer 1 have no usable inverse."
    app = run_to_the_end(press(opened(), "run_now"))
    assert "have no usable inverse" in app.error[0].value
    assert not app.button(key="run_now").disabled


def test_a_stored_edit_is_shown_whole(key: str) -> None:  # noqa: F811
    app = opened()
    said = texts(app)
    assert app.query_params["run"] == key[:12]
    assert "Ann lives in → Rome (layer 1)" in said
    assert grids_on(app) == 3, "before, after, and their difference"
    assert "drift" in said and "fluency" in said and "its trace says little" in said
    rows = app.table[0].value
    assert [str(one).split(" :")[0] for one in rows.iloc[:, 0]] == [
        "the edited prompt", "paraphrases", "neighbours, kept",
    ]  # fmt: skip
    assert any("ml.swept_edit(result)" in code.value for code in app.code)
    assert "running again replaces it" in said


def test_a_link_restores_the_inputs_and_changed_ones_veil_the_picture(key: str) -> None:  # noqa: F811
    app = opened({}, run=key[:12], layer="7")
    assert app.text_input(key="in.edit.template").value == "{} lives in"
    assert app.number_input(key="in.edit.layer").value == 1, "the run's, not the link's"
    assert app.toggle(key="in.edit.own").value
    app.text_input(key="in.edit.new_object").set_value("Paris")
    app.run()
    assert "The inputs changed" in texts(app)
    app = press(app, "back")
    assert app.text_input(key="in.edit.new_object").value == "Rome"
    assert "is not in this store" in texts(opened(run="0" * 12))


def test_an_edit_in_force_has_a_banner_until_it_is_undone(key: str) -> None:  # noqa: F811
    app = press(opened(), "force")
    assert "EDITS ACTIVE: 1" in texts(app)
    assert "EDITS ACTIVE" not in texts(opened()), "another session has none"
    app.toggle(key="edits_compare").set_value(True)
    app.run()
    app = run_to_the_end(press(app, "edits_try"))
    assert "nats per token, greedy" in texts(app)
    app = press(app, f"undo.{key[:12]}")
    assert "EDITS ACTIVE" not in texts(app)
    app = press(app, "force")
    ml.Store().delete(key)
    app.query_params.pop("run", None)
    assert "EDITS ACTIVE" not in texts(app.run()), "a deleted edit is in force no longer"


def test_nothing_to_edit_is_refused_until_it_is_wanted(key: str, monkeypatch: Any) -> None:  # noqa: F811
    import edit_view

    monkeypatch.setattr(edit_view, "wrong_baseline", lambda story: "it says 'Rome' already")
    app = opened()
    assert "would not be meaningful" in texts(app) and grids_on(app) == 0
    app = run_to_the_end(press(app, "anyway"))
    assert grids_on(app) == 3
    assert runs.find(REQUEST) == key[:12]
