"""The induction page on a real tiny model: requests, view models and states."""

import inspect
from typing import Any

import numpy as np
import pytest
from toy_pages import grids_on, opened, press, run_to_the_end, texts
from toy_pages import toy as toy

import induction_view
import mechlab as ml
import runs
from induction_request import PARTS, InductionRequest, request_of

HINTS = {"max_batch", "progress", "journal"}
SMALL: dict[str, Any] = {"model": "toy-llama", "length": 12, "count": 4}


@pytest.mark.parametrize("part", PARTS)
def test_every_option_of_every_part_is_known_with_its_default(part: str) -> None:
    parameters = list(inspect.signature(getattr(ml, part)).parameters.values())[2:]
    defaults = {p.name: p.default for p in parameters if p.name not in HINTS}
    assert InductionRequest(part=part).OTHER_DEFAULTS == defaults


def test_one_run_stores_all_parts_and_each_leads_back_to_its_fields(toy: ml.Model) -> None:
    request = InductionRequest(**SMALL, seed=5)
    run = request.compute(toy, None, recompute=False)[:12]
    for part in PARTS:
        found = runs.find(request.beside(part))
        assert found is not None
        assert request_of(runs.load(found), "toy-llama") == request.beside(part)
    parts = induction_view.parts_of(runs.load(run), run, request)
    assert induction_view.missing(parts) == []
    views = [induction_view.grid(parts, name) for name in induction_view.SCORES]
    assert [view.shape for view in views] == [(3, 4)] * 4
    assert np.allclose(views[3].values, parts.fit["distance"].values)
    rows = induction_view.table(parts)
    assert len(rows) == 12
    assert rows[5]["head"] == "L1H1"
    assert rows[5]["prefix matching"] == round(float(views[0].values[1, 1]), 4)
    curve = induction_view.lag_curve(parts, 1, 1)
    assert curve.lags == list(range(-5, 6))
    inside = [a <= m <= b for a, m, b in zip(curve.low, curve.mean, curve.high, strict=True)]
    assert all(inside)


def test_the_code_draws_the_same_lists_and_other_lists_are_known_by_their_digest(
    toy: ml.Model,
) -> None:
    request = InductionRequest(**SMALL)
    assert eval(request.prompts_code(), {"ml": ml}).digest == request.digest()
    own = ml.prompts.repeated_tokens(4, 9, seed=77, draw="new")
    result = ml.Store().run(ml.induction_scores, toy, own)
    found = request_of(result, "toy-llama")
    assert found.other_prompts == own.digest
    assert "made in Python" in found.problem()


def test_dots_lie_where_the_token_after_the_earlier_copy_is() -> None:
    request = InductionRequest(length=4)
    cells = induction_view.stripe(request, 8)  # <s> a b c d a b c
    assert [tuple(cell) for cell in np.argwhere(cells)] == [(5, 2), (6, 3), (7, 4)]


def test_run_leads_from_the_question_to_grid_losses_and_one_head(toy: ml.Model) -> None:
    app = opened("induction")
    assert "Which heads continue what was read before?" in texts(app)
    assert "about 30 lists read" in texts(app)
    assert (grids_on(app), ml.jobs.TABLE.jobs()) == (0, [])
    app.number_input(key="in.induction.length").set_value(12)
    app.number_input(key="in.induction.count").set_value(4)
    app = run_to_the_end(press(app.run(), "run_now"))
    assert (grids_on(app), len(app.get("plotly_chart"))) == (1, 1)
    app.number_input(key="layer").set_value(1)
    app.number_input(key="head").set_value(2)
    app.run()
    said = texts(app)
    assert "L1H2: attention by lag" in said
    assert all(word in said for word in ("CMR distance", "p ", "peak lag", "prefix matching"))
    assert "does not read the list back" in said  # this tiny tokenizer knows no such words
    app.number_input(key="in.induction.length").set_value(13)
    assert "length: 12 → 13" in texts(app.run())


def test_what_was_not_run_is_named_and_a_wrong_link_says_what_there_is(toy: ml.Model) -> None:
    request = InductionRequest(**SMALL)
    lists = request.prompts()
    ml.Store().run(ml.induction_scores, toy, lists)
    run = runs.find(request) or ""
    app = opened("induction", run=run, layer="7")
    assert "Not run yet: attention by lag, copy loss" in texts(app)
    assert "layer '7': this result has layer 0 to 2" in texts(app)
    assert "is not in this store" in texts(opened("induction", run="0" * 12))
