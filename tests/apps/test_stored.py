"""Runs & compare: the table, what is ticked, and the tools, with results of a cardboard engine."""

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import needle_model
import pytest
from edit_pages import once  # noqa: F401
from streamlit.testing.v1 import AppTest
from toy_pages import PAIR

import mechlab as ml
from compare_view import compare, spec_differences, views_of
from components import store_table, store_tools
from heads_request import HOW, HeadsRequest
from induction_request import InductionRequest
from pages import PAGES
from paths_request import PathsRequest
from store_view import filtered, newest_versions, older, rows
from trace_request import TraceRequest

MAIN = str(Path(__file__).parents[2] / "apps" / "main.py")
FRANCE = TraceRequest(prompt="The capital of France is", subject="France", target="Paris")
ROME = TraceRequest(prompt="Rome lies in", subject="Rome", target="Italy")


def opened(**link: str) -> AppTest:
    app = AppTest.from_file(MAIN, default_timeout=60)
    for name, value in link.items():
        app.query_params[name] = value
    app.run()
    app.switch_page("views/stored.py")
    app.run()
    assert not app.exception, [e.value for e in app.exception]
    return app


def texts(app: AppTest) -> str:
    kinds = (app.markdown, app.caption, app.info, app.warning, app.error, app.success)
    return "\n".join(str(part.value) for kind in kinds for part in kind).replace("\\", "")


def grids_on(app: AppTest) -> int:
    names = [part.proto.component_name for part in app.get("bidi_component")]
    return sum(name.endswith("cell_grid") for name in names)


def test_an_empty_store_says_so_and_takes_bundles() -> None:
    assert "Nothing is stored" in texts(opened())


def test_two_ticked_runs_lie_side_by_side_with_difference_and_what_differs(engine, stored) -> None:
    first = stored(FRANCE)
    second = stored(TraceRequest(prompt=FRANCE.prompt, subject="France", seed=1))
    app = opened(ticked=f"{first},{second}")
    assert len(app.dataframe[0].value) == 2
    assert grids_on(app) == 3 * 3  # A, B and B − A of three sites
    differing = app.dataframe[1].value
    assert "option seed" in list(differing["what"])
    assert "option noise_scale" not in list(differing["what"])
    assert "B with A: r = " in texts(app)
    assert any(f'b = store.get("{second}")' in code.value for code in app.code)


def test_one_ticked_run_is_shown_with_the_way_to_its_page(engine, stored) -> None:
    run = stored(FRANCE)
    app = opened(ticked=run)
    assert grids_on(app) == 3
    assert app.button(key="open_run").label == "Open on Causal trace"


def test_filters_come_from_the_link_and_narrow_the_table(engine, stored) -> None:
    stored(FRANCE)
    stored(ROME)
    app = opened(search="rome")
    assert list(app.dataframe[0].value["prompts"]) == ["Rome lies in"]
    assert "1 of 2 runs" in texts(app)


def test_a_link_that_ticks_what_is_no_run_ticks_nothing(engine, stored) -> None:
    stored(FRANCE)
    app = opened(ticked="../../etc/passwd,000000000000")
    assert "Tick one run" in texts(app)
    assert "asked for 2 runs, which are not in this store" in texts(app)
    assert "ticked" not in app.query_params


def test_deleting_asks_first_then_frees_and_says_how_much(engine, stored) -> None:
    run = stored(FRANCE)
    app = opened(ticked=run)
    assert ml.Store().find() != []
    app.button(key="delete_now").click()
    app.run()
    assert not app.exception
    assert ml.Store().find() == []
    (said,) = app.success
    assert re.fullmatch(r"1 run deleted, \d+ kB freed\.", said.value.replace("\\", ""))
    assert "ticked" not in app.query_params


def test_a_damaged_run_is_named_and_the_page_lives_on(engine, stored, own_store) -> None:
    run = stored(FRANCE)
    for file in own_store.rglob("zarr.json"):
        file.write_text("{")
    app = opened(ticked=run)
    assert "is damaged" in app.error[0].value
    assert len(app.dataframe) == 1


def test_an_import_that_is_no_bundle_is_refused_and_a_good_one_is_ticked(
    engine, stored, monkeypatch, tmp_path
) -> None:
    data = ml.Store().bundle([stored(FRANCE)])
    monkeypatch.setenv("MECHLAB_CACHE", str(tmp_path / "other"))
    state: dict[str, object] = {"bundle": io.BytesIO(b"nonsense")}
    link: dict[str, str] = {}
    monkeypatch.setattr("streamlit.session_state", state)
    monkeypatch.setattr("streamlit.query_params", link)
    store_tools._take()
    assert state[store_tools._SAID][0] == "error"
    assert "not a zip" in str(state[store_tools._SAID])
    state["bundle"] = io.BytesIO(data)
    store_tools._take()
    assert state[store_tools._SAID][0] == "ok"
    assert link == {"ticked": ml.Store().find()[0].id}


def test_a_store_that_cannot_be_used_is_named_with_the_reason(monkeypatch) -> None:
    state: dict[str, object] = {f"{name}.0": "x" for name in ("tags", "note")}
    monkeypatch.setattr("streamlit.session_state", state)

    def broken(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/root/x")

    for name, work in (
        ("clean", store_tools._prune), ("verify", store_tools._verify),
        ("remark", lambda: store_tools._remark("0")),
    ):  # fmt: skip
        monkeypatch.setattr(ml.Store, name, broken)
        work()
        kind, text = state.pop(store_tools._SAID)
        assert (kind, text.count("Permission denied")) == ("error", 1), name
        assert f"The store {ml.Store().root}" in text.replace("\\", "")


def test_ticks_keep_what_a_filter_hides_and_their_order(monkeypatch) -> None:
    a, b, c = "a" * 12, "b" * 12, "c" * 12
    link = {"ticked": f"{c},{b}"}
    monkeypatch.setattr("streamlit.query_params", link)
    monkeypatch.setattr("streamlit.session_state", {"t": {"selection": {"rows": [1, 0]}}})
    store_table._selected("t", [a, b])  # c is not in the table now
    assert link["ticked"] == f"{c},{b},{a}"


def test_records_are_searched_in_ids_prompts_and_options(engine, stored) -> None:
    run = stored(FRANCE)
    stored(ROME)
    records = ml.Store().find()
    assert [r.id for r in filtered(records, text="FRANCE capital")] == [run]
    assert [r.id for r in filtered(records, text=run)] == [run]
    assert filtered(records, text="france rome") == []
    assert len(filtered(records, kind="causal_trace", model="atlas")) == 2
    assert filtered(records, model="echo") == []


def test_results_of_older_code_are_marked(engine, stored) -> None:
    stored(FRANCE)
    (record,) = ml.Store().find()
    assert not older(record, newest_versions([record]))
    assert older(record, {"causal_trace": record.method_version + 1})
    assert rows([record], {"causal_trace": 99})[0]["state"] == "older code"
    old = SimpleNamespace(
        method="m", method_version=1, provenance={"versions": '{"mechlab": "0.0.1"}'}
    )
    assert older(old, {})


def test_differences_are_b_minus_a_on_one_scale_and_exclude_missing_cells(engine, stored) -> None:
    import runs

    a, b = (views_of(runs.load(stored(request))) for request in (FRANCE, FRANCE.__class__(
        prompt=FRANCE.prompt, subject="France", target="Paris", seed=5)))  # fmt: skip
    one = compare([a, b])[0]
    assert {view.limits for view in one.views} == {one.views[0].limits}
    difference = one.differences[0]
    assert difference.values[1, 2] == b[0].values[1, 2] - a[0].values[1, 2]
    assert difference.limits[0] == -difference.limits[1]
    r, n = one.agreements[0]
    assert n == a[0].values.size and -1 <= r <= 1
    short = views_of(runs.load(stored(ROME)))
    assert "differ in size" in compare([a, short])[0].problem
    assert compare([a, []]) == []


def test_the_same_request_differs_in_nothing(engine, stored) -> None:
    stored(FRANCE)
    (record,) = ml.Store().find()
    assert spec_differences([record, record]) == []


LOOKER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from streamlit.testing.v1 import AppTest
import mechlab as ml
import warm
from pages import page_of_method

warm.results = lambda: None  # it imports in the background what is looked for here
app = AppTest.from_file(sys.argv[1] + "/main.py", default_timeout=60)
app.run()
print(json.dumps(sorted({"xarray", "pandas", "zarr", "scipy"} & set(sys.modules))))

def look(file, picture="", **link):
    app.switch_page(file)
    for name in list(app.query_params):
        del app.query_params[name]
    for name, value in link.items():
        app.query_params[name] = value
    app.run()
    if picture:
        key, _, value = picture.partition("=")
        app.segmented_control(key=key).set_value(value)
        app.run()
    names = [part.proto.component_name for part in app.get("bidi_component")]
    return {"problems": [e.value for e in (*app.exception, *app.error)],
            "grids": sum(name.endswith("cell_grid") for name in names),
            "code": any("ml.Store()" in code.value for code in app.code),
            "heavy": sorted({"torch", "transformers", "transformer_lens"} & set(sys.modules))}

more = {"retrieval_score": "chart=mask", "attention_by_lag": "score=cmr_distance"}
opened = [record for record in ml.Store().find() if page_of_method(record.method)]
for record in opened:
    page, picture = page_of_method(record.method), more.get(record.method, "")
    seen = look(page.file, picture, run=record.id, layer="1", head="1")
    print(json.dumps([record.method, seen]))
print(json.dumps(["any", look("views/stored.py", ticked=opened[0].id)]))
"""


@pytest.fixture
def one_of_each(engine, stored, toy_model, once, own_store) -> None:  # noqa: F811
    """A store that holds a result of every method that a page opens."""
    shutil.copytree(once[0], own_store)  # an edit
    stored(ROME)  # not what the first page asks for at the start
    toy, finder = toy_model("llama"), needle_model.model()
    pair = {**PAIR, "answer": PAIR["wrong_answer"], "wrong_answer": PAIR["answer"]}
    wanted = [HeadsRequest(model=toy.name, how=how, **pair) for how in HOW]
    wanted += [PathsRequest(model=toy.name, **pair)]
    wanted += [InductionRequest(model=toy.name, length=12, count=4)]
    for request in wanted:
        request.compute(toy, None, recompute=False)
    store, few = ml.Store(), needle_model.prompts(depths=(0, 50))
    store.run(ml.retrieval_score, finder, few, max_new_tokens=3)
    masked = {"ranking": ["L0H1", "L1H2"], "k": [1], "draws": 1}
    store.run(ml.retrieval_curve, finder, few, max_new_tokens=3, **masked)


@pytest.mark.filterwarnings("ignore:.*key statistics", "ignore:.*answers have several tokens")
def test_the_first_page_needs_little_and_stored_runs_of_every_method_no_torch(
    one_of_each: None,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOKER, str(Path(MAIN).parent)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    early, *seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert early == []
    opened_on_pages = {name for page in PAGES for name in page.methods}
    assert {method for method, _ in seen} == {*opened_on_pages, "any"}
    for method, shown in seen:
        assert (shown["problems"], shown["heavy"]) == ([], []), method
        assert shown["grids"] and shown["code"], method
