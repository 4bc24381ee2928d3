import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr
from store_fakes import FakeModel, facts, trace

from mechlab import Store, StoreError


@pytest.fixture
def packed(tmp_path: Path) -> tuple[str, bytes, xr.Dataset]:
    """A run of two prompts as (key, bundle, result)."""
    store = Store(tmp_path / "from")
    result = store.run(trace, FakeModel(), facts(2))
    key = store.key(trace, FakeModel(), facts(2))
    return key, store.bundle([key[:12]]), result


def test_a_bundle_brings_a_result_into_another_store_unchanged(packed, tmp_path: Path) -> None:
    key, data, result = packed
    other = Store(tmp_path / "to")
    assert other.add_bundle(data) == [key]
    xr.testing.assert_identical(other.get(key), result)
    assert other.verify() == []
    assert other.add_bundle(data) == [key]  # again changes nothing


def changed(data: bytes, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            if (entry := change(name, old.read(name))) is not None:
                new.writestr(*entry)
    return stream.getvalue()


def retold(name: str, content: bytes) -> tuple[str, bytes]:
    if not name.endswith("record.json"):
        return name, content
    record = json.loads(content)
    record["source"]["options"]["seed"] = 17
    return name, json.dumps(record).encode()


def outside(name: str, content: bytes) -> tuple[str, bytes]:
    if not name.endswith("record.json"):
        return name, content
    record = json.loads(content)
    record["files"] = {f"../../{file}": check for file, check in record["files"].items()}
    return name, json.dumps(record).encode()


TAMPERED = {
    "a flipped number": lambda n, c: (n, c if "record" in n else b"\x01" + c[1:]),
    "a missing file": lambda n, c: None if n.endswith("indirect_effect/zarr.json") else (n, c),
    "a missing prompt": lambda n, c: None if "/prompts/" in n else (n, c),
    "another option than computed": retold,
    "a path outside": outside,
    "a moved folder": lambda n, c: (f"../{n}", c),
    "no record": lambda n, c: None if n.endswith("record.json") else (n, c),
}


@pytest.mark.parametrize("tampered", TAMPERED)
def test_a_tampered_bundle_is_refused_whole(packed, tmp_path: Path, tampered: str) -> None:
    other = Store(tmp_path / "to")
    with pytest.raises(StoreError, match="this bundle is not taken"):
        other.add_bundle(changed(packed[1], TAMPERED[tampered]))
    assert [path for path in tmp_path.rglob("*record.json") if "to" in path.parts] == []
    assert other.find() == []


@pytest.mark.parametrize("data", [b"", b"no zip at all", b"PK\x05\x06" + b"\0" * 10])
def test_what_is_no_zip_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(StoreError, match="not a zip"):
        Store(tmp_path).add_bundle(data)


def test_a_zip_that_claims_to_be_huge_is_refused_before_it_is_unpacked(
    packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mechlab.store import bundles

    monkeypatch.setattr(bundles, "MOST_BYTES", 1000)
    with pytest.raises(StoreError, match="at most"):
        Store(tmp_path / "to").add_bundle(packed[1])


def test_deleting_tells_what_was_freed_and_spares_shared_prompts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for count in (1, 2):
        store.run(trace, FakeModel(), facts(count))
    both, one = store.find()
    sizes = [entry.size for entry in store.find(kind="prompt")]
    own = sum(size for size, _ in both.files.values())
    smaller = store.find(kind="prompt", prompts=facts(2).prompt_digest(1))[0].size
    assert store.delete(both.key) == own + smaller
    assert sum(sizes) - smaller == store.delete(one.key)
    assert store.find(kind="prompt") == []
