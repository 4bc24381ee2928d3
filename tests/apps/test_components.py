import base64
import json

import numpy as np
import pytest
from synthetic_traces import make_trace

import mechlab as ml
from components.cell_grid import _once, opened_cell, payload
from components.charts import _span
from components.exports import html_page, record_json
from components.progress import progress_words
from mechlab.jobs import Job, JobTable
from text import signed, words
from trace_view import grids, partial_views


def test_the_payload_holds_the_numbers_and_nothing_that_is_not_json() -> None:
    trace = make_trace()
    trace["indirect_effect"][0, 0, 0, 0] = np.nan
    view = grids(trace, "0")[0]
    sent = json.loads(json.dumps(payload(view), allow_nan=False))
    values = np.frombuffer(base64.b64decode(sent["values"]), np.float32).reshape(view.shape)
    np.testing.assert_array_equal(values, view.values)
    state = np.frombuffer(base64.b64decode(sent["state"]), np.uint8).reshape(view.shape)
    assert state[0, 0] == 0
    assert state.sum() == state.size - 1
    assert sent["col_labels"][0] == "0·<s>"
    assert sent["limits"][0] == -sent["limits"][1]


def test_a_click_that_the_browser_sends_again_opens_its_cell_once(monkeypatch) -> None:
    state: dict[str, object] = {}
    monkeypatch.setattr("streamlit.session_state", state)
    opened: list[object] = []
    for sent in ([1, 2, "a"], [1, 2, "a"], None, [1, 2, "b"], [0, 5, "c"]):
        state["grid"] = {"cell": sent}
        _once("grid", lambda: opened.append(opened_cell("grid")))
    assert opened == [(1, 2), (1, 2), (0, 5)], "the same cell may be opened again by a new click"
    assert state["seen.grid"] == "c"


def test_a_grid_of_48_layers_and_100_tokens_stays_below_100_kilobytes() -> None:
    view = grids(make_trace([[f" t{i}" for i in range(100)]], layers=48), "0")[1]
    assert len(json.dumps(payload(view))) < 100_000


def test_text_from_outside_cannot_become_markup() -> None:
    shown = words("$x$ :red[y] <b> [a](http://b) **c**")
    assert all(shown[i - 1] == "\\" for i, character in enumerate(shown) if character in "$:[]<>(*")


def test_the_record_is_json_with_null_for_what_was_not_computed() -> None:
    trace = make_trace()
    trace["indirect_effect"][0, 0, 0, 0] = np.nan
    record = json.loads(record_json(trace, "3f9a1c22b7de"))
    assert record["run"] == "3f9a1c22b7de"
    assert record["about"]["options"]["noise_scale"] == 3.0
    effect = record["arrays"]["indirect_effect"]
    assert effect["dims"] == ["prompt", "site", "layer", "pos"]
    assert effect["values"][0][0][0][0] is None
    assert effect["values"][0][0][0][1] == pytest.approx(float(trace.indirect_effect[0, 0, 0, 1]))
    assert record["arrays"]["token"]["values"][0][0] == "<s>"


def test_the_exported_page_is_whole() -> None:
    page = html_page(ml.plots.to_plotly(grids(make_trace(), "0")))
    assert page.lstrip().lower().startswith(b"<html") or b"<!doctype" in page[:50].lower()
    assert b'"showSendToCloud": false' in page


def test_a_partial_result_shows_probabilities_on_a_scale_that_does_not_move() -> None:
    trace = make_trace()
    trace["corrupted_probability"][:] = np.nan
    trace["indirect_effect"][:] = np.nan
    trace["restored_probability"][:, :, :, 3:] = np.nan
    views = partial_views(trace)
    assert views is not None
    assert {view.limits for view in views} == {(0.0, 1.0)}
    assert (views[0].state[:, 3:] == 0).all()
    assert (views[0].state[:, :3] == 1).all()
    assert partial_views(make_trace([["a"], ["b"]])) is None


def test_progress_is_told_in_words() -> None:
    running = Job("a", "trace", "cpu", "running", done=0, total=0, unit="loading atlas")
    assert progress_words(running) == "loading atlas"
    import time

    half = Job(
        "a", "trace", "cpu", "running", done=600, total=1200, unit="rows", counting=time.time() - 60
    )
    assert progress_words(half) == "600 of 1,200 rows · 10 per second · about 60 s left"


def test_a_waiting_run_says_how_many_come_first(own_jobs: JobTable) -> None:
    import threading

    gate = threading.Event()
    own_jobs.submit("a", lambda progress: gate.wait(10))
    own_jobs.submit("b", lambda progress: None)
    job = own_jobs.job("b")
    assert job is not None
    assert progress_words(job) == "waiting for 1 other run on cpu"
    gate.set()


def test_signed_numbers_have_a_real_minus_and_zero_has_no_sign() -> None:
    shown = [signed(number) for number in (0.25, -0.25, 0.0, -0.00004)]
    assert shown == ["+0.2500", "−0.2500", "0.0000", "0.0000"]
    assert signed(-1.0, 3) == "−1.000"


def test_both_profiles_span_what_all_grids_show() -> None:
    trace = make_trace([["a", "b"]])
    trace["indirect_effect"][:] = 0.0
    trace["indirect_effect"][0, 0, 0, 0] = 1.0
    trace["indirect_effect"][0, 1, 0, 0] = np.nan
    assert _span(grids(trace, "0")) == pytest.approx([-0.06, 1.06])
    trace["indirect_effect"][0, 2, 0, 0] = -1.0
    assert _span(grids(trace, "0")) == pytest.approx([-1.12, 1.12])


def _chosen() -> None:
    import streamlit as st

    from components.selection import choose, select

    st.button("click", key="click", on_click=choose, kwargs={"layer": 2, "head": 0})
    st.text(str(select(layer=4, head=4)))


def test_a_click_outlasts_a_rerun_that_still_brings_the_fields_as_they_were(monkeypatch) -> None:
    from streamlit.testing.v1 import AppTest

    import components.selection as selection

    app = AppTest.from_function(_chosen).run()
    app.button(key="click").click().run()
    assert app.text[0].value == str({"layer": 2, "head": 0})
    for name in ("layer", "head"):
        app.number_input(key=name).set_value(None)
    assert app.run().text[0].value == str({"layer": 2, "head": 0}), "the browser was late"
    app.number_input(key="layer").set_value(3)
    assert app.run().text[0].value == str({"layer": 3, "head": 0}), "typed"
    monkeypatch.setattr(selection, "_HOLD_SECONDS", 0.0)
    app.number_input(key="layer").set_value(None)
    assert app.run().text[0].value == str({"layer": None, "head": 0}), "cleared later"
