import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr
from typer.testing import CliRunner

from mechlab import cli, jobs
from mechlab.errors import Cancelled, ModelError, OptionError, StoreError
from mechlab.jobs import JobTable
from mechlab.progress import Progress, ProgressCallback
from mechlab.store import Running, Store

Gate = threading.Event
SOON = 10.0  # seconds; only a broken table ever waits that long


@pytest.fixture
def table() -> JobTable:
    return JobTable()


def held(started: Gate, gate: Gate, steps: int = 2) -> Callable[[ProgressCallback], str]:
    """Return work that reports its first step, waits for the gate, then reports the others."""

    def work(progress: ProgressCallback) -> str:
        progress(Progress(1, steps, "rows", xr.Dataset({"x": ("layer", [1.0])})))
        started.set()
        assert gate.wait(SOON)
        for step in range(2, steps + 1):
            progress(Progress(step, steps))
        return "made"

    return work


def test_a_job_runs_reports_and_keeps_what_it_returned(table: JobTable) -> None:
    started, gate = Gate(), Gate()
    assert table.submit("a", held(started, gate), label="trace").state in ("queued", "running")
    assert started.wait(SOON)
    running = table.job("a")
    assert running is not None
    assert (running.state, running.done, running.total, running.unit) == ("running", 1, 2, "rows")
    assert running.partial is not None
    assert running.seconds_left is not None
    gate.set()
    done = table.wait("a", SOON)
    assert done is not None
    assert (done.state, done.done, done.result, done.label) == ("done", 2, "made", "trace")
    assert done.submitted <= (done.started or 0) <= (done.finished or 0)
    assert done.seconds_left is None


def test_speed_counts_from_the_first_count_not_from_the_preparation(table: JobTable) -> None:
    loading, counted, gate = Gate(), Gate(), Gate()

    def work(progress: ProgressCallback) -> None:
        progress(Progress(0, 0, "loading"))
        loading.set()
        assert gate.wait(SOON)
        progress(Progress(0, 100))
        progress(Progress(50, 100))
        gate.clear()
        counted.set()
        assert gate.wait(SOON)

    table.submit("a", work)
    assert loading.wait(SOON)
    prepared = table.job("a")
    assert prepared is not None
    assert (prepared.per_second, prepared.seconds_left, prepared.counting) == (None, None, None)
    time.sleep(0.2)
    gate.set()
    assert counted.wait(SOON)
    running = table.job("a")
    assert running is not None
    assert running.started is not None
    assert running.counting is not None
    assert running.counting - running.started >= 0.2
    speed, left = running.per_second, running.seconds_left
    assert speed is not None
    assert left is not None
    assert 0 < left < 50
    gate.set()
    table.wait("a", SOON)


def test_the_same_id_attaches_to_the_running_job(table: JobTable) -> None:
    started, gate, calls = Gate(), Gate(), []
    table.submit("a", held(started, gate))
    assert started.wait(SOON)
    attached = table.submit("a", calls.append)
    assert attached.state == "running"
    gate.set()
    table.wait("a", SOON)
    assert calls == []


def test_a_finished_id_runs_again(table: JobTable) -> None:
    runs: list[int] = []
    for _ in range(2):
        table.submit("a", lambda progress: runs.append(1))
        table.wait("a", SOON)
    assert len(runs) == 2


def test_jobs_of_one_device_run_in_order_and_never_together(table: JobTable) -> None:
    started, gate, order = Gate(), Gate(), []
    table.submit("first", held(started, gate))
    for name in ("second", "third"):
        table.submit(name, lambda progress, name=name: order.append(name))  # type: ignore[misc]
    assert started.wait(SOON)
    assert (table.position("first"), table.position("second"), table.position("third")) == (
        None, 1, 2,
    )  # fmt: skip
    assert order == []
    gate.set()
    table.wait("third", SOON)
    assert order == ["second", "third"]


def test_two_devices_run_side_by_side(table: JobTable) -> None:
    started, gate = Gate(), Gate()
    table.submit("slow", held(started, gate), device="cuda:0")
    assert started.wait(SOON)
    table.submit("quick", lambda progress: None, device="cpu")
    quick = table.wait("quick", SOON)
    assert quick is not None
    assert quick.state == "done"
    assert table.job("slow").state == "running"  # type: ignore[union-attr]
    gate.set()
    table.wait("slow", SOON)


def test_cancel_stops_a_running_job_at_its_next_report_and_keeps_the_partial(
    table: JobTable,
) -> None:
    started, gate = Gate(), Gate()
    table.submit("a", held(started, gate, steps=50))
    assert started.wait(SOON)
    asked = table.cancel("a")
    assert asked is not None
    assert (asked.state, asked.cancelling) == ("running", True)
    gate.set()
    ended = table.wait("a", SOON)
    assert ended is not None
    assert (ended.state, ended.done, ended.cancelling) == ("cancelled", 2, False)
    assert ended.error == "cancelled after 2 of 50"
    assert ended.partial is not None


def test_cancel_reaches_the_work_as_the_error_of_the_package(table: JobTable) -> None:
    started, gate, seen = Gate(), Gate(), []

    def work(progress: ProgressCallback) -> None:
        started.set()
        assert gate.wait(SOON)
        try:
            progress(Progress(1, 2))
        except Cancelled as error:
            seen.append(error)
            raise

    table.submit("a", work)
    assert started.wait(SOON)
    table.cancel("a")
    gate.set()
    table.wait("a", SOON)
    assert len(seen) == 1


def test_cancel_of_a_waiting_job_means_it_never_runs(table: JobTable) -> None:
    started, gate, calls = Gate(), Gate(), []
    table.submit("first", held(started, gate))
    table.submit("second", calls.append)
    cancelled = table.cancel("second")
    assert cancelled is not None
    assert cancelled.state == "cancelled"
    gate.set()
    table.wait("first", SOON)
    table.submit("last", lambda progress: None)
    table.wait("last", SOON)
    assert calls == []


def test_a_cancelled_waiting_job_submitted_again_runs_once(table: JobTable) -> None:
    started, gate, calls = Gate(), Gate(), []
    table.submit("first", held(started, gate))
    table.submit("second", lambda progress: calls.append("old"))
    table.cancel("second")
    table.submit("second", lambda progress: calls.append("new"))
    gate.set()
    table.wait("second", SOON)
    table.submit("last", lambda progress: None)
    table.wait("last", SOON)
    assert calls == ["new"]


def test_a_failure_carries_its_message_and_the_next_job_still_runs(table: JobTable) -> None:
    def refused(progress: ProgressCallback) -> None:
        raise ModelError("'gpt9' is not a model. Known: atlas.")

    def broken(progress: ProgressCallback) -> None:
        raise ZeroDivisionError("division by zero")

    table.submit("ours", refused)
    table.submit("foreign", broken)
    table.submit("next", lambda progress: 7)
    ours, foreign, after = (table.wait(name, SOON) for name in ("ours", "foreign", "next"))
    assert ours is not None
    assert foreign is not None
    assert after is not None
    assert (ours.state, ours.error) == ("failed", "'gpt9' is not a model. Known: atlas.")
    assert foreign.error == "ZeroDivisionError: division by zero"
    assert "in broken" in foreign.details
    assert after.result == 7


def test_even_an_exit_in_a_job_does_not_end_the_worker(table: JobTable) -> None:
    def leave(progress: ProgressCallback) -> None:
        raise SystemExit(3)

    table.submit("a", leave)
    assert table.wait("a", SOON).state == "failed"  # type: ignore[union-attr]
    table.submit("b", lambda progress: None)
    assert table.wait("b", SOON).state == "done"  # type: ignore[union-attr]


def test_only_so_many_finished_jobs_are_kept(table: JobTable) -> None:
    for index in range(130):
        table.submit(str(index), lambda progress: None)
        table.wait(str(index), SOON)
    kept = [job.id for job in table.jobs()]
    assert kept == [str(index) for index in range(29, 130)]


def test_a_waiter_gives_up_after_its_timeout(table: JobTable) -> None:
    started, gate = Gate(), Gate()
    table.submit("a", held(started, gate))
    assert table.wait("a", 0.01).active  # type: ignore[union-attr]
    gate.set()
    table.wait("a", SOON)


def test_unknown_jobs_are_none_and_bad_ones_are_refused(table: JobTable) -> None:
    assert table.job("x") is None
    assert table.cancel("x") is None
    assert table.wait("x", 0) is None
    assert table.position("x") is None
    with pytest.raises(OptionError, match="non-empty id.*id=''"):
        table.submit("", lambda progress: None)
    with pytest.raises(OptionError, match="received id='a', 3.*callable"):
        table.submit("a", 3)  # type: ignore[arg-type]


def test_the_shared_table_is_one_per_process() -> None:
    jobs.submit("shared", lambda progress: "here")
    ended = jobs.TABLE.wait("shared", SOON)
    assert ended is not None
    assert ended.result == "here"


def test_the_table_needs_neither_torch_nor_streamlit() -> None:
    code = "import sys, mechlab.jobs; print({'torch', 'streamlit'} & set(sys.modules))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "set()"


FACT = {"prompt": "The capital of France is", "subject": "France", "target": "Paris"}
SPEC = {"method": "causal_trace", "model": "atlas", "prompts": [FACT]}
SMALL = {"samples": 1, "sites": ["mlp_out"], "layers": [0]}

STAND_IN = """
import json, sys
sys.path.insert(0, {tests!r})
from store_fakes import FakeModel, facts, trace
from mechlab import Store
store, options = Store({root!r}), json.load(open({spec!r}))["options"]
store.run(trace, FakeModel(), facts(1), **options)
print(json.dumps({{"run": store.key(trace, FakeModel(), facts(1), **options)[:12]}}))
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a method without torch where `mechlab run` would stand; the process is a real one."""

    def command(spec: Path, root: str) -> list[str]:
        about = {"tests": str(Path(__file__).parent), "root": root, "spec": str(spec)}
        return [sys.executable, "-c", STAND_IN.format(**about)]

    monkeypatch.setattr(sys.modules[jobs.detached.__module__], "_command", command)


def one_under_way(store: Store) -> Running:
    deadline = time.monotonic() + 60
    while not store.running():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return store.running()[0]


@pytest.mark.usefixtures("loaded_once")
def test_what_a_detached_process_is_told_to_do_keeps_the_result_in_the_store(
    tmp_path: Path,
) -> None:
    spec = tmp_path / "a.spec.json"
    spec.write_text(json.dumps({**SPEC, "options": SMALL}))
    program, *command = sys.modules[jobs.detached.__module__]._command(spec, str(tmp_path / "kept"))
    assert (program, command[:2]) == (sys.executable, ["-m", "mechlab"])
    done = CliRunner().invoke(cli.app, command[2:])
    assert done.exit_code == 0, done.output
    run = json.loads(done.stdout)["run"]
    assert [entry.id for entry in Store(tmp_path / "kept").find()] == [run]


@pytest.mark.slow
def test_a_detached_run_keeps_its_result_in_the_store(table: JobTable, tmp_path: Path) -> None:
    spec = {**SPEC, "options": SMALL}
    table.submit("a", jobs.detached(spec, str(tmp_path)))
    ended = table.wait("a", 200)
    assert ended is not None
    assert ended.state == "done", ended.error
    assert [entry.id for entry in Store(tmp_path).find()] == [ended.result]


@pytest.mark.usefixtures("stand_in")
def test_a_detached_process_that_is_killed_is_told_and_one_can_go_on(
    table: JobTable, tmp_path: Path
) -> None:
    slow = {**SPEC, "options": {"slow": 0.5}}
    table.submit("a", jobs.detached(slow, str(tmp_path)))
    os.kill(one_under_way(Store(tmp_path)).pid, signal.SIGKILL)
    ended = table.wait("a", 20)
    assert ended is not None
    assert ended.state == "failed"
    assert "ended by SIGKILL, often because memory ran out" in ended.error
    assert Store(tmp_path).running() == []
    table.submit("a", jobs.detached(slow, str(tmp_path)))
    again = table.wait("a", 60)
    assert again is not None
    assert again.state == "done", again.error
    assert [entry.id for entry in Store(tmp_path).find()] == [again.result]


@pytest.mark.usefixtures("stand_in")
def test_cancelling_a_detached_run_ends_its_process(table: JobTable, tmp_path: Path) -> None:
    table.submit("a", jobs.detached({**SPEC, "options": {"slow": 20.0}}, str(tmp_path)))
    pid = one_under_way(Store(tmp_path)).pid
    table.cancel("a")
    ended = table.wait("a", 20)
    assert ended is not None
    assert ended.state == "cancelled"
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.usefixtures("stand_in")
def test_a_detached_run_that_is_refused_says_why(table: JobTable, tmp_path: Path) -> None:
    table.submit("a", jobs.detached({**SPEC, "options": {"smaples": 3}}, str(tmp_path)))
    ended = table.wait("a", 60)
    assert ended is not None
    assert ended.state == "failed"
    assert "smaples" in ended.error


def test_a_store_elsewhere_takes_no_detached_runs() -> None:
    with pytest.raises(StoreError, match="on this machine"):
        jobs.detached(SPEC, "memory://somewhere")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (MemoryError(), "the memory of this device ran out"),
    ],
)
def test_a_full_disk_and_memory_are_told_in_words(
    table: JobTable, error: Exception, said: str
) -> None:
    def work(progress: ProgressCallback) -> None:
        raise error

    table.submit("a", work)
    ended = table.wait("a", SOON)
    assert ended is not None
    assert said in ended.error
