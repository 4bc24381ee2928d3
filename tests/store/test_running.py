"""`Store.run` computes what is missing, once."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import store_fakes
import xarray as xr
from store_fakes import CALLS, FakeModel, facts, numbers, spread, trace

from mechlab.errors import Cancelled, PromptError, StoreError
from mechlab.progress import Progress
from mechlab.prompts import PromptSet
from mechlab.results import analysis
from mechlab.store import Store

MODEL = FakeModel()


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    CALLS.clear()
    return Store(tmp_path / "cache" if request.param == "local" else f"memory://{tmp_path}/cache")


def assert_same(found: xr.Dataset, expected: xr.Dataset) -> None:
    xr.testing.assert_identical(found, expected)
    assert list(found.variables) == list(expected.variables)
    for name, variable in expected.variables.items():
        assert found[name].dtype == variable.dtype
        assert found[name].values.tobytes() == variable.values.tobytes()


def test_a_second_call_returns_the_stored_result(store: Store) -> None:
    first = store.run(trace, MODEL, facts(3), window=4)
    assert len(CALLS) == 3
    assert_same(store.run(trace, MODEL, list(facts(3)), window=4), first)
    assert_same(store.get(store.key(trace, MODEL, facts(3), window=4)), first)
    assert len(CALLS) == 3
    store.run(trace, MODEL, facts(3), window=5)
    assert len(CALLS) == 6


def test_a_stored_result_equals_a_direct_call(store: Store) -> None:
    stored = store.run(trace, MODEL, facts(4))
    assert_same(numbers(stored), numbers(trace(MODEL, facts(4))))


def test_a_longer_set_computes_only_the_missing_prompts(store: Store) -> None:
    store.run(trace, MODEL, facts(3))
    CALLS.clear()
    longer = store.run(trace, MODEL, facts(6))
    assert CALLS == [fact.prompt for fact in facts(6)[3:]]
    CALLS.clear()
    mixed = store.run(trace, MODEL, facts(6).select([5, 0, 2]))
    assert CALLS == []
    assert_same(numbers(mixed), numbers(trace(MODEL, facts(6).select([5, 0, 2]))))
    assert_same(numbers(longer), numbers(trace(MODEL, facts(6))))


def test_a_prompt_that_occurs_twice_is_computed_once(store: Store) -> None:
    twice = PromptSet((*facts(2), *facts(1)))
    result = store.run(trace, MODEL, twice)
    assert len(CALLS) == 2
    assert result.prompt.values.tolist() == list(twice.labels)
    np.testing.assert_array_equal(result.indirect_effect[0], result.indirect_effect[2])
    assert_same(store.run(trace, MODEL, twice), result)


def test_one_prompt_is_kept_once_and_comes_back(store: Store) -> None:
    result = store.run(trace, MODEL, facts(1)[0])
    (entry,) = store.find()
    assert entry.data is None and len(entry.chunks) == 1
    assert_same(store.run(trace, MODEL, facts(1)), result)
    assert len(CALLS) == 1


def test_recompute_computes_everything_anew(store: Store) -> None:
    first = store.run(trace, MODEL, facts(2))
    again = store.run(trace, MODEL, facts(2), recompute=True)
    assert len(CALLS) == 4
    assert_same(numbers(first), numbers(again))
    assert len(store.find()) == 1 and store.verify() == []


def test_a_method_on_the_whole_set_is_kept_whole(store: Store) -> None:
    first = store.run(spread, MODEL, facts(3), power=2)
    assert_same(store.run(spread, MODEL, facts(3), power=2), first)
    assert CALLS == ["spread"]
    store.run(spread, MODEL, facts(4), power=2)
    assert CALLS == ["spread", "spread"] and not store.find(kind="prompt")


def test_other_models_and_versions_never_mix(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    old = store.run(spread, MODEL, facts(2))
    assert store.run(spread, FakeModel("b"), facts(2)).attrs["model_name"] == "b"

    def spread2(model: Any, prompts: Any, *, power: int = 1) -> xr.Dataset:
        return old.assign_attrs(method_version=2)

    spread2.__name__ = "spread"
    newer = analysis(version=2, per_prompt=False)(spread2)
    assert store.run(newer, MODEL, facts(2)).attrs["method_version"] == 2
    versions = sorted(entry.method_version for entry in store.find(method="spread"))
    assert versions == [1, 1, 2]


def test_progress_counts_prompts_and_shows_the_one_in_flight(store: Store) -> None:
    store.run(trace, MODEL, facts(1))
    seen: list[Progress] = []
    store.run(trace, MODEL, facts(3), progress=seen.append)
    assert [(p.done, p.total, p.unit) for p in seen] == [
        *[(1, 3, "prompts")] * 3,
        (2, 3, "prompts"),
        *[(2, 3, "prompts")] * 3,
        (3, 3, "prompts"),
    ]
    assert all(p.partial is not None for p in seen)
    assert seen[0].partial is not None and seen[0].partial.layer.values.tolist() == [0]
    assert seen[3].partial is not None and "indirect_effect" in seen[3].partial
    seen.clear()
    store.run(trace, MODEL, facts(3), progress=seen.append)
    assert [(p.done, p.total) for p in seen] == [(3, 3)]


def test_a_single_prompt_reports_in_the_methods_own_units(store: Store) -> None:
    seen: list[Progress] = []
    store.run(trace, MODEL, facts(1), progress=seen.append)
    assert [(p.done, p.total, p.unit) for p in seen] == [
        (1, 3, "rows"),
        (2, 3, "rows"),
        (3, 3, "rows"),
        (1, 1, "prompts"),
    ]


def test_cancelling_keeps_what_was_finished(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("FAKE_LOG", str(log))
    steps = []

    def stop(progress: Progress) -> None:
        steps.append(progress)
        if len(steps) == 7:  # in the second prompt, after its third layer
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        store.run(trace, MODEL, facts(3), progress=stop)
    assert store.find() == [] and len(store.find(kind="prompt")) == 1
    before = log.read_text().splitlines()
    assert len(before) == 6
    store.run(trace, MODEL, facts(3))
    assert len(set(log.read_text().splitlines())) == len(log.read_text().splitlines()) == 9


def test_the_journal_goes_when_the_prompt_is_complete(store: Store) -> None:
    store.run(trace, MODEL, facts(2))
    for entry in [*store.find(), *store.find(kind="prompt")]:
        names = store._shelf.place.names(entry.path)
        assert names == sorted(filter(None, ["record.json", entry.data]))


def test_hints_reach_the_method(store: Store) -> None:
    got: dict[str, Any] = {}

    @analysis(per_prompt=False)
    def hinted(model: Any, prompts: Any, *, device: str = "cpu", journal: Any = None) -> xr.Dataset:
        got.update(device=device, journal=journal)
        return store_fakes.spread(model, prompts).assign_attrs(method="hinted")

    store.run(hinted, MODEL, facts(1), device="cuda")
    assert got["device"] == "cuda" and got["journal"].get("x") is None
    store.run(hinted, MODEL, facts(1), device="cpu")
    assert got["device"] == "cuda"


def test_a_result_of_something_else_is_not_stored(store: Store) -> None:
    @analysis(per_prompt=False)
    def liar(model: Any, prompts: Any) -> xr.Dataset:
        return spread(FakeModel("edited meanwhile"), prompts)

    with pytest.raises(
        StoreError, match="(?s)says it comes from .*'edited meanwhile-finger.*not st"
    ):
        store.run(liar, MODEL, facts(1))
    assert store.find() == []


def test_all_prompts_are_checked_before_the_first_is_computed(store: Store) -> None:
    def long_ones(model: Any, prompts: Any, *, window: int = 2) -> None:
        if wrong := [f"#{i}" for i, fact in enumerate(prompts) if len(fact.prompt) > 27 * window]:
            raise PromptError(f"too long: {', '.join(wrong)}")

    checked = analysis(version=3, check=long_ones)(_copy_of(trace))
    with pytest.raises(PromptError, match="too long: #3, #7"):
        store.run(checked, MODEL, facts(8), window=1, max_batch=3)
    assert CALLS == [] and store.find(kind="prompt") == []
    store.run(checked, MODEL, facts(8), window=2)
    assert len(CALLS) == 8


def _copy_of(function: Any) -> Any:
    @functools.wraps(function, updated=())
    def copy(*args: Any, **options: Any) -> xr.Dataset:
        return function(*args, **options)

    return copy


def test_a_store_that_cannot_be_written_is_refused_before_computing(tmp_path: Path) -> None:
    CALLS.clear()
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "cache")
    with pytest.raises(StoreError, match="(?s)file/cache cannot be written: .*MECHLAB_CACHE"):
        store.run(trace, MODEL, facts(1))
    assert CALLS == [] and store.find() == []


def test_a_store_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied")

    store = Store(tmp_path)
    monkeypatch.setattr(store._shelf.place, "names", refused)
    with pytest.raises(StoreError, match="(?s)cannot be read: Permission denied.*MECHLAB_CACHE"):
        store.find()


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.run(trace, MODEL, facts(1))

    def full(path: str, files: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store._shelf.place, "write", full)
    with pytest.raises(StoreError, match="(?s)cannot be written to .*No space left.*is kept"):
        store.run(trace, MODEL, facts(2))
    assert len(store.find()) == 1


def test_stored_results_are_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    first = store.run(trace, MODEL, facts(2))

    def refused(path: str, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store._shelf.place, "replace", refused)
    assert_same(store.run(trace, MODEL, facts(2)), first)
    with pytest.raises(StoreError, match="cannot be written: Permission denied"):
        store.run(trace, MODEL, facts(3))
