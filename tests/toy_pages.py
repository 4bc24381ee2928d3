"""Pages on a real tiny model: what tests of several of them share."""

import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import mechlab as ml

APPS = Path(__file__).parents[1] / "apps"
PAIR = {
    "clean": "The capital of Italy is",
    "corrupted": "The capital of Spain is",
    "answer": "Rome",
    "wrong_answer": "Madrid",
}


@pytest.fixture
def toy(
    toy_model: Callable[..., ml.Model], monkeypatch: pytest.MonkeyPatch, own_store: Path
) -> ml.Model:
    """The tiny llama, which every request loads."""
    import loaded  # lies in apps/, which conftest makes importable

    model = toy_model("llama")
    monkeypatch.setattr(ml, "load_model", lambda name, **_: model, raising=False)
    monkeypatch.setattr(loaded, "_models", OrderedDict())
    monkeypatch.setattr(loaded, "_free_memory", lambda: None)
    return model


def opened(view: str, **link: str) -> AppTest:
    """Open one page, `heads` or `paths`, with a link's parameters."""
    app = AppTest.from_file(str(APPS / "main.py"), default_timeout=60)
    for name, value in {"model": "toy-llama", **PAIR}.items():
        app.session_state[f"in.{name}"] = value
    no_exception(app.run())
    app.switch_page(f"views/{view}.py")
    for name, value in link.items():
        app.query_params[name] = value
    return no_exception(app.run())


def no_exception(app: AppTest) -> AppTest:
    assert not app.exception, [e.value + "\n".join(e.stack_trace) for e in app.exception]
    return app


def texts(app: AppTest) -> str:
    kinds = (app.markdown, app.caption, app.info, app.warning, app.error)
    raw = "\n".join(str(element.value) for kind in kinds for element in kind)
    return raw.replace("\\", "")  # what a reader sees of escaped Markdown


def grids_on(app: AppTest) -> int:
    names = [part.proto.component_name for part in app.get("bidi_component")]
    return sum(name.endswith("cell_grid") for name in names)


def press(app: AppTest, key: str) -> AppTest:
    app.button(key=key).click()
    return no_exception(app.run())


def run_to_the_end(app: AppTest) -> AppTest:
    """Rerun the page, as its timer does, until no job is active."""
    deadline = time.time() + 30
    while any(job.active for job in ml.jobs.TABLE.jobs()):
        assert time.time() < deadline
        time.sleep(0.05)
    return no_exception(app.run())
