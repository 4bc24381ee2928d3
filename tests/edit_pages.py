"""What tests of the edit page share: one small edit of a tiny model, computed once."""

import shutil
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import edit_toys
import pytest
from streamlit.testing.v1 import AppTest
from toy_pages import no_exception

import mechlab as ml
from edit_request import FactEditRequest

MAIN = str(Path(__file__).parents[1] / "apps" / "main.py")
FIELDS: dict[str, Any] = {
    "template": "{} lives in",
    "new_object": "Rome",
    "layer": 1,
    "tokens": 200,
    "own": True,
    "steps": 2,
    "learning_rate": 0.3,
    "paraphrases": "Ann was born in",
    "neighbours": "Mary lives in | Paris\nJohn lives in | Berlin",
    "samples": 2,
    "generation_length": 20,
    "drift": 3,
}
SHARED = {"model": "gpt2", "subject": "Ann", "target": "Madrid"}
REQUEST = FactEditRequest(**SHARED, **FIELDS)


_computed: list[tuple[Path, str]] = []


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store that holds the edit, and its key; the same for all files that import this."""
    if _computed:
        return _computed[0]
    folder = tmp_path_factory.mktemp("edit")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MECHLAB_CACHE", str(folder))
        key = REQUEST.compute(edit_toys.model("gpt2"), lambda progress: None, recompute=False)
    _computed.append((folder, key))
    return folder, key


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ml.Model]:
    """The tiny model, which every request loads; it is checked to be as it was afterwards."""
    import loaded

    model, before = edit_toys.model("gpt2"), edit_toys.weights("gpt2")
    monkeypatch.setattr(ml, "load_model", lambda name, **_: model, raising=False)
    monkeypatch.setattr(loaded, "_models", OrderedDict())
    monkeypatch.setattr(loaded, "_free_memory", lambda: None)
    yield model
    assert edit_toys.untouched("gpt2", before)


@pytest.fixture
def key(once: tuple[Path, str], own_store: Path, toy: ml.Model) -> str:
    """Key of the edit, in this test's own store."""
    shutil.copytree(once[0], own_store)
    return once[1]


def opened(fields: dict[str, Any] = FIELDS, **link: str) -> AppTest:
    """Open the edit page on the tiny model, with fields filled and a link's parameters."""
    app = AppTest.from_file(MAIN, default_timeout=60)
    for name, value in SHARED.items():
        app.session_state[f"in.{name}"] = value
    for name, value in fields.items():
        app.session_state[f"in.edit.{name}"] = value
    no_exception(app.run())
    app.switch_page("views/edit.py")
    for name, value in link.items():
        app.query_params[name] = value
    return no_exception(app.run())
