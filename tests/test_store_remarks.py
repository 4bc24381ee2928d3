"""Tags and notes: beside a run, never part of its result."""

import io
import json
import zipfile
from pathlib import Path

import pytest
import xarray as xr
from store_fakes import FakeModel, facts, spread, trace

from mechlab import Store, StoreError
from mechlab.store import DamagedEntryWarning, Remark
from mechlab.store.places import LocalPlace


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Store, str]:
    """A store with one remarked run of two prompts, and its key."""
    store = Store(tmp_path / "here")
    store.run(trace, FakeModel(), facts(2))
    key = store.find()[0].key
    store.remark(key[:12], tags=["paper", "été-2"], note="bright at L17\n= look again <b>$x$")
    return store, key


def remark_file(store: Store, key: str) -> Path:
    return Path(store.root, store.entry(key).path, "remark.json")


def test_a_remark_changes_neither_result_nor_key_nor_checksums(tmp_path: Path, kept) -> None:
    store, key = kept
    plain = Store(tmp_path / "plain")
    plain.run(trace, FakeModel(), facts(2))
    assert [entry.key for entry in plain.find()] == [entry.key for entry in store.find()] == [key]
    xr.testing.assert_equal(plain.get(key), store.get(key))
    assert store.verify() == []
    assert store.remarks()[key].tags == ("paper", "été-2")


def test_a_part_that_is_not_given_stays_and_an_empty_remark_is_no_file(kept) -> None:
    store, key = kept
    assert store.remark(key, tags=[" b ", "a", "b", ""]).note.startswith("bright")
    assert store.remark(key, shown_although="rank 14").tags == ("a", "b")
    assert store.remarks([key[:8]])[key].shown_although == "rank 14"
    assert store.remark(key, tags=(), note="", shown_although="") == Remark()
    assert (store.remarks(), remark_file(store, key).exists()) == ({}, False)


def test_remarks_outlive_computing_again_and_cleaning_and_go_with_the_run(kept) -> None:
    from datetime import timedelta

    store, key = kept
    before = store.remarks()
    store.run(trace, FakeModel(), facts(2), recompute=True)
    store.clean(older_than=timedelta(0))
    assert store.remarks() == before != {}
    folder = remark_file(store, key).parent
    store.delete(key)
    assert (store.remarks(), folder.exists()) == ({}, False)


def test_a_bundle_carries_remarks_and_never_replaces_those_that_are_there(
    kept, tmp_path: Path
) -> None:
    store, key = kept
    data, other = store.bundle([key]), Store(tmp_path / "there")
    other.add_bundle(data)
    assert other.remarks() == store.remarks()
    other.remark(key, tags=["mine"])
    other.add_bundle(data)
    assert other.remarks()[key].tags == ("mine",)


@pytest.mark.parametrize(
    "remark", [b"{", b"[]", b'{"tags": [["a"]], "note": "", "shown_although": ""}',
               json.dumps({"tags": [], "note": "x" * 1001, "shown_although": ""}).encode()]
)  # fmt: skip
def test_a_bundle_with_a_remark_that_nobody_wrote_so_is_refused_whole(
    kept, tmp_path: Path, remark: bytes
) -> None:
    store, key = kept
    changed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(store.bundle([key]))) as old,
        zipfile.ZipFile(changed, "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, remark if name.endswith("remark.json") else old.read(name))
    other = Store(tmp_path / "there")
    with pytest.raises(StoreError, match="not taken.*remark"):
        other.add_bundle(changed.getvalue())
    assert other.find() == []
    remark_file(store, key).write_bytes(remark)
    with pytest.warns(DamagedEntryWarning, match="damaged"):
        assert store.remarks() == {}
    with pytest.warns(DamagedEntryWarning):
        store.remark(key, note="again")
    assert store.remarks()[key] == Remark(note="again")


def test_what_cannot_be_kept_is_refused_all_at_once_and_what_was_said_stays(
    kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, key = kept
    before = store.remarks()
    with pytest.raises(StoreError) as error:
        store.remark(key, tags=["a b", "[red]", "x" * 33], note="n" * 1001)
    assert all(part in str(error.value) for part in ("'a b'", "'[red]'", "xxx", "of 1001"))
    for bad in ({"tags": map(str, range(13))}, {"note": "bell \a"}, {"shown_although": "\0"}):
        with pytest.raises(StoreError, match="not kept"):
            store.remark(key, **bad)
    with pytest.raises(StoreError, match="no such entry"):
        store.remark("0" * 12, note="x")
    with pytest.raises(StoreError, match="one prompt of a run"):
        store.remark(store.find(kind="prompt")[0].key, note="x")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalPlace, "replace", full)
    with pytest.raises(StoreError, match="No space left"):
        store.remark(key, note="new")
    assert store.remarks() == before


def test_a_run_in_memory_or_of_another_kind_of_place_takes_remarks_too() -> None:
    store = Store("memory://remarks-here")
    store.run(spread, FakeModel(), facts(2))
    key = store.find()[0].key
    store.remark(key, tags=["far"])
    assert store.remarks() == {key: Remark(("far",))}
    store.remark(key, tags=[])
    assert store.remarks() == {}
