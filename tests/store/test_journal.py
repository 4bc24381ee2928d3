"""A journal gives back whole batches only."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mechlab.errors import StoreError
from mechlab.store.journal import FileJournal
from mechlab.store.places import LocalPlace, open_place


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_batches_come_back_bitwise_and_can_be_forgotten(tmp_path: Path, where: str) -> None:
    place = open_place(tmp_path if where == "disk" else f"memory://{tmp_path}")
    journal = FileJournal(place, "a/journal")
    assert journal.get("x") is None
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    journal.put("x", values)
    journal.put("layer/3: é", np.array(np.nan))
    kept = journal.get("x")
    assert kept is not None and kept.dtype == np.float32 and kept.tobytes() == values.tobytes()
    assert FileJournal(place, "a/journal").get("layer/3: é") is not None
    journal.remove()
    assert journal.get("x") is None and place.names("a") == []


def test_a_damaged_batch_counts_as_missing(tmp_path: Path) -> None:
    journal = FileJournal(LocalPlace(tmp_path), "journal")
    journal.put("x", np.arange(100.0))
    (file,) = (tmp_path / "journal").iterdir()
    for content in (b"", file.read_bytes()[:-8], b"junk"):
        file.write_bytes(content)
        assert journal.get("x") is None


def test_a_journal_that_another_process_cleared_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = LocalPlace(tmp_path)

    def fail(number: int) -> Callable[[str, bytes], None]:
        def replace(path: str, data: bytes) -> None:
            raise OSError(number, os.strerror(number))

        return replace

    monkeypatch.setattr(place, "replace", fail(errno.ENOENT))
    FileJournal(place, "journal").put("x", np.zeros(1))
    monkeypatch.setattr(place, "replace", fail(errno.ENOSPC))
    with pytest.raises(StoreError, match="(?s)cannot be written: No space left.*is kept"):
        FileJournal(place, "journal").put("x", np.zeros(1))


def test_nothing_is_read_that_could_run_code(tmp_path: Path) -> None:
    journal = FileJournal(LocalPlace(tmp_path), "journal")
    with pytest.raises(ValueError, match="[Oo]bject"):
        journal.put("x", np.array([{}], dtype=object))
    journal.put("x", np.zeros(1))
    (file,) = (tmp_path / "journal").iterdir()
    with file.open("wb") as stream:
        np.save(stream, np.array([{}], dtype=object), allow_pickle=True)
    assert journal.get("x") is None
