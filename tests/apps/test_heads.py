"""States of the heads page on a real tiny model; clicks themselves are tested in a browser."""

import json
from typing import Any

import numpy as np
import pytest
from toy_pages import PAIR, grids_on, opened, press, run_to_the_end, texts
from toy_pages import toy as toy

import loaded
import mechlab as ml
import runs
from heads_request import HeadsRequest


def stored(model: ml.Model, **fields: Any) -> str:
    request = HeadsRequest(model=model.name, **{**PAIR, **fields})
    return request.compute(model, None, recompute=False)[:12]


def right_way_round(model: ml.Model) -> dict[str, str]:
    """Return the pair with the answers in the order that the tiny model prefers."""
    pair = ml.prompts.PromptPair(**PAIR)
    wrong = float(ml.direct_logit_attribution(model, pair, by="component").total[0]) < 0
    turned = {"answer": PAIR["wrong_answer"], "wrong_answer": PAIR["answer"]}
    return {**PAIR, **turned} if wrong else PAIR


def one_that_may_go(model: ml.Model, pair: dict[str, str]) -> ml.Head:
    """Return the first head without which the model still prefers the answer."""
    asked = ml.prompts.PromptPair(**pair)
    places = [f"L{layer}H{head}" for layer in range(model.n_layers) for head in range(4)]
    options = {place: HeadsRequest(without=(place,)).call_options() for place in places}
    found = next(
        place
        for place in places
        if float(ml.direct_logit_attribution(model, asked, **options[place]).total[0]) > 0
    )
    return ml.heads(found)[0]


def with_pair(app: Any, pair: dict[str, str]) -> Any:
    for name, value in pair.items():
        app.text_input(key=f"in.{name}").set_value(value)
    return app


def test_an_empty_page_asks_its_question_says_the_cost_and_runs_nothing(toy: ml.Model) -> None:
    app = opened("heads")
    assert "Which heads write the answer?" in texts(app)
    assert "about 1 forward pass" in texts(app)
    assert "Click a head" not in texts(app)
    assert not app.button(key="run_now").disabled
    assert (grids_on(app), ml.jobs.TABLE.jobs()) == (0, [])


def test_run_leads_to_a_grid_and_a_head_to_its_panel(toy: ml.Model) -> None:
    app = with_pair(opened("heads"), right_way_round(toy)).run()
    app = run_to_the_end(press(app, "run_now"))
    assert grids_on(app) == 1
    assert len(app.query_params["run"]) == 12
    assert "click a head" in texts(app).lower()
    app.number_input(key="layer").set_value(2)
    app.number_input(key="head").set_value(1)
    app.run()
    assert grids_on(app) == 2
    said = texts(app)
    assert "Head L2H1" in said
    assert "raises" in said
    assert "Retrieval and induction scores: not run yet" in said
    assert app.button(key="head.add").label == "Add to set"
    press(app, "head.add")
    assert "set: L2H1" in texts(app)
    assert any("direct_logit_attribution" in code.value for code in app.code)


def test_without_the_model_in_memory_the_panel_offers_to_load_it(toy: ml.Model) -> None:
    run = stored(toy, **right_way_round(toy))
    loaded.drop_all()
    app = opened("heads", run=run, layer="1", head="0")
    assert grids_on(app) == 1
    assert "toy-llama is not loaded" in texts(app)
    app = run_to_the_end(press(app, "load_here"))
    assert grids_on(app) == 2


def test_an_answer_that_the_model_does_not_prefer_is_refused_with_a_way_on(toy: ml.Model) -> None:
    right = right_way_round(toy)
    turned = {"answer": right["wrong_answer"], "wrong_answer": right["answer"]}
    run = stored(toy, **{**right, **turned})
    app = opened("heads", run=run)
    assert "prefers the wrong answer on 1 of 1" in texts(app)
    assert grids_on(app) == 0
    app = press(app, "anyway")
    for shown in (app, opened("heads", run=run)):  # whoever opens it later sees the same
        assert grids_on(shown) == 1
        assert "Shown although its baseline is broken: the model prefers the wrong" in texts(shown)
    assert "prefers the wrong answer" in runs.remark(run).shown_although
    assert (ml.jobs.TABLE.jobs(), ml.Store().verify()) == ([], [])


def test_a_link_opens_a_layer_alone_and_says_what_is_not_there(toy: ml.Model) -> None:
    run = stored(toy, **right_way_round(toy))
    app = opened("heads", run=run, layer="1")
    assert "Layer 1 alone" in app.button(key="all_layers").label
    app.number_input(key="head").set_value(2)
    app.run()
    assert "Layer 1 alone" in app.button(key="all_layers").label, "a head of it keeps the filter"
    press(app, "all_layers")
    assert app.number_input(key="head").value == 2
    app.number_input(key="head").set_value(None)
    app.run()
    press(app, "all_layers")
    assert app.number_input(key="layer").value is None
    bad = opened("heads", run=run, layer="99", head="abc")
    assert "layer '99': this result has layer 0 to 2" in texts(bad)
    assert "head 'abc': this result has head 0 to 3" in texts(bad)
    lost = opened("heads", run="0" * 12)
    assert "is not in this store" in lost.warning[0].value


def test_target_and_foil_of_a_link_are_read_for_in_the_panel_and_change_no_result(
    toy: ml.Model,
) -> None:
    pair = right_way_round(toy)
    run = stored(toy, **pair)
    loaded.load(HeadsRequest(model=toy.name).load_arguments)
    before = {record.id for record in runs.recent(("direct_logit_attribution",))}
    link = {"run": run, "layer": "1", "head": "0"}
    app = opened("heads", **link, target="Oslo")
    assert f"on Oslo − {pair['wrong_answer']}" in texts(app)
    assert (app.query_params["run"], app.query_params["target"]) == (run, "Oslo")
    assert app.text_input(key="in.answer").value == pair["answer"]
    assert "The inputs changed" not in texts(app)
    (new,) = {r.id for r in runs.recent(("direct_logit_attribution",))} - before
    asked = ml.prompts.PromptPair(**{**pair, "answer": "Oslo"})
    whole = ml.direct_logit_attribution(toy, asked, by="head_source", metric="logit_diff")
    np.testing.assert_allclose(runs.load(new).source_attribution, whole.source_attribution)
    for link["target"], why in {
        "Oslo is": "2 tokens", "x" * 41: "at most 40", pair["wrong_answer"]: "are the same",
    }.items():  # fmt: skip
        bad = opened("heads", **link)
        assert "The link asked for" in texts(bad) and why in texts(bad)
        assert f"on {pair['answer']} − {pair['wrong_answer']}" in texts(bad)


def test_changed_inputs_veil_the_picture_and_lead_back(toy: ml.Model) -> None:
    app = opened("heads", run=stored(toy, **right_way_round(toy)))
    app.text_input(key="in.clean").set_value("The city of Italy is")
    app.run()
    assert "prompts: 'The capital of Italy is' → 'The city of Italy is'" in texts(app)
    press(app, "back")
    assert app.text_input(key="in.clean").value == PAIR["clean"]
    assert "The inputs changed" not in texts(app)


def test_a_failure_says_why_and_what_cannot_be_run_has_no_button(
    toy: ml.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = opened("heads")
    app.text_input(key="in.corrupted").set_value("The capital of the country of Spain is")
    app.segmented_control(key="in.heads.how").set_value("patch")
    app = run_to_the_end(press(app.run(), "run_now"))
    assert "tokens" in app.error[0].value
    assert any("Traceback" in code.value for code in app.code)
    app.text_input(key="in.wrong_answer").set_value("Rome")
    app.run()
    assert app.button(key="run_now").disabled
    assert "are both 'Rome'" in texts(app)


def test_a_cancelled_run_of_the_real_engine_keeps_its_batches_and_goes_on(toy: ml.Model) -> None:
    rows = '[{}]'.format(", ".join(
        f'{{"clean": "The capital of {a} is", "corrupted": "The capital of {b} is", '
        f'"answer": "Rome", "wrong_answer": "Madrid"}}'
        for a in ("Italy", "Spain", "Egypt") for b in ("Peru", "Norway")))  # fmt: skip
    request = HeadsRequest(model=toy.name, source="rows", rows=rows, how="ablate")
    seen: list[int] = []

    def stop_after_two(progress: ml.Progress) -> None:
        seen.append(progress.done)
        if progress.done >= 2:
            raise ml.Cancelled("cancelled after 2 of 6")

    with pytest.raises(ml.Cancelled):
        request.compute(toy, stop_after_two, recompute=False)
    assert runs.find(request) is None
    counted: list[int] = []
    request.compute(toy, lambda progress: counted.append(progress.done), recompute=False)
    assert min(counted) >= 2  # prompts that were finished are not run again
    app = opened("heads", run=runs.find(request) or "")
    assert "mean over 6 prompts" in str(app.selectbox(key="heads.shown").options)
    assert app.toggle(key="fade").value is False
    app.segmented_control(key="sort").set_value("top")
    app.run()
    assert (grids_on(app), len(app.get("plotly_chart"))) == (0, 1)


def test_ablate_and_rerun_pins_what_is_shown_and_compares(toy: ml.Model) -> None:
    pair = right_way_round(toy)
    head = one_that_may_go(toy, pair)
    run = stored(toy, **pair)
    loaded.load({"name": toy.name})
    app = opened("heads", run=run, layer=str(head.layer), head=str(head.head))
    app = run_to_the_end(press(app, "head.ablate"))
    assert app.query_params["b"] == run
    assert app.query_params["run"] not in ("", run)
    assert "interventions" in "".join(code.value for code in app.code)
    assert "Compared with the pinned run" in texts(app)


def test_hostile_text_is_shown_as_text(toy: ml.Model) -> None:
    rows = json.dumps([{**PAIR, "label": f"{n} :red[x] $y$ <b>z</b> **is**"} for n in range(2)])
    app = opened("heads", run=stored(toy, source="rows", rows=rows), layer="1", head="1")
    assert "mean over 2 prompts" in str(app.selectbox(key="heads.shown").options)
    shown = [str(part.value) for kind in (app.markdown, app.caption) for part in kind]
    shown += [button.label for button in app.button]
    assert any("\\:red\\[x\\]" in text for text in shown)
    assert not any(":red[x]" in text or "<b>z" in text for text in shown)
