"""Models that studies train: made once, found again, resumed, and refused when changed."""

import json
from pathlib import Path

import pytest

from mechlab.errors import StoreError
from mechlab.store import Store

RECIPE = {"study": "some", "steps": 3, "rate": 0.5}


def write(out: Path, states: Path) -> None:
    (out / "config.json").write_text(f"{len(list(states.iterdir()))} states found")


def test_a_model_is_trained_once_and_lies_beside_its_recipe(tmp_path: Path) -> None:
    calls: list[Path] = []

    def train(out: Path, states: Path) -> None:
        calls.append(out)
        write(out, states)

    store = Store(tmp_path)
    folder = store.trained_model(RECIPE, train)
    assert store.trained_model(dict(reversed(RECIPE.items())), train) == folder
    assert len(calls) == 1, "the order of a mapping is no part of the recipe"
    assert folder.parent == tmp_path / "models" and len(folder.name) == 64
    assert json.loads((folder / "recipe.json").read_text())["recipe"] == RECIPE
    other = store.trained_model({**RECIPE, "steps": 4}, train)
    assert other != folder and len(calls) == 2
    assert store.find() == [] and store.verify() == [] and store.clean() == []


def test_a_training_that_stopped_finds_its_states_and_leaves_no_half_model(tmp_path: Path) -> None:
    def killed(out: Path, states: Path) -> None:
        (out / "config.json").write_text("half")
        (states / "step-1").write_text("saved")
        raise KeyboardInterrupt

    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.trained_model(RECIPE, killed)
    folder = store.trained_model(RECIPE, write)
    assert (folder / "config.json").read_text() == "1 states found"
    left = {path.suffix for path in folder.parent.iterdir()}
    assert left == {"", ".lock"}, "saved states go when the model is there"


@pytest.mark.parametrize("name", ["config.json", "recipe.json"])
def test_a_changed_model_is_refused_by_the_name_of_the_file(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    (store.trained_model(RECIPE, write) / name).write_text("{}")
    with pytest.raises(StoreError, match=rf"damaged: {name} missing or changed[\s\S]*Remove the"):
        store.trained_model(RECIPE, write)


def test_what_cannot_be_kept_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    def never(out: Path, states: Path) -> None:
        raise AssertionError

    with pytest.raises(StoreError, match="recipe cannot be kept: object"):
        Store(tmp_path).trained_model({"seed": object()}, never)
    with pytest.raises(StoreError, match="trained on a local disk"):
        Store("memory://cache").trained_model(RECIPE, never)
    (tmp_path / "models").write_text("no folder")
    with pytest.raises(StoreError, match="cannot be written below"):
        Store(tmp_path).trained_model(RECIPE, never)
