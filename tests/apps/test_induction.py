"""States of the induction page on a real tiny model; clicks are tested in a browser."""

from toy_pages import grids_on, opened, press, run_to_the_end, texts
from toy_pages import toy as toy

import mechlab as ml


def test_run_leads_from_the_question_to_grid_losses_and_one_head(toy: ml.Model) -> None:
    app = opened("induction")
    assert "Which heads continue what was read before?" in texts(app)
    assert "about 30 lists read" in texts(app)
    assert (grids_on(app), ml.jobs.TABLE.jobs()) == (0, [])
    app.number_input(key="in.induction.length").set_value(12)
    app.number_input(key="in.induction.count").set_value(4)
    app = run_to_the_end(press(app.run(), "run_now"))
    assert (grids_on(app), len(app.get("plotly_chart"))) == (1, 1), (
        texts(app),
        [(j.state, j.error, j.details) for j in ml.jobs.TABLE.jobs()],
        app.query_params,
    )
    app.number_input(key="layer").set_value(1)
    app.number_input(key="head").set_value(2)
    app.run()
    said = texts(app)
    assert "L1H2: attention by lag" in said
    assert "CMR distance" in said and "peak lag" in said and "prefix matching" in said
    assert len(app.get("plotly_chart")) >= 2
