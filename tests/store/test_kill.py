"""Real processes: killed at any moment, or writing the same thing at once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import xarray as xr
from store_fakes import FakeModel, facts, numbers, trace

from mechlab.store import Store
from mechlab.store.places import LocalPlace

TESTS = Path(__file__).parents[1]
COUNT = 4
CODE = f"""
import sys
from store_fakes import FakeModel, facts, trace
from mechlab.store import Store
print("ready", flush=True)
Store(sys.argv[1]).run(trace, FakeModel(), facts({COUNT}), slow=0.02)
"""


def start(root: Path, log: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    env = {**os.environ, "PYTHONPATH": path, "FAKE_LOG": str(log), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", CODE, str(root)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


@pytest.fixture
def expected() -> xr.Dataset:
    return numbers(trace(FakeModel(), facts(COUNT)))


def assert_complete(store: Store, expected: xr.Dataset) -> None:
    result = store.get(store.key(trace, FakeModel(), facts(COUNT), slow=0.02))
    xr.testing.assert_identical(numbers(result), expected)
    for name, variable in expected.variables.items():
        assert result[name].values.tobytes() == variable.values.tobytes()
    assert store.verify() == []


def test_a_run_killed_again_and_again_loses_at_most_the_batch_in_flight(
    tmp_path: Path, expected: xr.Dataset
) -> None:
    store, log = Store(tmp_path / "cache"), tmp_path / "log"
    log.touch()
    chance, kills = random.Random(0), 0
    for _ in range(60):
        process, before = start(Path(store.root), log), len(log.read_text().splitlines())
        wait_until_ready(process)
        batches = chance.randint(2, 4)  # then kill it at some moment of the next batch or write
        while process.poll() is None and len(log.read_text().splitlines()) < before + batches:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.04))
        process.send_signal(signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        assert process.stdout is not None
        process.stdout.close()
        assert store.verify() == []  # what has a record is whole
        if not killed:
            break
        kills += 1
    assert kills >= 3 and not killed
    computed = log.read_text().splitlines()
    assert set(computed) == {
        f"{fact.prompt} {layer}" for fact in facts(COUNT) for layer in range(3)
    }
    assert len(computed) - len(set(computed)) <= kills  # one batch in flight for each kill
    assert_complete(store, expected)
    store.clean()


def test_two_processes_may_write_the_same_thing_at_once(
    tmp_path: Path, expected: xr.Dataset
) -> None:
    store, log = Store(tmp_path / "cache"), tmp_path / "log"
    processes = [start(Path(store.root), log) for _ in range(2)]
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
    assert_complete(store, expected)
    assert len(store.find()) == 1 and len(store.find(kind="prompt")) == COUNT


class StoppingPlace(LocalPlace):
    """A disk on which the process ends before one of its writes."""

    def __init__(self, folder: Path, writes: int) -> None:
        super().__init__(folder)
        self.left = writes

    def write(self, path: str, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self.step()
            super().write(path, {name: data})

    def replace(self, path: str, data: bytes) -> None:
        self.step()
        super().replace(path, data)

    def step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("writes", [0, 1, 2, 4, 5, 17, 32, 33, 50, 70, 85])
def test_whatever_write_comes_last_what_is_there_is_complete(tmp_path: Path, writes: int) -> None:
    store = Store(tmp_path)
    store._shelf.place = StoppingPlace(tmp_path, writes)
    with pytest.raises(KeyboardInterrupt):
        store.run(trace, FakeModel(), facts(2))
    left = Store(tmp_path)
    assert left.verify() == [] and left.find() == []
    result = left.run(trace, FakeModel(), facts(2))
    xr.testing.assert_identical(numbers(result), numbers(trace(FakeModel(), facts(2))))
