"""`mechlab app`: on this machine only, from the checkout or the wheel, clear without Streamlit."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mechlab.cli import app, dashboard
from mechlab.errors import OptionError


@pytest.fixture
def calls(monkeypatch) -> list[tuple[list[str], dict[str, str]]]:
    made: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(dashboard, "become", lambda *call: made.append(call))
    return made


def test_it_serves_the_main_script_on_this_machine_only(calls):
    ended = CliRunner().invoke(app, ["app", "--port", "8765", "--no-browser"])
    assert ended.exit_code == 0, ended.output
    ((command, _),) = calls
    assert (command[0], command[2]) == (sys.executable, "run")
    assert Path(command[1]).is_file() and Path(command[3]).is_file()
    assert {"--server.address=127.0.0.1", "--server.port=8765"} <= set(command)
    assert {"--server.headless=true", "--browser.gatherUsageStats=false"} <= set(command)


def test_the_cache_is_handed_on(calls, tmp_path):
    CliRunner().invoke(app, ["app", "--cache", str(tmp_path)])
    ((_, environment),) = calls
    assert environment["MECHLAB_CACHE"] == str(tmp_path)


def test_a_missing_streamlit_is_said_with_the_remedy(calls, monkeypatch):
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    ended = CliRunner().invoke(app, ["app"])
    assert ended.exit_code == 2
    assert "pip install 'mechlab[app]'" in ended.stderr
    assert calls == []


def test_a_missing_script_is_an_error(monkeypatch):
    monkeypatch.setattr(dashboard, "__file__", "/nowhere/mechlab/cli/dashboard.py")
    with pytest.raises(OptionError, match="files are missing"):
        dashboard.main_script()
