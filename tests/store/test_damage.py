"""Damaged entries are found, named and computed again; nothing is ever misread."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr
from store_fakes import CALLS, FakeModel, facts, numbers, trace

from mechlab.errors import StoreError
from mechlab.store import DamagedEntryWarning, Entry, NewerEntry, Store

MODEL = FakeModel()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prepared") / "cache"
    Store(root).run(trace, MODEL, facts(3))
    return root


@pytest.fixture
def store(prepared: Path, tmp_path: Path) -> Store:
    """Three stored prompts, and the run that joins them."""
    CALLS.clear()
    return Store(shutil.copytree(prepared, tmp_path / "cache"))


def folder(store: Store, entry: Entry) -> Path:
    return Path(store.root) / entry.path


def one_array(path: Path) -> Path:
    files = path.glob("data-*.zarr/indirect_effect/c/**/0")
    return next(file for file in files if file.is_file())


def truncate(path: Path) -> None:
    file = one_array(path)
    file.write_bytes(file.read_bytes()[:-1])


def flip(path: Path) -> None:
    file = one_array(path)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def lose(path: Path) -> None:
    one_array(path).unlink()


def lose_all(path: Path) -> None:
    shutil.rmtree(next(path.glob("data-*.zarr")))


def scribble(path: Path) -> None:
    (path / "record.json").write_text("{nonsense")


def empty(path: Path) -> None:
    (path / "record.json").write_text("")


def forget(path: Path) -> None:
    change(path, lambda record: record.pop("files"))


def stray(path: Path) -> None:
    change(path, lambda record: record.update(files={"../../../secret": [1, "0"]}))


def misplace(path: Path) -> None:
    change(path, lambda record: record.update(key="0" * 64))


def age(path: Path) -> None:
    change(path, lambda record: record.update(schema=0))


def change(path: Path, how: Callable[[dict], object]) -> None:
    record = json.loads((path / "record.json").read_text())
    how(record)
    (path / "record.json").write_text(json.dumps(record))


DAMAGE = {
    truncate: "indirect_effect/c/.* has [0-9]+ bytes instead of [0-9]+",
    flip: "indirect_effect/c/.* does not have its checksum",
    lose: "indirect_effect/c/.* is missing",
    lose_all: "zarr.json is missing",
    scribble: "record.json that cannot be parsed",
    empty: "record.json that cannot be parsed",
    forget: "record.json that lacks 'files'",
    stray: "record.json that names files outside the entry",
    misplace: "record.json that belongs to trace/",
    age: "written by an older mechlab .schema 0",
}


@pytest.mark.parametrize("how", DAMAGE, ids=lambda how: how.__name__)
def test_a_damaged_prompt_is_named_and_it_alone_is_computed_again(
    store: Store, how: Callable[[Path], None]
) -> None:
    middle = next(e for e in store.find(kind="prompt") if e.labels == (facts(3)[1].prompt,))
    how(folder(store, middle))
    with pytest.warns(DamagedEntryWarning, match=f"{DAMAGE[how]}.*computed again"):
        result = store.run(trace, MODEL, facts(4))
    assert CALLS == [facts(3)[1].prompt, facts(4)[3].prompt]
    xr.testing.assert_identical(numbers(result), numbers(trace(MODEL, facts(4))))
    assert store.verify() == []


@pytest.mark.parametrize("how", DAMAGE, ids=lambda how: how.__name__)
def test_a_damaged_run_is_put_together_from_its_prompts(
    store: Store, how: Callable[[Path], None]
) -> None:
    how(folder(store, store.find()[0]))
    with pytest.warns(DamagedEntryWarning, match=f"{DAMAGE[how]}.*computed again"):
        result = store.run(trace, MODEL, facts(3))
    assert CALLS == []
    xr.testing.assert_identical(numbers(result), numbers(trace(MODEL, facts(3))))
    assert store.verify() == []


def test_reading_a_run_with_damaged_data_falls_back_on_its_prompts(store: Store) -> None:
    whole = store.get((entry := store.find()[0]).key)
    truncate(folder(store, entry))
    with pytest.warns(DamagedEntryWarning, match="put together from its prompts"):
        xr.testing.assert_identical(store.get(entry.key), whole)


@pytest.mark.parametrize("how", [truncate, flip, lose, lose_all], ids=lambda how: how.__name__)
def test_reading_what_is_damaged_throughout_is_refused(
    store: Store, how: Callable[[Path], None]
) -> None:
    entry = store.find(kind="prompt")[0]
    how(folder(store, entry))
    with pytest.raises(StoreError, match=f"entry {entry.id} of trace is damaged.*{DAMAGE[how]}"):
        store.get(entry.key)


def test_opening_checks_sizes_and_on_request_checksums(store: Store) -> None:
    entry = store.find(kind="prompt")[0]
    flip(folder(store, entry))
    store.open(entry.key)
    with pytest.raises(StoreError, match="does not have its checksum"):
        store.open(entry.key, check=True)
    truncate(folder(store, entry))
    with pytest.raises(StoreError, match="missing or of wrong size: indirect_effect/c/"):
        store.open(entry.key)


def test_verify_names_every_damaged_entry(store: Store) -> None:
    one, two, _ = store.find(kind="prompt")
    flip(folder(store, one))
    shutil.rmtree(folder(store, two))
    found = {damage.path: damage.problem for damage in store.verify()}
    assert "does not have its checksum" in found[one.path]
    assert f"lacks its prompt {two.id}" in found[store.find()[0].path]
    assert len(found) == 2


def test_a_broken_record_is_not_listed_but_named(store: Store) -> None:
    store.run(trace, MODEL, facts(1))
    scribble(folder(store, store.find()[0]))
    with pytest.warns(DamagedEntryWarning, match="cannot be parsed. It is not listed"):
        assert len(store.find()) == 1


def test_an_entry_of_a_newer_mechlab_is_neither_read_nor_replaced(store: Store) -> None:
    path = folder(store, store.find()[0])
    change(path, lambda record: record.update(schema=99))
    before = (path / "record.json").read_bytes()
    with pytest.raises(NewerEntry, match=r"(?s)newer mechlab \(schema 99\).*Update mechlab"):
        store.run(trace, MODEL, facts(3))
    assert (path / "record.json").read_bytes() == before and CALLS == []


def test_a_folder_without_a_record_is_no_entry(store: Store) -> None:
    entry = store.find(kind="prompt")[0]
    (folder(store, entry) / "record.json").unlink()
    assert len(store.find(kind="prompt")) == 2
    with pytest.raises(StoreError, match="no such entry"):
        store.get(entry.key)
