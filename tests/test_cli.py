"""The command line as a surface: documented, helpful, quick to answer, clear about mistakes."""

import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from mechlab.cli import app
from mechlab.cli.bar import progress_bar
from mechlab.cli.outcome import Commands
from mechlab.errors import Cancelled, SiteError
from mechlab.progress import Progress

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def commands() -> dict[str, object]:
    """Every command and group by the words that one types, without the root."""

    def walk(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, object]]:
        for name, child in getattr(command, "commands", {}).items():
            yield " ".join((*words, name)), child
            yield from walk(child, (*words, name))

    return dict(walk(get_command(app), ()))


def in_readme() -> set[str]:
    """The commands of the README's table, without their arguments."""
    rows = re.findall(r"^\| `mechlab ([a-z -]+?)(?: [A-Z. ]+(?:json)?)?` \|", README, flags=re.M)
    return set(rows)


def test_every_command_is_documented_in_the_readme_and_nothing_else_is():
    assert in_readme() == commands().keys() - {"runs"}  # `mechlab runs` alone only shows its help


@pytest.mark.parametrize("words", sorted(commands()))
def test_every_command_and_option_has_help(words):
    command = commands()[words]
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"mechlab {words}: {parameter.name} has no help"


@pytest.mark.parametrize("words", ["", *sorted(commands())])
def test_help_is_shown(words):
    shown = CliRunner().invoke(app, [*words.split(), "--help"])
    assert shown.exit_code == 0
    assert "Usage" in shown.stdout


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from typer.testing import CliRunner; from mechlab.cli import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
        "print({'torch', 'transformers', 'numpy', 'xarray', 'plotly'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert done.stdout.decode().strip() == "set()"


@pytest.fixture
def broken() -> typer.Typer:
    """A command line of the same kind, with one command per way to end."""
    group = typer.Typer(cls=Commands, pretty_exceptions_enable=False)

    @group.command()
    def refuse() -> None:
        raise SiteError("site 'resid_mud' does not exist.\n  Use 'resid_mid'.")

    @group.command()
    def cancel() -> None:
        with progress_bar("work") as progress:
            progress(Progress(done=3, total=10, unit="rows"))
            raise KeyboardInterrupt

    @group.command()
    def interrupt() -> None:
        raise KeyboardInterrupt

    @group.command()
    def crash() -> None:
        raise ZeroDivisionError

    return group


def test_an_error_is_one_message_on_stderr_and_exit_code_2(broken):
    ended = CliRunner().invoke(broken, ["refuse"])
    assert ended.exit_code == 2
    assert ended.stderr == "SiteError: site 'resid_mud' does not exist.\n  Use 'resid_mid'.\n"
    assert ended.stdout == ""


def test_ctrl_c_says_what_was_kept_and_ends_with_130(broken):
    ended = CliRunner().invoke(broken, ["cancel"])
    assert ended.exit_code == 130
    assert "Stopped after 3 of 10 rows. What was finished is kept" in ended.stderr
    assert ended.stdout == ""


def test_ctrl_c_without_progress_ends_with_130_too(broken):
    ended = CliRunner().invoke(broken, ["interrupt"])
    assert (ended.exit_code, ended.stderr) == (130, "Stopped.\n")


def test_a_mistake_of_ours_is_not_hidden(broken):
    ended = CliRunner().invoke(broken, ["crash"])
    assert ended.exit_code == 1
    assert isinstance(ended.exception, ZeroDivisionError)


def test_stopping_before_the_first_report_names_no_count():
    with pytest.raises(Cancelled, match="^Stopped. What was finished"), progress_bar("work"):
        raise KeyboardInterrupt


def test_a_warning_is_one_sentence_on_stderr():
    group = typer.Typer(cls=Commands)

    @group.command()
    def warn() -> None:
        warnings.warn("only the first token is scored", UserWarning, stacklevel=1)

    group.command("other")(warn)  # two commands, so that the group is not collapsed into one
    ended = CliRunner().invoke(group, ["warn"])
    assert (ended.exit_code, ended.stderr) == (0, "Note: only the first token is scored\n")


def test_the_version_is_shown():
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.exit_code == 0 and shown.stdout.startswith("mechlab ")
