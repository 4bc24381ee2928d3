"""The page of causal traces with the real engine, on a model that lies in a folder."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from toy_pages import APPS, grids_on, no_exception, press, run_to_the_end, texts

import loaded
import mechlab as ml


def test_a_folder_of_a_random_model_is_traced_by_its_path(
    model_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded, "_models", OrderedDict())
    folder = str(model_folder("llama", "bpe"))
    fields = {"prompt": "The capital of France is", "subject": "France", "target": "Paris"}
    app = AppTest.from_file(str(APPS / "main.py"), default_timeout=60)
    for name, value in {"model": folder, **fields}.items():
        app.session_state[f"in.{name}"] = value
    app.session_state["in.trace.samples"] = 3
    app.session_state["in.trace.known_only"] = False
    app = run_to_the_end(press(no_exception(app.run()), "run_now"))
    assert grids_on(app) == 3, texts(app)
    assert [dict(key)["name"] for key in loaded._models] == [folder]
    (entry,) = ml.Store().find()
    assert (entry.method, entry.id[:12]) == ("causal_trace", app.query_params["run"])
