"""States of the causal-trace page, one test each; clicks themselves are tested in a browser."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

import mechlab as ml
from components import exports
from trace_request import TraceRequest, example_of

MAIN = str(Path(__file__).parents[2] / "apps" / "main.py")
FACT = {"prompt": "The capital of France is", "subject": "France", "target": "Paris"}


def opened(**link: str) -> AppTest:
    """Open the page with a link's parameters."""
    app = AppTest.from_file(MAIN, default_timeout=60)
    for name, value in link.items():
        app.query_params[name] = value
    return no_exception(app.run())


def no_exception(app: AppTest) -> AppTest:
    assert not app.exception, [e.value for e in app.exception]
    return app


def texts(app: AppTest) -> str:
    kinds = (app.markdown, app.caption, app.info, app.warning, app.error)
    raw = "\n".join(str(element.value) for kind in kinds for element in kind)
    return raw.replace("\\", "")  # what a reader sees of escaped Markdown


def grids_on(app: AppTest) -> int:
    names = [part.proto.component_name for part in app.get("bidi_component")]
    return sum(name.endswith("cell_grid") for name in names)


def place_of_the_grid(block: Any) -> tuple[int, ...] | None:
    """Return where the first grid stands: one number per block around it."""
    for index, child in getattr(block, "children", {}).items():
        if child.type == "bidi_component" and child.proto.component_name.endswith("cell_grid"):
            return (index,)
        if (inner := place_of_the_grid(child)) is not None:
            return (index, *inner)
    return None


def run_to_the_end(app: AppTest) -> AppTest:
    """Rerun the page, as its timer does, until no job is active."""
    deadline = time.time() + 30
    while any(job.active for job in ml.jobs.TABLE.jobs()):
        assert time.time() < deadline
        time.sleep(0.05)
    return no_exception(app.run())


def until_a_batch_is_done() -> None:
    deadline = time.time() + 30
    while ml.jobs.TABLE.jobs()[0].partial is None:
        assert time.time() < deadline
        time.sleep(0.02)


def test_an_empty_page_asks_its_question_and_runs_nothing(engine) -> None:
    app = opened()
    assert app.text_input(key="in.prompt").value == FACT["prompt"]
    assert "Where does the model keep this fact?" in texts(app)
    assert not app.button(key="run_now").disabled
    assert grids_on(app) == 0
    assert engine.loads == []
    assert ml.jobs.TABLE.jobs() == []


def test_run_goes_through_progress_to_three_grids_and_a_link(engine) -> None:
    engine.gate.clear()
    app = opened()
    app.button(key="run_now").click()
    no_exception(app.run())
    assert app.button(key="cancel").label == "Cancel"
    assert [job.state for job in ml.jobs.TABLE.jobs()] == ["running"]
    engine.gate.set()
    app = run_to_the_end(app)
    assert grids_on(app) == 3
    assert len(app.query_params["run"]) == 12
    assert "p = 0.800 clean" in texts(app)
    assert "Click a cell" in texts(app)


def test_what_is_there_so_far_is_drawn_while_it_runs(engine) -> None:
    engine.gate.clear()
    app = opened()
    app.button(key="run_now").click()
    app.run()
    until_a_batch_is_done()
    no_exception(app.run())
    assert grids_on(app) == 3
    assert "What is there so far" in texts(app)


def test_cancel_stops_after_the_batch_and_offers_to_go_on(engine) -> None:
    engine.gate.clear()
    app = opened()
    app.button(key="run_now").click()
    app.run()
    until_a_batch_is_done()  # before that, the job would end at once
    app.button(key="cancel").click()
    no_exception(app.run())
    assert app.button(key="cancel").disabled
    assert "Stopping" in app.button(key="cancel").label
    engine.gate.set()
    app = run_to_the_end(app)
    assert "finished batches are kept" in texts(app)
    assert grids_on(app) == 0


def test_a_failure_says_why_and_keeps_the_details_folded(engine) -> None:
    engine.error = ml.SiteError("site 'mixer_out' does not exist on atlas.")
    app = opened()
    app.button(key="run_now").click()
    app.run()
    app = run_to_the_end(app)
    assert "site 'mixer\\_out' does not exist on atlas" in app.error[0].value
    assert any("Traceback" in code.value for code in app.code)
    assert not app.button(key="run_now").disabled


def test_a_reload_finds_the_running_job(engine) -> None:
    engine.gate.clear()
    app = opened()
    app.button(key="run_now").click()
    app.run()
    again = opened()
    assert again.button(key="cancel").label == "Cancel"
    assert len(ml.jobs.TABLE.jobs()) == 1


def test_a_stored_result_of_the_same_inputs_is_shown_at_once(engine, stored) -> None:
    run = stored(TraceRequest(**FACT))
    app = opened()
    assert grids_on(app) == 3
    assert app.query_params["run"] == run
    assert engine.runs == 1


def test_the_button_says_that_a_stored_result_would_be_replaced(engine, stored) -> None:
    assert opened().button(key="run_now").label == "Run"
    stored(TraceRequest(**FACT))
    app = opened()
    assert app.button(key="run_now").label == "Run again"
    assert "running again replaces it" in texts(app)
    app.text_input(key="in.target").set_value("Rome")
    assert no_exception(app.run()).button(key="run_now").label == "Run"


def test_a_link_restores_result_inputs_and_cell(engine, stored) -> None:
    run = stored(TraceRequest(prompt="Rome lies in", subject="Rome", target="Italy", samples=4))
    app = opened(run=run, site="mlp_out", layer="2", pos="1")
    assert app.text_input(key="in.prompt").value == "Rome lies in"
    assert app.number_input(key="in.trace.samples").value == 4
    assert (app.number_input(key="layer").value, app.number_input(key="pos").value) == (2, 1)
    assert app.selectbox(key="site").value == "mlp_out"
    assert "Layer 2 · 1·Rome" in texts(app)
    assert len(app.get("plotly_chart")) == 3
    assert engine.runs == 1


def test_fields_show_options_that_only_python_would_choose(engine, stored) -> None:
    wild = {"seed": 2**40, "noise_scale": 250.0, "samples": 1200, "window": 300}
    app = opened(run=stored(TraceRequest(**FACT, **wild)))
    assert {name: app.number_input(key=f"in.trace.{name}").value for name in wild} == wild
    for name, value in wild.items():  # a bound would make the browser show another number
        field = app.number_input(key=f"in.trace.{name}")
        assert (field.min or 0) <= value and (field.max is None or value <= field.max)


def test_cell_zero_can_be_linked(engine, stored) -> None:
    app = opened(run=stored(TraceRequest(**FACT)), site="resid_post", layer="0", pos="0")
    assert app.number_input(key="layer").value == 0
    assert "Layer 0 · 0·" in texts(app)


def test_a_link_to_a_cell_that_does_not_exist_is_told(engine, stored) -> None:
    app = opened(run=stored(TraceRequest(**FACT)), layer="999")
    assert "layer '999': this result has layer 0 to 3" in texts(app)
    assert app.number_input(key="layer").value is None


@pytest.mark.parametrize(
    ("run", "said"),
    [("0" * 12, "is not in this store"), ("../../etc/passwd", "is not a run id")],
)
def test_a_link_to_a_run_that_is_not_here_is_told(engine, run: str, said: str) -> None:
    app = opened(run=run)
    assert said in app.warning[0].value
    assert "run" not in app.query_params
    assert "Where does the model keep this fact?" in texts(app)


def test_a_dead_link_shows_no_other_run_in_its_place_until_asked(engine, stored) -> None:
    run = stored(example_of("atlas"))
    app = opened(run="0" * 12)
    assert (grids_on(app), "run" in app.query_params) == (0, False)
    assert "it is not what the link asked for" in texts(app)
    app.button(key="show_stored").click()
    no_exception(app.run())
    assert (grids_on(app), app.query_params["run"]) == (3, run)


def test_a_failure_is_said_above_an_older_picture(engine, stored) -> None:
    app = opened(run=stored(TraceRequest(**FACT)))
    app.number_input(key="in.trace.samples").set_value(7)
    no_exception(app.run())
    engine.error = ml.ModelError("the weights caught fire")
    app.button(key="run_now").click()
    app = run_to_the_end(no_exception(app.run()))
    assert "the weights caught fire" in app.error[0].value
    assert grids_on(app) == 3


def test_changed_inputs_veil_the_picture_and_lead_back(engine, stored) -> None:
    app = opened(run=stored(TraceRequest(**FACT)))
    app.number_input(key="in.trace.samples").set_value(7)
    no_exception(app.run())
    assert "The inputs changed" in texts(app)
    assert "samples: 10 → 7" in texts(app)
    assert grids_on(app) == 3
    app.button(key="back").click()
    no_exception(app.run())
    assert app.number_input(key="in.trace.samples").value == 10
    assert "The inputs changed" not in texts(app)


def test_the_picture_keeps_its_place_whatever_is_said_above_it(engine, stored) -> None:
    app = opened(run=stored(TraceRequest(**FACT)))
    fresh = place_of_the_grid(app.main)
    app.number_input(key="in.trace.samples").set_value(7)
    stale = no_exception(app.run())
    assert "The inputs changed" in texts(stale)
    # Streamlit names a fragment by its place: a click made just before would be lost otherwise.
    assert place_of_the_grid(stale.main) == fresh


def test_a_fact_that_the_model_does_not_know_is_refused_with_a_way_on(engine) -> None:
    engine.status = "not known: the model predicts ' Rome'"
    app = opened()
    app.button(key="run_now").click()
    app.run()
    app = run_to_the_end(app)
    assert "would not be meaningful: not known" in texts(app)
    assert grids_on(app) == 0
    app.button(key="anyway").click()
    app.run()
    app = run_to_the_end(app)
    assert grids_on(app) == 3
    assert app.checkbox(key="in.trace.known_only").value is False
    told = "Shown although its baseline is broken: the clean run does not predict Paris"
    assert told in texts(app)
    again = opened(run=app.query_params["run"])
    assert told in texts(again) and grids_on(again) == 3


def test_a_subject_that_is_not_in_the_prompt_cannot_be_run(engine) -> None:
    app = opened()
    app.text_input(key="in.subject").set_value("Spain")
    no_exception(app.run())
    assert app.button(key="run_now").disabled
    assert "does not occur in the prompt" in texts(app)


def test_hostile_text_is_shown_as_text(engine, stored) -> None:
    evil = ":red[x] $y$ <b>z</b> France **is**"
    app = opened(run=stored(TraceRequest(prompt=evil, subject="France", target="Paris")))
    assert any("\\:red\\[x\\]" in element.value for element in app.markdown)
    assert not any(":red[x]" in element.value for element in app.markdown)
    assert not any(element.allow_html for element in app.markdown)


def test_a_trace_that_restores_almost_nothing_says_so(engine, stored, monkeypatch) -> None:
    from components import trace_picture

    run = stored(TraceRequest(**FACT))
    assert "little to bring back" not in texts(opened(run=run))
    monkeypatch.setattr(trace_picture, "little_to_restore", lambda trace, fact: True)
    assert "little to bring back" in texts(opened(run=run))


def test_the_table_twin_holds_every_cell(engine, stored) -> None:
    app = opened(run=stored(TraceRequest(**FACT)))
    app.toggle(key="table").set_value(True)
    no_exception(app.run())
    assert len(app.dataframe[0].value) == 3 * 4 * 6


def test_the_code_shown_is_that_of_the_result_not_of_changed_fields(engine, stored) -> None:
    run = stored(TraceRequest(**FACT))
    app = opened(run=run)
    app.number_input(key="in.trace.samples").set_value(7)
    app.run()
    code = next(c.value for c in app.code if "causal_trace" in c.value)
    assert f"# run {run}" in code
    assert "samples=10" in code


def test_stored_traces_are_listed_and_open_with_a_button(engine, stored) -> None:
    first = stored(TraceRequest(**FACT))
    second = stored(TraceRequest(prompt="Rome lies in", subject="Rome", target="Italy"))
    app = opened(run=first)
    app.button(key=f"open.{second}").click()
    no_exception(app.run())
    assert app.query_params["run"] == second
    assert app.text_input(key="in.prompt").value == "Rome lies in"


def test_a_cell_chosen_in_a_deep_result_is_let_go_in_a_shallow_one(engine, stored) -> None:
    long = stored(TraceRequest(prompt="a b c d e f France", subject="France", target="x"))
    short = stored(TraceRequest(**FACT))
    app = opened(run=long, site="mlp_out", layer="3", pos="7")
    assert app.number_input(key="pos").value == 7
    app.text_input(key="in.prompt").set_value(FACT["prompt"])
    app.text_input(key="in.target").set_value(FACT["target"])
    no_exception(app.run())
    assert app.query_params["run"] == short
    assert app.number_input(key="pos").value is None


def test_the_callback_of_a_click_writes_the_fields(engine, stored, monkeypatch) -> None:
    from components import trace_picture

    state: dict[str, object] = {"grid.mlp_out": {"cell": [2, 5]}}
    monkeypatch.setattr("streamlit.session_state", state)
    trace_picture._opened("grid.mlp_out", "mlp_out")
    assert (state["site"], state["layer"], state["pos"]) == ("mlp_out", 2, 5)
    state["grid.mlp_out"] = {"cell": None}
    state["layer"] = 9
    trace_picture._opened("grid.mlp_out", "mlp_out")
    assert state["layer"] == 9


def test_several_facts_show_their_average_and_each_one(engine, monkeypatch) -> None:
    facts = [ml.prompts.Fact("Rome lies in", "Rome", "Italy"),
             ml.prompts.Fact("Oslo lies in the north of", "Oslo", "Norway")]  # fmt: skip
    model = engine.load_model("atlas")
    store = ml.Store()
    options = {"sites": ("mlp_out", "attn_out")}
    store.run(ml.causal_trace, model, facts, **options)
    run = store.key(ml.causal_trace, model, facts, **options)[:12]
    app = opened(run=run)
    assert grids_on(app) == 2
    assert app.selectbox(key="fact_choice").value == "average"
    assert "n = 2 facts" in texts(app)
    app.selectbox(key="fact_choice").set_value("1")
    no_exception(app.run())
    assert app.query_params["fact"] == "1"
    assert app.text_input(key="in.prompt").value == "Oslo lies in the north of"
    assert "The inputs changed" not in texts(app)
    linked = opened(run=run, fact="0")
    assert linked.selectbox(key="fact_choice").value == "0"


def test_the_page_stays_without_torch_until_something_runs() -> None:
    import subprocess
    import sys

    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(MAIN).parent)!r})\n"
        "import components.trace_picture, components.progress, components.picker, runs, cost\n"
        "print({'torch', 'transformers', 'transformer_lens'} & set(sys.modules))"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "set()"


def test_a_run_in_another_process_is_told_and_can_be_followed(engine, monkeypatch) -> None:
    import runs

    class Other:
        pid, done, total, unit = 4711, 640, 1200, "rows"

    monkeypatch.setattr(runs, "elsewhere", lambda request: Other)
    app = opened()
    assert "Another process (4711) computes this now: 640 of 1,200 rows" in texts(app)
    app.button(key="follow").click()
    no_exception(app.run())
    assert len(ml.jobs.TABLE.jobs()) == 1


def test_a_run_elsewhere_is_recognised_by_all_that_matters() -> None:
    request = TraceRequest(**FACT)
    about = {
        "method": "causal_trace",
        "model_name": "atlas",
        "prompts": request.digest(),
        "options": {**request.options, "sites": list(request.sites)},
    }
    assert request.computed_by(SimpleNamespace(**about))
    for change in ({"model_name": "echo"}, {"prompts": "0"}, {"options": {"seed": 3}}):
        assert not request.computed_by(SimpleNamespace(**{**about, **change}))


def test_the_bar_exports_the_open_run_whole_and_only_where_one_is_open(
    engine, stored, monkeypatch, tmp_path
) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(
        exports, "_file", lambda label, content, *rest: made.update({label: content})
    )
    opened()
    assert made == {}
    run = stored(TraceRequest(**FACT))
    app = opened(run=run)
    app.text_input(key="in.prompt").set_value("Paris lies in France and")
    no_exception(app.run())
    (key,) = ml.Store(tmp_path / "other").add_bundle(made["Bundle for another store (.zip)"]())
    assert key.startswith(run)
    assert json.loads(made["Record (JSON)"]())["run"] == run
    code = made["Script (Python)"]()  # that of the result, not of the changed fields
    assert f"# run {run}" in code and FACT["prompt"] in code and "lies in" not in code
    made.clear()
    app.switch_page("views/stored.py")
    no_exception(app.run())
    assert made == {}


def test_a_pinned_run_is_laid_beside_the_one_on_the_page(engine, stored) -> None:
    pinned = stored(TraceRequest(**FACT, seed=1))
    run = stored(TraceRequest(**FACT))
    app = opened(run=run, b=pinned)
    assert grids_on(app) == 3 + 3 * 3
    assert "B with A: r = " in texts(app)
    app.button(key="unpin").click()
    no_exception(app.run())
    assert grids_on(app) == 3
    app.button(key="pin").click()
    no_exception(app.run())
    assert app.query_params["b"] == run
    assert "0" * 12 + " is not in this store" in texts(opened(run=run, b="0" * 12))
