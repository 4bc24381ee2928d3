"""A cost is told from the size of a trace and the speed of stored ones."""

import dataclasses
from pathlib import Path

import store_fakes
from store_fakes import FakeModel, facts

from mechlab.store import Entry, Store, TraceCost, trace_cost

SIZE = {"sites": 2, "layers": 3, "tokens": 5, "samples": 4}


def stored(tmp_path: Path, **changed: object) -> Entry:
    store = Store(tmp_path)
    store.run(store_fakes.trace, FakeModel(), facts(1))
    (entry,) = store.find()
    return dataclasses.replace(entry, **changed)  # type: ignore[arg-type]


def traced(tmp_path: Path, seconds: float, **sizes: int) -> Entry:
    entry = stored(tmp_path)
    return dataclasses.replace(
        entry,
        source={**entry.source, "method": "causal_trace"},
        provenance={**entry.provenance, "wall_seconds": seconds},
        sizes=sizes,
    )


def test_without_a_stored_trace_only_the_size_is_known(tmp_path: Path) -> None:
    assert trace_cost([], **SIZE) == TraceCost(runs=120, seconds=None)
    assert trace_cost([stored(tmp_path)], **SIZE).seconds is None  # of another method


def test_the_newest_trace_that_did_work_gives_the_speed(tmp_path: Path) -> None:
    size = {"prompt": 2, "site": 1, "layer": 3, "pos": 5, "sample": 2, "further": 7}
    entries = [
        traced(tmp_path, 0.0, **size),
        traced(tmp_path, 6.0, **size),  # 60 runs in 6 seconds
        traced(tmp_path, 1.0, **size),
    ]
    assert trace_cost(entries, **SIZE) == TraceCost(runs=120, seconds=12.0)
