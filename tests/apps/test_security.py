"""What the shipped configuration promises, and that links only ever select."""

import tomllib
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import mechlab as ml
from pages import PAGES

APPS = Path(__file__).parents[2] / "apps"
TAMPERED = {
    "run": "../../etc/passwd", "b": "' OR 1=1", "layer": "999", "head": "abc", "pos": "-1",
    "site": "<img src=x>", "fact": "7", "ticked": "/etc/passwd,xx", "kind": "$x$", "spec": "{}",
    "search": ":red[x]", "of_model": "/root", "target": "<b>$x$" * 99, "foil": "\x00",
}  # fmt: skip


def test_the_configuration_keeps_the_dashboard_to_this_machine() -> None:
    config = tomllib.loads((APPS / ".streamlit" / "config.toml").read_text())
    server = config["server"]
    assert server["address"] == "127.0.0.1"
    assert server["allowedHosts"] == ["localhost", "127.0.0.1"]
    assert server["enableCORS"] and server["enableXsrfProtection"]
    assert server["maxUploadSize"] == 5 and not server["enableStaticServing"]
    assert not server.get("enableAgentApi", False)
    assert config["client"]["showErrorLinks"] is False
    assert config["browser"]["gatherUsageStats"] is False


@pytest.mark.parametrize("page", [page.file for page in PAGES])
def test_a_tampered_link_runs_loads_and_breaks_nothing(engine, page: str) -> None:
    app = AppTest.from_file(str(APPS / "main.py"), default_timeout=60)
    app.run()
    app.switch_page(page)
    for name, value in TAMPERED.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, [e.value for e in app.exception]
    assert engine.loads == []
    assert ml.jobs.TABLE.jobs() == []
    assert not any(element.allow_html for element in app.markdown)


def test_no_page_lets_model_text_become_markup() -> None:
    for file in APPS.rglob("*.py"):
        assert "unsafe_allow_html" not in file.read_text(), file
        assert "pickle" not in file.read_text(), file
