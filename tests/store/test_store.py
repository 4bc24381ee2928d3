"""Finding, opening, exporting, deleting and cleaning up."""

import csv
import json
import os
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from store_fakes import CALLS, FakeModel, facts, spread, trace

from mechlab.errors import StoreError
from mechlab.store import Store

MODEL = FakeModel()
AT_ONCE = timedelta(0)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    CALLS.clear()
    return Store(tmp_path / "cache" if request.param == "local" else f"memory://{tmp_path}/cache")


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def test_runs_are_found_by_what_they_are_newest_first(store: Store) -> None:
    assert store.find() == []
    store.run(spread, MODEL, facts(2))
    store.run(trace, MODEL, facts(2), window=4)
    store.run(spread, FakeModel("other"), facts(3))
    assert [(e.method, e.model_name) for e in store.find()] == [
        ("spread", "other"),
        ("trace", "fake"),
        ("spread", "fake"),
    ]
    assert [e.method for e in store.find(model="fake")] == ["trace", "spread"]
    assert [e.model_name for e in store.find(model="other-finger")] == ["other"]
    assert len(store.find(method="trace", model="other")) == 0
    assert len(store.find(prompts=facts(3).digest[:12])) == 1
    assert len(store.find(kind="prompt")) == 2


def test_a_record_tells_what_a_list_shows(store: Store) -> None:
    store.run(trace, MODEL, facts(2), window=4)
    (entry,) = store.find()
    assert entry.key == store.key(trace, MODEL, facts(2), window=4) and entry.id == entry.key[:12]
    assert entry.options["window"] == 4 and entry.method_version == 3
    assert entry.labels == facts(2).labels and entry.name == "facts"
    assert entry.sizes["prompt"] == 2 and entry.size > 1000
    assert abs(entry.when.timestamp() - time.time()) < 600 and entry.wall_seconds >= 0
    assert entry.prompts == facts(2).digest


def test_the_start_of_a_key_is_enough(store: Store) -> None:
    result = store.run(spread, MODEL, facts(2))
    key = store.key(spread, MODEL, facts(2))
    assert key in store and key[:12] in store and "0" * 64 not in store and 7 not in store
    for start in (key, key[:12], key[:4]):
        xr.testing.assert_identical(store.get(start), result)


@pytest.mark.parametrize("name", ["", "xyz", "abc", "ABCDEF", "../../etc", "a" * 65])
def test_what_is_no_run_id_is_refused(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="(?s)is not a run id.*store.find"):
        store.get(name)


def test_unknown_and_ambiguous_ids_are_refused(local: Store) -> None:
    with pytest.raises(StoreError, match="abcdef012345 in the store .*: no such entry"):
        local.get("abcdef012345")
    local.run(spread, MODEL, facts(2))
    entry = local.find()[0]
    twin = entry.key[:20] + "0" * 44
    text = (Path(local.root) / entry.path / "record.json").read_text().replace(entry.key, twin)
    other = Path(local.root) / entry.path.replace(entry.key, twin)
    other.mkdir()
    (other / "record.json").write_text(text)
    with pytest.raises(StoreError, match=f"2 entries begin like this: {entry.key[:20]}"):
        local.get(entry.id)


def test_an_opened_result_reads_its_numbers_later(local: Store) -> None:
    result = local.run(trace, MODEL, facts(3))
    one = local.run(trace, MODEL, facts(1))
    lazy = local.open(local.key(trace, MODEL, facts(3)))
    assert not lazy.restored_probability.variable._in_memory
    xr.testing.assert_identical(lazy.load(), result)
    xr.testing.assert_identical(local.open(local.key(trace, MODEL, facts(1)), check=True), one)


def test_a_remote_result_is_opened_too(store: Store) -> None:
    result = store.run(spread, MODEL, facts(3))
    xr.testing.assert_identical(store.open(store.key(spread, MODEL, facts(3))).load(), result)


def test_deleting_a_run_keeps_the_prompts_of_others(store: Store) -> None:
    store.run(trace, MODEL, facts(3))
    store.run(trace, MODEL, facts(2))
    store.delete(store.key(trace, MODEL, facts(3)))
    assert len(store.find()) == 1 and len(store.find(kind="prompt")) == 2
    assert store.verify() == []
    CALLS.clear()
    store.run(trace, MODEL, facts(3))
    assert len(CALLS) == 1
    store.delete(store.find()[0].id)
    store.delete(store.find()[0].id)
    assert store.find() == store.find(kind="prompt") == []
    with pytest.raises(StoreError, match="no such entry"):
        store.delete("abcd")


def test_cleaning_removes_only_what_no_record_points_to(local: Store) -> None:
    result = local.run(trace, MODEL, facts(2))
    local.run(trace, MODEL, facts(2), recompute=True)  # leaves the first writer's data
    root = Path(local.root)
    killed = root / "trace" / "prompts" / "ab" / ("ab" + "0" * 62)
    (killed / "journal").mkdir(parents=True)
    (killed / "journal" / "x.npy").write_bytes(b"x")
    models = root / "models" / "ab12"
    models.mkdir(parents=True)
    assert local.clean() == []
    old = time.time() - 2 * 86400
    for path in [killed, *killed.rglob("*")]:
        os.utime(path, (old, old))
    assert local.clean() == [killed.relative_to(root).as_posix()]
    removed = local.clean(older_than=AT_ONCE)
    assert len(removed) == 3 and all("/data-" in path for path in removed)
    assert local.clean(older_than=AT_ONCE) == [] and models.is_dir() and local.verify() == []
    xr.testing.assert_equal(local.get(local.find()[0].id), result)


def test_the_remains_of_a_killed_run_are_cleaned_on_any_place(store: Store) -> None:
    place = store._shelf.place
    place.write("trace/ab/" + "ab" * 32, {"data-00.zarr/zarr.json": b"{}"})
    assert store.find() == [] and store.clean() == []
    assert store.clean(older_than=AT_ONCE) == ["trace/ab/" + "ab" * 32]


def test_a_run_is_exported_to_zarr(local: Store, tmp_path: Path) -> None:
    result = local.run(trace, MODEL, facts(2))
    run = local.find()[0].id
    folder = local.export(run, tmp_path / "out" / "a.zarr")
    opened = xr.open_zarr(folder, consolidated=False, chunks=None).load()
    xr.testing.assert_equal(opened, result)
    import zarr

    zipped = zarr.storage.ZipStore(local.export(run, tmp_path / "a.zip"), mode="r")
    xr.testing.assert_equal(xr.open_zarr(zipped, consolidated=False, chunks=None).load(), result)
    zipped.close()


def test_a_run_is_exported_to_a_long_table(local: Store, tmp_path: Path) -> None:
    model = FakeModel()
    result = local.run(trace, model, facts(2))
    run = local.find()[0].id
    with local.export(run, tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    effects = [row for row in rows if row["variable"] == "indirect_effect"]
    assert len(effects) == int(result.indirect_effect.notnull().sum())
    one = effects[7]
    at = result.indirect_effect.sel(
        prompt=one["prompt"], site=one["site"], layer=int(one["layer"]), pos=int(one["pos"])
    )
    assert float(one["value"]) == float(at) and one["token"] == str(at.token.values)
    assert one["run"] == run and one["sample"] == ""


def test_text_that_a_spreadsheet_would_run_is_made_harmless(local: Store, tmp_path: Path) -> None:
    from mechlab.prompts import Fact

    local.run(trace, MODEL, Fact("=cmd() one two @three", "one two"))
    text = local.export(local.find()[0].id, tmp_path / "a.csv").read_text()
    assert "'=cmd()" in text and "'@three" in text
    assert ",=cmd()" not in text and ",@three" not in text


def test_a_run_is_exported_to_json(local: Store, tmp_path: Path) -> None:
    result = local.run(trace, MODEL, facts(2))
    whole = json.loads(local.export(local.find()[0].id, tmp_path / "a.json").read_text())
    assert whole["dims"] == dict(result.sizes) and whole["attrs"] == result.attrs
    effect = np.array(whole["data_vars"]["indirect_effect"]["data"], dtype=float)
    np.testing.assert_array_equal(effect, result.indirect_effect)
    assert whole["coords"]["token"]["data"] == result.token.values.tolist()


def test_an_export_never_overwrites_unasked(local: Store, tmp_path: Path) -> None:
    local.run(spread, MODEL, facts(2))
    run = local.find()[0].id
    local.export(run, tmp_path / "a.json")
    with pytest.raises(StoreError, match="it is there already"):
        local.export(run, tmp_path / "a.json")
    local.export(run, tmp_path / "a.json", overwrite=True)
    with pytest.raises(StoreError, match=r"(?s)unknown extension '.xls'.*Allowed: .zarr, .zip"):
        local.export(run, tmp_path / "a.xls")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot export to .*Choose another place"):
        local.export(run, tmp_path / "file" / "a.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "cache", "file"]


def test_the_store_does_not_appear_before_something_is_stored(local: Store) -> None:
    assert local.find() == [] and local.verify() == [] and local.clean() == []
    assert not Path(local.root).exists() and repr(local) == f"Store({local.root!r})"
