from collections.abc import Callable

import numpy as np
import pytest

import loaded
import mechlab as ml
import runs
from trace_request import TraceRequest
from trace_view import request_of

FACT = {"prompt": "The capital of France is", "subject": "France", "target": "Paris"}


def test_a_run_is_stored_found_and_read_again(stored: Callable[..., str]) -> None:
    request = TraceRequest(**FACT, samples=3)
    assert runs.find(request) is None
    run = stored(request)
    assert runs.is_run_id(run)
    assert runs.find(request) == run
    trace = runs.load(run)
    assert trace is not None
    assert request.differences(request_of(trace, "0", "atlas")) == []
    assert [entry.id for entry in runs.recent()] == [run]


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 4}, {"seed": 1}, {"noise_scale": 2.0}, {"known_only": False}, {"window": 2},
        {"sites": ("mlp_out",)}, {"target": "Rome"}, {"model": "echo"}, {"dtype": "bfloat16"},
        {"revision": "main"}, {"weights": "processed"}, {"more": '{"score": "target"}'},
    ],
)  # fmt: skip
def test_a_request_that_differs_in_anything_is_not_answered_by_it(
    stored: Callable[..., str], change: dict[str, object]
) -> None:
    request = TraceRequest(**FACT, samples=3)
    run = stored(request)
    assert runs.find(TraceRequest(**FACT, samples=3, device="cuda:0")) == run
    assert runs.find(TraceRequest(**{**FACT, "samples": 3, **change})) is None


def test_the_second_run_of_a_request_computes_nothing(stored, engine) -> None:
    stored(TraceRequest(**FACT))
    stored(TraceRequest(**FACT))
    assert engine.runs == 1
    assert len(engine.loads) == 1


def test_recompute_computes_again(stored, engine) -> None:
    stored(TraceRequest(**FACT))
    job = runs.start(TraceRequest(**FACT), recompute=True)
    ml.jobs.TABLE.wait(job.id, 20)
    assert engine.runs == 2


def test_the_model_is_loaded_with_every_argument(stored, engine) -> None:
    stored(TraceRequest(**FACT, model="echo", dtype="bfloat16", checkpoint=500))
    assert engine.loads == [
        {
            "name": "echo", "device": "auto", "dtype": "bfloat16", "weights": "raw",
            "revision": None, "checkpoint": 500,
        }
    ]  # fmt: skip


def test_another_precision_is_another_model_and_only_two_are_kept(engine) -> None:
    arguments = [TraceRequest(dtype=d).load_arguments for d in ("float32", "bfloat16", "float16")]
    first = loaded.load(arguments[0])
    assert loaded.load(arguments[1]) is not first
    assert loaded.load(arguments[0]) is first
    loaded.load(arguments[2])  # puts out the one that was not used for longest
    assert [loaded.is_loaded(a) for a in arguments] == [True, False, True]
    assert loaded.summary(arguments[1]) == {}
    assert loaded.summary(arguments[0])["attention heads"] == "2 per layer"
    loaded.drop_all()
    assert not loaded.is_loaded(arguments[0])


def test_ids_that_are_not_ids_or_not_here_load_nothing() -> None:
    for text in ("", "abc", "../../etc/passwd", "G" * 12, "0" * 12, "0" * 64):
        assert runs.load(text) is None


def test_a_damaged_result_is_an_error_with_a_name(stored, own_store) -> None:
    run = stored(TraceRequest(**FACT))
    for file in own_store.rglob("c/*"):
        if file.is_file():
            file.write_bytes(b"broken")
    for file in own_store.rglob("zarr.json"):
        file.write_text("{")
    with pytest.raises(ml.StoreError, match="causal_trace is damaged: .*zarr.json"):
        runs.load(run)


def test_the_speed_of_the_last_trace_is_rows_per_second(stored) -> None:
    request = TraceRequest(**FACT, samples=3)
    size = {"sites": 1, "layers": 1, "tokens": 1, "samples": 1}
    assert ml.trace_cost(runs.of_model(request), **size).seconds is None
    stored(request)
    rows = 3 * 4 * 6 * 3  # sites × layers × tokens × samples
    (entry,) = runs.of_model(request)
    told = ml.trace_cost(runs.of_model(request), **size)
    assert told.seconds == pytest.approx(entry.wall_seconds / rows)
    assert runs.of_model(TraceRequest(**FACT, model="echo")) == []


def test_a_failure_reaches_the_job_with_its_message(engine) -> None:
    engine.error = ml.SiteError("site 'mixer_out' does not exist on atlas.")
    job = runs.start(TraceRequest(**FACT))
    ended = ml.jobs.TABLE.wait(job.id, 20)
    assert ended is not None
    assert (ended.state, ended.error) == ("failed", "site 'mixer_out' does not exist on atlas.")


def test_an_impossible_fact_starts_nothing(engine) -> None:
    with pytest.raises(ml.PromptError, match="does not occur"):
        runs.start(TraceRequest(prompt="The capital of France is", subject="Peru"))
    assert ml.jobs.TABLE.jobs() == []


def test_a_stored_result_reads_back_bitwise(stored) -> None:
    run = stored(TraceRequest(**FACT))
    first = runs.load(run)
    runs._shown.clear()
    again = runs.load(run)
    np.testing.assert_array_equal(first.indirect_effect, again.indirect_effect)
