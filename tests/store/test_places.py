"""Where a store lies, and how files are replaced there."""

import os
from pathlib import Path

import pytest

from mechlab.errors import StoreError
from mechlab.store import Store
from mechlab.store.places import LocalPlace, Place, RemotePlace, default_root, open_place


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return LocalPlace(tmp_path / "root")
    return RemotePlace(f"memory://{tmp_path}")


def test_files_are_written_listed_replaced_and_removed(place: Place) -> None:
    assert place.names("") == [] and place.names("a/b") == []
    place.write("a/b", {"x": b"1", "c/y": b"2"})
    place.replace("a/b/x", b"3")
    assert place.names("a/b") == ["c", "x"] and place.names("a") == ["b"]
    assert place.read("a/b/x") == b"3" and place.read("a/b/c/y") == b"2"
    assert 0 <= place.age("a") < 60
    place.remove("a/b/x")
    place.remove("a/b/x")
    with pytest.raises(FileNotFoundError):
        place.read("a/b/x")
    place.remove("a")
    assert place.names("") == []


def test_a_failed_replacement_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = LocalPlace(tmp_path)
    place.replace("x", b"old")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        place.replace("x", b"new")
    assert place.read("x") == b"old" and [file.name for file in tmp_path.iterdir()] == ["x"]


def test_the_environment_decides_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MECHLAB_CACHE", str(tmp_path))
    assert Store().root == str(tmp_path)
    monkeypatch.setenv("MECHLAB_CACHE", "memory://elsewhere")
    assert Store().root == "memory://elsewhere"
    assert Store(tmp_path / "mine").root == str(tmp_path / "mine")


def test_a_checkout_has_its_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MECHLAB_CACHE", raising=False)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mechlab"\n')
    monkeypatch.chdir(tmp_path / "deep" / "er")
    assert default_root() == str(tmp_path / "cache")


def test_elsewhere_the_users_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MECHLAB_CACHE", raising=False)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mechlab.store.places.__file__", str(tmp_path / "site" / "places.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Path(default_root()).is_relative_to(tmp_path / "home")
    assert "mechlab" in default_root()


def test_a_relative_root_does_not_follow_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store("here").root == str(tmp_path / "here")
    assert open_place(f"file://{tmp_path}").folder == tmp_path


def test_an_unknown_file_system_is_refused() -> None:
    with pytest.raises(StoreError, match="(?s)the store nowhere://x cannot be opened.*Allowed"):
        Store("nowhere://x")
