"""States of the retrieval page on a real tiny model; clicks themselves are tested in a browser."""

from toy_pages import grids_on, opened, texts
from toy_pages import toy as toy

import mechlab as ml


def test_an_empty_page_asks_its_question_says_the_cost_and_runs_nothing(toy: ml.Model) -> None:
    app = opened("retrieval")
    assert "Which heads fetch the answer" in texts(app)
    assert "about 15 answers written" in texts(app)
    assert (grids_on(app), ml.jobs.TABLE.jobs()) == (0, [])
