"""`mechlab runs`: stored results, listed, shown, exported, verified, cleaned."""

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechlab.cli.outcome import CHECK_FAILED
from mechlab.errors import OptionError

if TYPE_CHECKING:
    from mechlab.store import Entry, Store

__all__ = ["runs"]

runs = typer.Typer(no_args_is_help=True)

Run = Annotated[str, typer.Argument(help="A run id, or the start of one.", metavar="ID")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Cache = Annotated[str | None, typer.Option(metavar="FOLDER", help="The store: a folder or URL.")]


@runs.callback()
def runs_group() -> None:
    """List, show, export, verify and clean stored results."""


@runs.command("list")
def list_runs(
    method: Annotated[str | None, typer.Option(help="Only results of this method.")] = None,
    model: Annotated[str | None, typer.Option(help="Only results of this model.")] = None,
    as_json: Json = False,
    cache: Cache = None,
) -> None:
    """List stored results, the newest first."""
    store = _store(cache)
    entries = store.find(method=method, model=model)
    if as_json:
        print(json.dumps({"store": store.root, "runs": [_about(entry) for entry in entries]}))
        return
    if not entries:
        print(f"no results in {store.root}")
        return
    tags = {key: " ".join(said.tags) for key, said in store.remarks().items() if said.tags}
    _print_table(entries, tags)


@runs.command("show")
def show_run(run: Run, as_json: Json = False, cache: Cache = None) -> None:
    """Show a stored result as it was shown when it was computed."""
    from mechlab.cli.reports import report_of

    store = _store(cache)
    entry = store.entry(run)
    report, result = report_of(entry.method), store.get(entry.key)
    if as_json:
        report.print_json(result, run=entry.id, html=None)
        return
    report.print_text(result, run=entry.id, html=None)
    for name, value in _about(entry).items():
        if name not in {"run", "labels"}:
            print(
                f"{name:<9} {value if isinstance(value, str | int | float) else json.dumps(value)}"
            )


@runs.command("export")
def export_run(
    run: Run,
    path: Annotated[Path, typer.Argument(help="File to write: .csv, .json, .zip or .zarr.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    cache: Cache = None,
) -> None:
    """Write a stored result for other programs; the extension chooses the format."""
    print(_store(cache).export(run, path, overwrite=overwrite))


@runs.command("verify")
def verify_runs(as_json: Json = False, cache: Cache = None) -> None:
    """Compare every stored file with its checksum; exit code 1 when something is damaged."""
    store = _store(cache)
    damages = store.verify()
    if as_json:
        found = [{"path": damage.path, "problem": damage.problem} for damage in damages]
        print(json.dumps({"store": store.root, "damaged": found}))
    for damage in [] if as_json else damages:
        print(f"{damage.problem}")
    if not as_json:
        print(f"{len(damages)} damaged in {store.root}" if damages else f"{store.root} is sound")
    if damages:
        raise typer.Exit(CHECK_FAILED)


@runs.command("gc")
def collect_garbage(
    older_than: Annotated[
        float,
        typer.Option(
            min=0, max=1e6, help="Hours; younger remains may belong to a running process."
        ),
    ] = 24,
    cache: Cache = None,
) -> None:
    """Remove what killed runs left behind; results stay."""
    store = _store(cache)
    removed = store.clean(older_than=timedelta(hours=older_than))
    for path in removed:
        print(path)
    print(f"removed {len(removed)} remains of unfinished runs from {store.root}")


def _store(cache: str | None) -> "Store":
    """Open the store; one that was named must be there, else a typing error looks like no results.

    Raises:
        OptionError: when `--cache` names a folder that does not exist.
    """
    from mechlab.store import Store

    store = Store(cache)
    if cache is not None and "://" not in store.root and not Path(store.root).is_dir():
        raise OptionError(
            f"--cache {cache}: there is no folder {store.root}. Allowed: a folder that a trace was "
            "kept in, or a URL. Correct it, or leave it out for the usual place."
        )
    return store


def _about(entry: "Entry") -> dict[str, Any]:
    return {
        "run": entry.id,
        "method": entry.method,
        "version": entry.method_version,
        "model": entry.model_name,
        "labels": list(entry.labels),
        "options": dict(entry.options),
        "created": entry.created,
        "seconds": entry.wall_seconds,
        "bytes": entry.size,
    }


def _print_table(entries: "list[Entry]", tags: dict[str, str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    columns = ("run", "method", "model", "prompts", "created", "kB", *(["tags"] if tags else []))
    table = Table(*columns, box=box.SIMPLE_HEAD)
    for entry in entries:
        first = entry.labels[0] if entry.labels else entry.name
        more = f" and {len(entry.labels) - 1} more" if len(entry.labels) > 1 else ""
        when = entry.when.astimezone().strftime("%Y-%m-%d %H:%M")
        size = f"{entry.size / 1000:.0f}"
        told = [tags.get(entry.key, "")] if tags else []
        table.add_row(entry.id, entry.method, entry.model_name, first + more, when, size, *told)
    Console().print(table)
