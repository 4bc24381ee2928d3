"""No other session ever sees an edited model, whatever becomes of the job that edits it."""

import threading
from dataclasses import replace
from typing import Any

import edit_toys
import numpy as np
import pytest
from edit_pages import REQUEST, key, once, toy  # noqa: F401

import mechlab as ml
import runs
from edits_in_force import TryRequest, tried

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*answers have several tokens"),
    pytest.mark.filterwarnings("ignore:.*key statistics"),
]
TEXT = "Ann lives in"
PROMPT = ml.prompts.Fact(TEXT, subject=TEXT)
OPTIONS = {"max_new_tokens": 3}


def measured(model: ml.Model) -> Any:
    """What a second session computes of a prompt, with its key."""
    store = ml.Store()
    found = store.run(ml.generate, model, PROMPT, recompute=True, **OPTIONS)
    return found, store.key(ml.generate, model, PROMPT, **OPTIONS)


def test_a_second_session_gets_base_numbers_while_an_edit_is_in_force(
    key: str,  # noqa: F811
    toy: ml.Model,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, base_key = measured(toy)
    inside, go_on, seen = threading.Event(), threading.Event(), []

    def waiting(model: ml.Model, reference: Any, **_: Any) -> Any:
        assert model.edits, "the edit is in force"
        inside.set()
        assert go_on.wait(20)
        raise RuntimeError("the job dies with the edit in force")

    monkeypatch.setattr(ml, "prediction_drift", waiting, raising=False)
    job = runs.start(replace(REQUEST, drift=5))
    assert inside.wait(60)
    other = threading.Thread(target=lambda: seen.append(measured(toy)))
    other.start()  # asks for its key at once, and computes when the edit is taken off
    assert ml.Store().key(ml.generate, toy, PROMPT, **OPTIONS) == base_key
    other.join(0.3)
    assert other.is_alive() and seen == []
    go_on.set()
    other.join(20)
    ended = ml.jobs.TABLE.wait(job.id, 20)
    assert ended is not None and ended.state == "failed" and "dies" in ended.error
    (found, found_key) = seen[0]
    assert found_key == base_key and found.attrs["model_edits"] == "none"
    np.testing.assert_array_equal(found["log_probability"], base["log_probability"])


def test_a_cancelled_job_leaves_the_very_weights(
    key: str,  # noqa: F811
    toy: ml.Model,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, _ = measured(toy)
    before = edit_toys.weights("gpt2")

    def cancelled(model: ml.Model, reference: Any, *, progress: Any) -> Any:
        assert model.edits
        ml.jobs.TABLE.cancel(replace(REQUEST, drift=5).id)
        progress(ml.Progress(1, 5, "texts"))

    monkeypatch.setattr(ml, "prediction_drift", cancelled, raising=False)
    ended = ml.jobs.TABLE.wait(runs.start(replace(REQUEST, drift=5)).id, 60)
    assert ended is not None and ended.state == "cancelled"
    assert edit_toys.untouched("gpt2", before)
    np.testing.assert_array_equal(measured(toy)[0]["log_probability"], base["log_probability"])


def test_edits_of_a_session_show_in_its_comparison_and_nowhere_else(
    key: str,  # noqa: F811
    toy: ml.Model,  # noqa: F811
) -> None:
    base, base_key = measured(toy)
    mine = TryRequest(model="gpt2", prompt=TEXT, edits=(key[:12], key[:12]), max_new_tokens=3)
    ended = ml.jobs.TABLE.wait(runs.start(mine).id, 60)
    assert ended is not None and ended.state == "done", ended
    off, on = ended.result
    assert off == base_key and on != off
    found = tried(off, on)
    assert found.log_probability_off == pytest.approx(float(base["log_probability"].mean()))
    assert found.log_probability_on != found.log_probability_off
    held = ml.Store().get(on)
    assert held.attrs["model_edits"].count(",") == 1, "both edits, one on the other"
    with ml.swept_edit(runs.load(key[:12])).applied(toy):
        (alone,) = ml.generate(toy, PROMPT, **OPTIONS)["log_probability"].values
    assert not np.array_equal(alone, held["log_probability"].values[0])


def test_an_edit_that_was_deleted_meanwhile_is_told(key: str) -> None:  # noqa: F811
    ml.Store().delete(key)
    ended = ml.jobs.TABLE.wait(
        runs.start(TryRequest(model="gpt2", prompt=TEXT, edits=(key[:12],))).id, 60
    )
    assert ended is not None and ended.state == "failed"
    assert "is not in this store any more" in ended.error
