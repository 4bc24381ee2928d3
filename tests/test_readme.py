"""The README keeps its word: its Python runs, CI ends with its test command, its links exist."""

import re
import shlex
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
CI = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> tuple[str, str]:
    """The two commands: install and trace, install and test."""
    trace, test = (block.strip() for block in blocks("bash"))
    return trace, test


@pytest.mark.filterwarnings("ignore:.* answers have several tokens")  # said, and true
def test_the_python_of_the_readme_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHLAB_CACHE", str(tmp_path))
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["trace"].identical(names["again"])
    assert names["effect"].dims == ("site", "layer", "token_role")
    assert names["figure"].data


def test_each_of_the_two_commands_is_one_line_that_sets_everything_up():
    for command in commands():
        assert "\n" not in command
        steps = command.split(" && ")
        assert steps[0] == "python3 -m venv .venv"
        assert shlex.split(steps[1])[:2] == [".venv/bin/pip", "install"]
        assert "-c constraints.txt" in steps[1]


def test_ci_ends_with_the_test_command_as_printed():
    assert CI.rstrip().splitlines()[-1] == commands()[1]


def test_the_trace_command_needs_no_extra():
    trace, _ = commands()
    assert trace.endswith("&& .venv/bin/mechlab trace")
    assert "[" not in trace


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_every_local_link_leads_somewhere(target):
    assert (REPOSITORY / target).exists()
