"""The command line, `mechlab ...`: thin over the same functions that Python users call.

Nothing here computes. A command reads its options, calls `Store.run`, and shows what came back:
text for people on stdout, one JSON object on stdout with `--json`, progress on stderr. Torch is
imported inside the commands that need it, so that `--help` answers at once.
"""

from typing import Annotated

import typer

from mechlab.cli import (
    cmr,
    dashboard,
    edit,
    edit_eval,
    heads,
    induction,
    knockout,
    models,
    paths,
    retrieval,
    runs,
    spec,
    stats,
    trace,
)
from mechlab.cli.outcome import Commands

__all__ = ["app", "main"]

app = typer.Typer(
    name="mechlab",
    cls=Commands,
    help="Find where a language model keeps a fact; keep and look at the results.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("trace")(trace.trace)
app.command("heads")(heads.heads)
app.command("paths")(paths.paths)
app.command("knockout")(knockout.knockout)
app.command("retrieval")(retrieval.retrieval)
app.command("induction")(induction.induction)
app.command("cmr")(cmr.cmr)
app.command("edit")(edit.edit)
app.command("edit-eval")(edit_eval.edit_eval)
app.command("stats")(stats.stats)
app.command("run")(spec.run_spec)
app.add_typer(models.models, name="models")
app.add_typer(runs.runs, name="runs")
app.command("app")(dashboard.dashboard)


def _show_version(wanted: bool) -> None:
    if wanted:
        from mechlab.results import library_versions

        print(f"mechlab {library_versions().get('mechlab', '(a source folder, not installed)')}")
        raise typer.Exit


@app.callback()
def _root(
    show: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Find where a language model keeps a fact; keep and look at the results."""


def main() -> None:
    """Run the command line; the entry point of the `mechlab` script."""
    app()
