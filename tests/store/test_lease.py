import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import store_fakes
import xarray as xr
from store_fakes import FakeModel, facts, trace

from mechlab import Cancelled, Progress, Store
from mechlab.store import lease


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.05)
    monkeypatch.setattr(store_fakes, "CALLS", [])


def held(store: Store, **changes: object) -> Path:
    """Write a lease of the run below, as another process would."""
    key = store.key(trace, FakeModel(), facts(1))
    file = Path(store.root) / "leases" / f"{key}.json"
    file.parent.mkdir(parents=True)
    about = {
        "key": key, "method": "trace", "model_name": "fake", "prompts": "", "options": {},
        "holder": "other", "host": "elsewhere", "pid": 1, "started": time.time(),
        "beat": time.time(), "done": 2, "total": 6, "unit": "rows", **changes,
    }  # fmt: skip
    file.write_text(json.dumps(about))
    return file


def test_two_runs_of_one_request_at_once_compute_it_once(tmp_path: Path) -> None:
    results: list[xr.Dataset] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(
                Store(tmp_path).run(trace, FakeModel(), facts(1), slow=0.05)
            )
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(results) == 3
    assert len(store_fakes.CALLS) == 1
    assert list((tmp_path / "leases").iterdir()) == []


def test_a_run_under_way_is_seen_with_its_progress_and_gone_afterwards(tmp_path: Path) -> None:
    seen: list[tuple[int, str]] = []

    def watch(progress: Progress) -> None:
        time.sleep(0.15)
        seen.extend((one.done, one.method) for one in Store(tmp_path).running())

    Store(tmp_path).run(trace, FakeModel(), facts(1), progress=watch)
    assert seen[0][1] == "trace"
    assert max(done for done, _ in seen) > 0
    assert Store(tmp_path).running() == []


def test_who_waits_for_another_process_hears_of_its_progress_and_can_stop(tmp_path: Path) -> None:
    held(Store(tmp_path))

    def stop(progress: Progress) -> None:
        assert (progress.done, progress.total) == (2, 6)
        assert progress.unit == "rows (in another process)"
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        Store(tmp_path).run(trace, FakeModel(), facts(1), progress=stop)
    assert store_fakes.CALLS == []


@pytest.mark.parametrize("death", ["silent", "killed", "unreadable"])
def test_the_lease_of_a_dead_holder_is_void(tmp_path: Path, death: str) -> None:
    store = Store(tmp_path)
    if death == "silent":
        held(store, beat=time.time() - lease.EXPIRES - 1)
    elif death == "killed":
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        held(store, host=lease.socket.gethostname(), pid=ended.pid)
    else:
        held(store).write_text("{")
    assert store.running() == []
    store.run(trace, FakeModel(), facts(1))
    assert len(store_fakes.CALLS) == 1


def test_a_failed_run_gives_its_lease_back(tmp_path: Path) -> None:
    def fail(progress: Progress) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        Store(tmp_path).run(trace, FakeModel(), facts(1), progress=fail)
    assert Store(tmp_path).running() == []
    assert list((tmp_path / "leases").iterdir()) == []
