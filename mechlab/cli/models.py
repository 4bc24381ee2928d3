"""`mechlab models`: which models are shipped, what a model's sites are, what it sees of a text."""

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechlab.cli.outcome import CHECK_FAILED

if TYPE_CHECKING:
    from rich.table import Table

    from mechlab.engine import Checks
    from mechlab.models import Model

__all__ = ["models"]

models = typer.Typer()

Name = Annotated[str, typer.Argument(help="A shipped model, a local folder, or a hub name.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]


@models.callback(invoke_without_command=True)
def models_group(context: typer.Context, as_json: Json = False) -> None:
    """List the shipped models; check a model; show the tokens it sees."""
    if context.invoked_subcommand is None:
        list_models(as_json)


@models.command("list")
def list_models(as_json: Json = False) -> None:
    """List the models that come with mechlab; they need no download."""
    from mechlab import organisms

    cards = {name: dict(organisms.card(name)) for name in organisms.names()}
    if as_json:
        print(json.dumps({"models": cards}, ensure_ascii=False, default=str))
        return
    table = _table("model", "what it is", "licence")
    for name, card in cards.items():
        table.add_row(name, str(card.get("summary", "")), str(card.get("licence", "")))
    _show(table)


@models.command("check")
def check_model(
    name: Name, device: Device = "auto", dtype: Dtype = "float32", as_json: Json = False
) -> None:
    """Prove that a model's sites mean what they say, and show the table.

    Exit code 1 when a check failed or a site that exists could not be proved.
    """
    from mechlab.engine import verify

    checks = verify(_load(name, device, dtype))
    if as_json:
        print(json.dumps(_checks_object(name, checks), ensure_ascii=False))
    else:
        _show(_check_table(checks))
        _show(_site_table(checks))
    unproved = any(site.exists and not site.verified for site in checks.sites.values())
    if unproved or not all(check.passed for check in checks.results):
        raise typer.Exit(CHECK_FAILED)


@models.command("tokens")
def show_tokens(
    name: Name, text: Annotated[str, typer.Argument(help="Any text.")], as_json: Json = False
) -> None:
    """Show the tokens that a model sees, with the start token that it may add."""
    model = _load(name, "cpu", "float32")
    if as_json:
        print(json.dumps({"tokens": model.token_strings(text)}, ensure_ascii=False))
    else:
        print(model.show_tokens(text))


def _load(name: str, device: str, dtype: Any) -> "Model":
    from mechlab.models import load_model

    return load_model(name, device=device, dtype=dtype)


def _check_table(checks: "Checks") -> "Table":
    table = _table("check", "", "what was seen")
    for check in checks.results:
        table.add_row(check.name, "ok" if check.passed else "FAILED", check.detail)
    return table


def _site_table(checks: "Checks") -> "Table":
    table = _table("site", "exists", "fires", "proved", "why not")
    for name, site in sorted(checks.sites.items()):
        marks = ("yes" if mark else "no" for mark in (site.exists, site.fires, site.verified))
        table.add_row(name, *marks, site.reason)
    return table


def _checks_object(name: str, checks: "Checks") -> dict[str, Any]:
    """Return the outcome as JSON values; a difference that could not be measured is null."""
    results = [asdict(check) for check in checks.results]
    for result in results:
        if not math.isfinite(result["difference"]):
            result["difference"] = None
    return {
        "model": name,
        "checks": results,
        "sites": {site: asdict(status) for site, status in sorted(checks.sites.items())},
        "parallel_blocks": checks.parallel_blocks,
        "engine_agrees": checks.engine_agrees,
    }


def _table(*columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    return Table(*columns, box=box.SIMPLE_HEAD)


def _show(table: "Table") -> None:
    from rich.console import Console

    Console().print(table)
